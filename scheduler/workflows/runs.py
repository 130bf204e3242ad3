"""Workflow runs of a gateway: begins them, decides their next moves when calls end, and records their ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from pool.backoff import Retries
from pool.clock import Clock
from pool.contracts import problem_slugs as slugs
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor
from scheduler.calls.followers import collect_follow_ups
from scheduler.calls.leases import LeaseOwner
from scheduler.calls.model import Idempotency
from scheduler.calls.running.lease_keeper import StoreSettings
from scheduler.calls.store import STORE_RETRY, LeaseLost, StoreError, StoreFull
from scheduler.calls.waiters import Waiters
from scheduler.definitions.workflows import WorkflowDefinition
from scheduler.work import NewRun, Work
from scheduler.workflows.model import RunEnd, RunProgress, RunRecord, RunStatus
from scheduler.workflows.moves import decide
from scheduler.workflows.store import RunStore

log = logging.getLogger("hearth.durable")

PRUNE_EVERY_SECONDS = 60.0
LARGE_RUN_BYTES = 4 * 2**20
"""Stored size from which a run is large. One large run is decided at a time, besides small ones: its answers are in
memory meanwhile, up to 64 MiB, and several times as large as values."""
FAULT = "the gateway has a fault; its log says more"
MAX_RUNS_AT_ONCE = 16
"""Runs that are decided at once; the answers of their steps are in memory meanwhile."""


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that ends, as its followers get it."""

    run: RunRecord
    definition: WorkflowDefinition | None
    """None if another version of this program wrote it, and this one cannot read it."""
    end: RunEnd


Follower = Callable[[EndedRun], Iterable[Work]]
"""Return the work to begin in the transaction that records a run's end. Must not raise."""


