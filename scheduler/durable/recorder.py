"""Records what came of runs: those that end while a commit is under way share the next one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from pool.clock import Clock
from scheduler.durable.followers import what_follows
from scheduler.durable.model import Claim, Ending
from scheduler.durable.store import Store, StoreError

log = logging.getLogger("hearth.durable")

MOST_TOGETHER = 256
"""Ends in one commit."""
STORE_RETRY = 1.0
"""Seconds until the store is asked again after it has failed."""
Follower = Callable[[Claim, Ending], Iterable[object]]
"""What follows from the end of a call, for `Store.begin`. Must not raise."""
Run = tuple[Claim, Ending]


class Recorder:
    """One a worker. `recorded` is told of every end that was given to it, once, and whether it is on disk."""

    def __init__(self, store: Store, clock: Clock, recorded: Callable[[Claim, Ending, bool], None]) -> None:
        self._store = store
        self._clock = clock
        self._recorded = recorded
        self.followers: list[Follower] = []
        self._ended: list[Run] = []
        self._task: asyncio.Task[None] | None = None
        self._pause: asyncio.Future[None] | None = None
        self._closing = False

    @property
    def busy(self) -> bool:
        """Whether anything is still to be recorded."""
        return self._task is not None

    def add(self, claim: Claim, ending: Ending) -> None:
        """Record an end, however long the store takes to be able to."""
        if ending.status.ended:
            subject = f"invocation {ending.id} of {claim.call.function}"
            if follow := what_follows(subject, self.followers, claim, ending):
                ending = ending._replace(follow=follow)
        self._ended.append((claim, ending))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write())

    async def close(self) -> None:
        """Record what can be recorded at once. What cannot is run again at the next start."""
        self._closing = True
        if self._pause is not None:
            self._pause.cancel()
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def _write(self) -> None:
        while self._ended:
            together, self._ended = self._ended[:MOST_TOGETHER], self._ended[MOST_TOGETHER:]
            await self._record(together)
        self._task = None

    async def _record(self, runs: Sequence[Run]) -> None:
        on_disk = True
        while True:
            try:
                await self._store.finish([ending for _, ending in runs], self._clock.wall())
                break
            except StoreError:
                if self._closing or not await self._retried():
                    on_disk = False
                    break
            except Exception as fault:  # of one of them: the others are none the worse for it
                if len(runs) > 1:
                    for run in runs:
                        await self._record([run])
                    return
                ((claim, ending),) = runs
                subject = f"invocation {ending.id} of {claim.call.function}"
                if not ending.follow:
                    log.error("%s: its end cannot be recorded, it will be run again", subject, exc_info=fault)
                    on_disk = False
                    break
                log.error("%s: what follows from its end is not begun", subject, exc_info=fault)
                runs = [(claim, ending._replace(follow=()))]  # it has ended all the same
        for claim, ending in runs:
            self._recorded(claim, ending, on_disk)

    async def _retried(self) -> bool:
        """Wait until it is time to try again; False: it is time to close."""
        self._pause = asyncio.ensure_future(self._clock.sleep(STORE_RETRY))
        await asyncio.wait((self._pause,))
        self._pause = None
        return not self._closing
