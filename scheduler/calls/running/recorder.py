"""Records the ends of runs. Those that end while a commit is under way share the next one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby, islice

from pool.backoff import Retries
from pool.clock import Clock, Timer, wake
from pool.contracts import problem_slugs as slugs
from scheduler.calls.followers import collect_follow_ups
from scheduler.calls.leases import LeaseOwner
from scheduler.calls.model import Claim, Ending, Result, Status
from scheduler.calls.store import STORE_RETRY, CallStore, StoreError, StoreFull
from scheduler.work import Work

log = logging.getLogger("hearth.durable")

MOST_TOGETHER = 256
"""Ends in one commit."""
MANY = 8
"""Ends in one commit that tell of a backlog being run: more are waited for, since a commit of a hundred costs hardly
more than one of ten."""
GATHER = 0.02
"""Seconds that ends wait for others then."""
FAILING = 3
"""Ends that cannot be written one by one, after which the store is taken to fail for all."""
Follower = Callable[[Claim, Ending], Iterable[Work]]
"""Says what is begun with the record of a call's end. Must not raise."""
Run = tuple[Claim, Ending]


class Recorder:
    """The recorder of one worker.

    It calls `recorded` once for every end, with whether the end is on disk. `recorded` must not raise.
    """

    def __init__(
        self, store: CallStore, clock: Clock, recorded: Callable[[Sequence[Run], bool], None]
    ) -> None:
        self._store = store
        self._clock = clock
        self._recorded = recorded
        self.followers: list[Follower] = []
        self._ended: dict[str, Run] = {}
        """Ends that the store was not asked to write yet, by call."""
        self._writing: dict[str, Run] = {}
        self._written = asyncio.Event()
        """Set for a moment when the ends in `_writing` are done with."""
        self._failed: dict[str, Run] = {}
        """Ends that the store could not write. After a pause they are tried again, behind newer ones."""
        self._retries = Retries(STORE_RETRY)
        self._retry: Timer | None = None
        self._task: asyncio.Task[None] | None = None
        self._pause: asyncio.Future[None] | None = None
        self._closing = False

    @property
    def busy(self) -> bool:
        """Return whether anything is still to be recorded."""
        return bool(self._ended or self._writing or self._failed)

    def add(self, claim: Claim, ending: Ending) -> None:
        """Record an end, however long the store takes to be able to."""
        if ending.status.ended and (
            follow := collect_follow_ups(lambda: claim.call.subject, self.followers, claim, ending)
        ):
            ending = ending._replace(follow=follow)
        self._ended[ending.id] = claim, ending
        self._go_on()

    def cancel(self, id: str) -> bool:
        """Have a call end as cancelled that has failed and is to be tried again, if that is not written yet. False:
        there is no such call here, or it has ended otherwise."""
        for waiting in (self._ended, self._failed):
            if id in waiting and not waiting[id][1].status.ended:
                claim, ending = waiting[id]
                waiting[id] = claim, Ending(id, Status.CANCELLED, ending.failures)
                return True
        return False

    async def written(self, id: str) -> None:
        """Return when the end of a call is not just being written."""
        while id in self._writing:
            await self._written.wait()

    def hurry(self) -> bool:
        """Write ends now if others are being waited for. Return whether they were."""
        if self._pause is None or self._pause.done():
            return False
        wake(self._pause)
        return True

    async def close(self) -> None:
        """Record what can be recorded at once. What cannot is run again at the next start."""
        self._closing = True
        self.hurry()
        self._try_again()
        if self._task is not None:
            await asyncio.wait((self._task,))

    def _go_on(self) -> None:
        if self._task is None and self._ended:
            self._task = asyncio.get_running_loop().create_task(self._write())

    def _try_again(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._ended |= self._failed
        self._failed = {}
        self._go_on()

    async def _write(self) -> None:
        try:
            while self._ended:
                self._writing = dict(islice(self._ended.items(), MOST_TOGETHER))
                for id in self._writing:
                    del self._ended[id]
                await self._record(list(self._writing.values()))
                were, self._writing = len(self._writing), {}
                self._written.set()
                self._written.clear()  # those who wait have been woken
                if were >= MANY and not self._closing:
                    self._pause = asyncio.get_running_loop().create_future()
                    timer = self._clock.call_later(GATHER, wake, self._pause)
                    await self._pause
                    timer.cancel()
        finally:
            self._task = None
            if self._failed and not self._closing and self._retry is None:
                self._retry = self._clock.call_later(self._retries.failed(), self._try_again)

    async def _record(self, runs: Sequence[Run]) -> None:
        owner = runs[0][0].lease_owner
        if any(claim.lease_owner is not owner for claim, _ in runs):  # the process has taken a new epoch
            for owner, some in groupby(runs, key=_lease_owner_of):
                await self._record_of(owner, list(some))
        else:
            await self._record_of(owner, runs)

    async def _record_of(self, owner: LeaseOwner, runs: Sequence[Run]) -> None:
        try:
            recorded = await self._store.finish(owner, [ending for _, ending in runs], self._clock.wall())
        except Exception as fault:
            if len(runs) > 1:
                await self._one_by_one(runs)
            elif isinstance(fault, StoreFull) and (runs[0][1].result is not None or runs[0][1].follow):
                await self._without_what_does_not_fit(*runs[0], fault)
            elif isinstance(fault, StoreError):
                self._put_off(runs)
            else:
                await self._without_what_is_at_fault(*runs[0], fault)
        else:
            self._retries.succeeded()
            if all(recorded):
                self._recorded(runs, True)
            else:
                self._tell_refused(runs, recorded)

    def _tell_refused(self, runs: Sequence[Run], recorded: Sequence[bool]) -> None:
        """Tell of ends, some of which were refused: the lease is lost, or the call was cancelled with its run."""
        kept: list[Run] = []
        refused: list[Run] = []
        for run, is_recorded in zip(runs, recorded, strict=True):
            (kept if is_recorded or run[1].status is Status.CANCELLED else refused).append(run)
        self._recorded(kept, True)
        self._recorded(refused, False)

    async def _one_by_one(self, runs: Sequence[Run]) -> None:
        """Record ends one by one: if one of them is at fault, the others must not suffer."""
        failing = 0
        for number, run in enumerate(runs):
            if failing == FAILING:  # it is not them
                self._put_off(runs[number:])
                return
            await self._record([run])
            failing += run[1].id in self._failed

    def _put_off(self, runs: Sequence[Run]) -> None:
        """Try these again later. Those that were put off last come first: they may not have been tried yet."""
        if self._closing:
            self._recorded(runs, False)
        else:
            self._failed = {ending.id: (claim, ending) for claim, ending in runs} | self._failed

    async def _without_what_does_not_fit(self, claim: Claim, ending: Ending, full: StoreFull) -> None:
        """Record an end for which the store is too full: without what the run has brought, which then is its error;
        if that is not enough, without what follows."""
        if ending.result is not None:
            log.warning("%s: its result is not stored: %s", claim.call.subject, full)
            self._discard(ending.result)
            kept = ending._replace(result=None, follow=())
            if ending.status.ended:
                kept = Ending(
                    ending.id, Status.FAILED, ending.failures, error=slugs.NOT_KEPT, detail=str(full)
                )
            self.add(claim, kept)
        else:
            log.error("%s: its follow-ups are not started: %s", claim.call.subject, full)
            await self._record([(claim, ending._replace(follow=()))])

    def _discard(self, result: Result) -> None:
        if result.payload is not None:
            self._store.discard(result.payload.id)

    async def _without_what_is_at_fault(self, claim: Claim, ending: Ending, fault: Exception) -> None:
        """Record an end that cannot be written as it is: without its follow-ups, or without its result."""
        if ending.follow:
            log.error("%s: its follow-ups are not started", claim.call.subject, exc_info=fault)
            await self._record([(claim, ending._replace(follow=()))])
        elif ending.result is not None:
            log.error("%s: its result cannot be stored", claim.call.subject, exc_info=fault)
            self._discard(ending.result)
            kept = ending._replace(result=None)
            if ending.status.ended:
                detail = "the result cannot be stored; the gateway's log says why"
                kept = Ending(ending.id, Status.FAILED, ending.failures, error=slugs.NOT_KEPT, detail=detail)
            await self._record([(claim, kept)])
        else:
            log.error(
                "%s: its end cannot be recorded, so it will run again", claim.call.subject, exc_info=fault
            )
            self._recorded([(claim, ending)], False)


def _lease_owner_of(run: Run) -> LeaseOwner:
    return run[0].lease_owner
