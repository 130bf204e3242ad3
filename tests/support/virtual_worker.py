"""A worker of accepted calls on virtual time, over a real store: its thread is waited for while time stands still."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter, deque
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pool.clock import VirtualClock
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor
from scheduler.calls.destinations import Destinations
from scheduler.calls.model import CallRecord, Claim, Query, Result, Status
from scheduler.calls.plans import FunctionPlan
from scheduler.calls.running.lease_keeper import LeaseKeeper, StoreSettings
from scheduler.calls.running.running import Ended, TaskRun
from scheduler.calls.running.worker import Worker
from scheduler.store.sqlite.calls import SqliteCallStore
from scheduler.store.sqlite.leases import SqliteLeaseStore
from scheduler.store.sqlite.writer import Joint, Operation, T, U, Writer
from scheduler.work import NewCall, Request

LARGE = 2**30
RETENTION = 1000.0
OK = Result(200, [(b"content-type", b"text/plain")], b"well")
FAILED = Result(500, [], b"not well")


class WatchedWriter(Writer):
    """Knows when nobody waits for it."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self.asked = 0
        self.quiet = asyncio.Event()
        self.killed = False
        """Set when its process is dead: what was asked for is done, and nobody is told."""
        self._never = asyncio.Event()

    async def do_jointly(self, joint: Joint[T, U], thing: T) -> U:
        return await self._counted(super().do_jointly(joint, thing))

    async def read(self, operation: Operation[T]) -> T:
        return await self._counted(super().read(operation))

    async def read_many(self, operation: Operation[T]) -> T:
        return await self._counted(super().read_many(operation))

    async def _counted(self, work: Awaitable[T]) -> T:
        self.asked += 1
        self.quiet.clear()
        try:
            return await work
        finally:
            self.asked -= 1
            if not self.asked:
                self.quiet.set()
            if self.killed:
                await self._never.wait()


@dataclass(frozen=True)
class Run:
    """One run of a call, when it began."""

    at: float
    claim: Claim


class NoRun:
    """A run that never ends."""

    def interrupt(self) -> None:
        pass