class WorkflowRuns:
    """The workflow runs of one gateway.

    `workflows` returns the declared ones, `notify` tells the worker about new calls, and `interrupt` ends a running
    call.
    """

    def __init__(
        self,
        store: RunStore,
        clock: Clock,
        metrics: Metrics,
        workflows: Callable[[], Mapping[str, WorkflowDefinition]],
        notify: Callable[[], None],
        interrupt: Callable[[str], Awaitable[object]],
        settings: StoreSettings,
    ) -> None:
        self.store = store
        self.workflows = workflows
        self.on_followed: list[Callable[[Sequence[Work]], None]] = []
        """Called with the work of the followers once it is on disk."""
        self.followers: list[Follower] = []
        """Followers of runs. Add to it before `start` only."""
        self._clock = clock
        self._metrics = metrics
        self._notify = notify
        self._interrupt = interrupt
        self._retention = settings.retention
        self._leases = settings.leases
        self._leased: set[str] = set()
        """Runs that are leased to this process."""
        self._leases.holders.append(lambda: bool(self._leased))
        self._leases.on_lost.append(self._look_at_lost)
        self._again: set[str] = set()
        """Runs that have changed since they were looked at."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """Tasks that decide the next moves of runs, by run."""
        self._room = asyncio.Semaphore(MAX_RUNS_AT_ONCE)
        self._large_room = asyncio.Semaphore(1)
        """For runs over `LARGE_RUN_BYTES`; small runs do not wait for them."""
        self._waiters = Waiters(clock)
        self._hands: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._loops: list[asyncio.Task[None]] = []
        self._closed = False

    # -- its life -------------------------------------------------------------------------------------------

    def start(self, supervisor: Supervisor) -> None:
        """Continue the runs of an earlier process."""
        self._loops = [
            supervisor.supervise("runs", self._take_up),
            supervisor.supervise("runs-pruning", self._prune),
        ]

    async def close(self) -> None:
        """Stop deciding. The next start continues the runs."""
        self._closed = True
        tasks = [*self._loops, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _take_up(self) -> None:
        """Continue all unfinished runs, as soon as the store lists them."""
        await self._leases.take_over()
        retries = Retries(STORE_RETRY)
        while self.store.exists:
            with suppress(StoreError):
                for id in await self.store.unfinished(self._leases.owner):
                    self.look_at(id)
                return
            await self._clock.sleep(retries.failed())

    async def _prune(self) -> None:
        while True:
            await self._clock.sleep(PRUNE_EVERY_SECONDS)
            with suppress(StoreError):
                while self.store.exists and await self.store.prune(self._clock.wall() - self._retention):
                    await self._clock.sleep(0)

    # -- public verbs -----------------------------------------------------------------------------

    async def begin(self, run: NewRun, key: Idempotency | None = None, caller: str = "") -> RunRecord:
        """Store a run, whose bytes count to `caller`, and begin it. Return its record.

        With a known idempotency key, return the run that the key was first used for. Raises `KeyReused` and
        `StoreError`.
        """
        record = await self.store.begin(run, self._clock.wall(), key, caller)
        if not record.status.ended:
            self.look_at(record.id)
        return record

    async def cancel(self, id: str) -> RunRecord | None:
        """Cancel a run and interrupt its running calls. Return it as it was, or None if there is none."""
        async with self._by_hand(id):
            record, calls = await self.store.cancel(id, self._clock.wall())
            if record is not None and not record.status.ended:
                self._tell(record, RunStatus.CANCELLED)
                await asyncio.gather(*map(self._interrupt, calls))
        return record

    async def resume(self, id: str) -> RunRecord | None:
        """Resume a failed or cancelled run, and no other. Return it as it was, or None if there is none."""
        async with self._by_hand(id):
            record = await self.store.resume(id)
        if record is not None and record.status in (RunStatus.FAILED, RunStatus.CANCELLED):
            self.look_at(id)
        return record

    async def forget(self, id: str) -> None:
        """Forget an ended run, with its calls. A run that has not ended is left unchanged."""
        async with self._by_hand(id):
            while await self.store.forget(id):
                await self._clock.sleep(0)

    def _by_hand(self, id: str) -> asyncio.Lock:
        """Return the lock to hold while a run is cancelled, resumed or forgotten: a call must not start again before
        its earlier run is over."""
        return self._hands.setdefault(id, asyncio.Lock())

    @property
    def looks(self) -> Mapping[str, asyncio.Task[None]]:
        """Return the tasks that decide the next moves of runs now, by run."""
        return self._tasks

    @property
    def waiting(self) -> int:
        """Return the number of callers that wait for the end of a run."""
        return self._waiters.total

    async def wait(self, id: str, seconds: float) -> None:
        """Wait until a run has ended, or for so many seconds. Return at once if too many callers wait already."""
        if self._waiters.full:
            return
        with self._waiters.waiting(id, seconds) as ended:
            record = await self.store.show(id)
            if record is not None and not record.status.ended:
                await ended

    # -- continuing runs -------------------------------------------------------------------------------------------

    def call_ended(self, owner: str) -> None:
        """Note that a call of a step has ended; `owner` is `RUN/STEP`."""
        self.look_at(owner.partition("/")[0])

    def look_at(self, id: str) -> None:
        """Decide the next moves of a run, which may have changed."""
        if self._closed:
            return
        self._again.add(id)
        if id not in self._tasks:
            self._tasks[id] = asyncio.ensure_future(self._go_on(id))

    async def _go_on(self, id: str) -> None:
        retries = Retries(STORE_RETRY)
        try:
            while id in self._again:
                self._again.discard(id)
                owner = self._leases.owner
                try:
                    await self._step_or_give_up(owner, id)
                except LeaseLost:
                    self._again.add(id)
                    self._leases.renew(owner)
                except StoreError:
                    self._again.add(id)
                    await self._clock.sleep(retries.failed())
        finally:
            del self._tasks[id]  # here, not in a callback of the task: `look_at` may come in between

    async def _step_or_give_up(self, owner: LeaseOwner, id: str) -> None:
        """Make the next moves of a run, or end it if they are impossible. Raises `StoreError`."""
        try:
            await self._step(owner, id)
        except StoreFull as full:  # if it waited, its own bytes would keep the store full
            log.warning("run %s failed: %s", id, full)
            await self._give_up(owner, id, slugs.NOT_KEPT, str(full))
        except StoreError:
            raise
        except Exception:  # otherwise the run would never end
            log.exception("run %s failed: its next step could not be decided", id)
            await self._give_up(owner, id, "not-decided", FAULT)

    async def _give_up(self, owner: LeaseOwner, id: str, error: str, detail: str) -> None:
        """End a run whose next moves cannot be decided, as failed, with its follow-ups. Raises `StoreError`."""
        record = await self.store.show(id)
        if record is None or record.status.ended:
            return
        try:
            found = await self.store.steps(record)
        except ValueError:  # written by another version of this program
            found = None
        end = RunEnd(RunStatus.FAILED, error=error, detail=detail)
        ended = EndedRun(record, None if found is None else found[0], end)
        end = replace(end, follow=collect_follow_ups(lambda: f"run {id}", self.followers, ended))
        try:
            given_up = await self.store.give_up(owner, record, end, self._clock.wall())
        except StoreFull as full:
            log.error("run %s: its follow-ups are not started: %s", id, full)
            end = replace(end, follow=())
            given_up = await self.store.give_up(owner, record, end, self._clock.wall())
        if given_up:
            self._tell_end(record, end)
        else:
            self._again.add(id)

    async def _step(self, owner: LeaseOwner, id: str) -> None:
        progress = await self.store.progress(owner, id, self._clock.wall())
        if progress is None:
            self._leased.discard(id)
            return
        self._leased.add(id)
        async with self._room if progress.size <= LARGE_RUN_BYTES else self._large_room:
            await self._decide(owner, id, progress)

    async def _decide(self, owner: LeaseOwner, id: str, progress: RunProgress) -> None:
        changes = await decide(self.store, progress)
        if not changes:
            return
        if changes.end is not None:
            ended = EndedRun(progress.record, progress.definition, changes.end)
            follow = collect_follow_ups(lambda: f"run {id}", self.followers, ended)
            changes.end = replace(changes.end, follow=follow)
        if not await self.store.apply(owner, id, changes, progress.record.revision, self._clock.wall()):
            self._again.add(id)
            return
        if changes.opened or changes.more:
            self._notify()
        if changes.end is not None:
            self._tell_end(progress.record, changes.end)

    def _tell_end(self, record: RunRecord, end: RunEnd) -> None:
        self._notify()
        for told in self.on_followed:
            told(end.follow)
        self._tell(record, end.status)

    def _look_at_lost(self) -> None:
        """Look at the runs whose leases were lost: nobody may have taken them yet."""
        lost = list(self._leased)
        self._leased.clear()
        for id in lost:
            self.look_at(id)

    def _tell(self, record: RunRecord, status: RunStatus) -> None:
        self._leased.discard(record.id)
        self._metrics.workflow_runs.labels(record.workflow, status.value).value += 1
        self._waiters.tell(record.id)