@dataclass
class World:
    """One gateway process as its worker sees it, and the next ones on the same file."""

    file: Path
    clock: VirtualClock = field(default_factory=lambda: VirtualClock(epoch=0.0))
    plans: dict[str, FunctionPlan] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """How long a run of each function takes; 1 if it is not named."""
    answers: dict[str, deque[Result]] = field(default_factory=dict)
    """What the next runs of each function bring; then `OK`."""
    runs: list[Run] = field(default_factory=list)
    interrupted: list[str] = field(default_factory=list)
    running: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)
    """How many runs of each function there were at once."""
    accepted: int = 0

    def __post_init__(self) -> None:
        self.put_together()

    def put_together(self) -> None:
        """What one process is. Its worker is to be started."""
        self.metrics = Metrics()
        self.writer = WatchedWriter(self.file)
        self.store = SqliteCallStore(self.writer, LARGE)
        self.supervisor = Supervisor(self.clock, self.metrics)
        leases = LeaseKeeper(SqliteLeaseStore(self.writer), self.clock, self.metrics, "node")
        self.settings = StoreSettings(leases, RETENTION)
        self.worker = Worker(self.store, self.clock, self.metrics, self.plan_of, self.settings)
        self.ends: dict[str, Ended] = {}
        """Functions that take the end of a call's latest run, by call."""
        self._begun: list[TaskRun] = []
        self.worker.run = self.begin_run
        self.worker.followers.append(Destinations(self.plan_of))

    def begin_run(self, claim: Claim, ended: Ended) -> TaskRun:
        """Begin a run of a call."""
        self.ends[claim.call.id] = ended
        self._begun.append(TaskRun(self.run(claim), ended))
        return self._begun[-1]

    def plan_of(self, function: str) -> FunctionPlan:
        """What is declared of a function."""
        return self.plans.get(function, FunctionPlan())

    async def run(self, claim: Claim) -> Result:
        """What the worker runs calls with."""
        function = claim.call.function
        self.runs.append(Run(self.clock.now(), claim))
        self.running[function] += 1
        self.most[function] = max(self.most[function], self.running[function])
        try:
            await self.clock.sleep(self.seconds.get(function, 1.0))
        except asyncio.CancelledError:
            self.interrupted.append(claim.call.id)
            raise
        finally:
            self.running[function] -= 1
        left = self.answers.get(function)
        return left.popleft() if left else OK

    # -- what people do --------------------------------------------------------------------------------------

    async def accept(self, function: str = "f", count: int = 1, **more: Any) -> list[str]:
        """Accept calls, tell the worker, and return their ids."""
        ids = []
        for _ in range(count):
            self.accepted += 1
            ids.append(f"{self.accepted:032x}")
            call = NewCall(ids[-1], function, Request(), b"{}", **more)
            await self.store.accept(call, self.clock.wall())
        self.worker.notify()
        return ids

    async def start(self) -> None:
        """Start the worker, and let it do what there is to do now."""
        self.worker.start(self.supervisor)
        await self.settle()

    async def kill(self) -> None:
        """The process dies and leaves everything as it is; another is put together. The worker is to be started."""
        self.writer.killed = True
        self.worker.run = lambda claim, ended: NoRun()
        for run in self._begun:
            run.interrupt()
        await self.store.close()
        self.put_together()

    def fault(self, verb: str, table: str = "invocations") -> None:
        """From now on the table cannot be changed by `verb` (UPDATE, DELETE)."""
        self.script(
            f"CREATE TRIGGER broken BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )

    def mend(self) -> None:
        """It can be changed again."""
        self.script("DROP TRIGGER broken")

    def script(self, statement: str) -> None:
        """Change the data base past the gateway."""
        database = sqlite3.connect(self.file)
        database.execute(statement)
        database.close()

    # -- time ------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Return when every task waits for time to pass, and none for the store."""
        while True:
            await self.clock.settle()
            if self.worker.recorder.hurry():
                continue  # the store takes no time here, so how many ends share a commit must not matter
            if self.writer.asked:
                await asyncio.wait_for(self.writer.quiet.wait(), 30)
            elif self.writer.lists.waiting:
                await asyncio.sleep(0.001)  # a reader's thread counts
            else:
                return

    async def advance(self, seconds: float) -> None:
        """Let time pass; the store takes none."""
        end = self.clock.now() + seconds
        await self.settle()
        while (due := self.clock.next_due()) is not None and due <= end:
            await self.clock.advance(max(due - self.clock.now(), 1e-9))
            await self.settle()
        await self.clock.advance(max(end - self.clock.now(), 0.0))
        await self.settle()

    # -- what came of it -------------------------------------------------------------------------------------

    async def record(self, id: str) -> CallRecord:
        """How a call stands."""
        record = await self.store.show(id)
        assert record is not None
        return record

    async def status(self, id: str) -> Status:
        """How a call stands, in one word."""
        return (await self.record(id)).status

    async def calls_of(self, function: str) -> list[CallRecord]:
        """All calls of a function, oldest first."""
        return list(reversed((await self.store.page(Query(function=function, limit=1000))).records))

    def times(self, function: str = "f") -> list[float]:
        """When runs of a function began."""
        return [run.at for run in self.runs if run.claim.call.function == function]

    def taken_over(self) -> float | None:
        """Return how many calls the latest process has taken over from earlier ones."""
        return self.metrics.registry.get_sample_value("hearth_async_interrupted_total")

    async def books_agree(self) -> None:
        """Nothing is under way, here and in the store."""
        worker = self.worker
        assert worker.lanes == () and worker.waiting == 0 and not worker.recorder.busy
        assert worker.idle
        assert not {key: n for key, n in (await self.store.counts()).items() if key[1] is Status.RUNNING}
