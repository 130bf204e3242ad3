"""The contract of a store with several processes on it. Each back end is one more parameter of `back_end`.

Two processes are two owners that speak to stores of their own, on one database.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from scheduler.calls.callback_store import CallbackAttempt, CallbackStore
from scheduler.calls.callbacks import CallbackStatus
from scheduler.calls.leases import LeaseOwner, LeaseStore
from scheduler.calls.model import CallRecord, Ending, Result, Status
from scheduler.calls.store import CallStore, LeaseLost, LeaseRefused
from scheduler.definitions.jobs import JobDefinition
from scheduler.definitions.workflows import StepDefinition, WorkflowDefinition
from scheduler.jobs.model import JobStatus
from scheduler.jobs.store import JobEnd, JobStore
from scheduler.store.sqlite.callbacks import SqliteCallbackStore
from scheduler.store.sqlite.calls import SqliteCallStore
from scheduler.store.sqlite.jobs import SqliteJobStore
from scheduler.store.sqlite.leases import SqliteLeaseStore
from scheduler.store.sqlite.runs import SqliteRunStore
from scheduler.store.sqlite.triggers import SqliteTriggerStore
from scheduler.store.sqlite.writer import Writer
from scheduler.triggers.due import ScheduleState
from scheduler.triggers.model import Course, ScheduleWatch
from scheduler.triggers.store import TriggerStore
from scheduler.work import Fire, NewCall, NewCallback, NewJob, NewRun, Outcome, Payload, Request
from scheduler.workflows.model import RunEnd, RunStatus
from scheduler.workflows.moves import decide
from scheduler.workflows.store import RunStore
from scheduler.workflows.values import EMPTY_BODY

SIZE = 2**26
SILENT = 10.0


@dataclass(frozen=True)
class Process:
    """One process: its owner, and its own stores on the common database."""

    owner: LeaseOwner
    leases: LeaseStore
    calls: CallStore
    jobs: JobStore
    runs: RunStore
    triggers: TriggerStore
    callbacks: CallbackStore

    async def accept(self, *numbers: int) -> None:
        """Accept calls of f."""
        for number in numbers:
            await self.calls.accept(NewCall(str(number), "f", Request(), b"{}"), 0.0)

    async def claim(self, count: int = 9, now: float = 1.0) -> set[str]:
        """Lease calls of f. Return their ids."""
        claims = await self.calls.claim(self.owner, {"f": count}, now)
        assert all(claim.lease_owner == self.owner for claim in claims)
        return {claim.call.id for claim in claims}

    async def finish(self, *ids: str, now: float = 2.0) -> list[bool]:
        """End calls well. Return which ends were recorded."""
        result = Result(200, [], self.owner.id.encode())
        return list(
            await self.calls.finish(self.owner, [Ending(id, Status.SUCCEEDED, 0, result) for id in ids], now)
        )

    async def status(self, id: str) -> Status:
        """Return the status of a call."""
        return (await self.record(id)).status

    async def record(self, id: str) -> CallRecord:
        """Return a call."""
        record = await self.calls.show(id)
        assert record is not None
        return record


class SqliteBackEnd:
    """Processes on one SQLite file, each with a connection of its own."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "calls.db"
        self._processes: list[Process] = []

    def process(self, node: str, epoch: str = "1") -> Process:
        """Return a new process."""
        writer = Writer(self._file)
        calls = SqliteCallStore(writer, SIZE)
        made = Process(
            LeaseOwner(node, epoch),
            SqliteLeaseStore(writer),
            calls,
            SqliteJobStore(writer, calls.room),
            SqliteRunStore(writer, calls.room),
            SqliteTriggerStore(writer, calls.room),
            SqliteCallbackStore(writer),
        )
        self._processes.append(made)
        return made

    async def close(self) -> None:
        """Close the stores of all processes."""
        for process in self._processes:
            await process.calls.close()


@pytest.fixture(params=[SqliteBackEnd], ids=["sqlite"])
async def back_end(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqliteBackEnd]:
    made = request.param(tmp_path)
    yield made
    await made.close()


@pytest.fixture
def a(back_end: SqliteBackEnd) -> Process:
    return back_end.process("a")


@pytest.fixture
def b(back_end: SqliteBackEnd) -> Process:
    return back_end.process("b")


async def test_a_call_is_leased_to_one_owner_at_a_time(a: Process, b: Process) -> None:
    await a.accept(1, 2, 3)
    first, second = await a.claim(2), await b.claim()
    assert (len(first), len(second)) == (2, 1)
    assert not first & second
    assert await a.claim() == await b.claim() == set()


async def test_only_the_owner_of_a_lease_can_end_its_call(a: Process, b: Process) -> None:
    await a.accept(1, 2)
    assert await a.claim(1) == {"1"} and await b.claim() == {"2"}
    assert await b.finish("1", "2") == [False, True]
    assert await a.status("1") is Status.RUNNING
    assert await a.calls.result("1") is None
    assert await a.finish("1") == [True]
    result = await b.calls.result("1")
    assert result is not None and result.body == b"a:1"


async def test_only_the_owner_of_a_lease_can_hand_it_back(a: Process, b: Process) -> None:
    await a.accept(1)
    await a.claim()
    await b.calls.hand_back(b.owner, ["1"])
    assert await a.status("1") is Status.RUNNING
    await a.calls.hand_back(a.owner, ["1"])
    record = await a.record("1")
    assert (record.status, record.attempts) == (Status.QUEUED, 0)
    assert await b.claim() == {"1"}


async def test_the_leases_of_a_silent_owner_go_to_others_and_it_learns_of_that(
    a: Process, b: Process
) -> None:
    await a.accept(1, 2)
    await a.claim(1, now=1.0)
    assert await b.leases.requeue_abandoned(b.owner, 11.0, SILENT) == 0, "it is not silent for so long"
    assert await b.leases.requeue_abandoned(b.owner, 11.1, SILENT) == 1
    assert await b.claim(now=12.0) == {"1", "2"}
    assert await a.finish("1", now=13.0) == [False], "it was only slow"
    assert await b.status("1") is Status.RUNNING
    assert not await a.leases.heartbeat(a.owner, 13.0)
    with pytest.raises(LeaseLost):
        await a.claim(now=13.0)
    assert await b.finish("1", "2", now=14.0) == [True, True]
    assert (await a.record("1")).attempts == 2


async def test_a_lost_owner_goes_on_under_a_new_epoch(
    a: Process, b: Process, back_end: SqliteBackEnd
) -> None:
    await a.accept(1)
    await a.claim(now=1.0)
    await b.leases.requeue_abandoned(b.owner, 100.0, SILENT)
    again = back_end.process("a", "2")
    assert await again.claim(now=101.0) == {"1"}
    assert await a.finish("1") == [False], "the same node, and another epoch"
    assert await again.finish("1") == [True]


async def test_a_heartbeat_keeps_leases(a: Process, b: Process) -> None:
    await a.accept(1)
    await a.claim(now=1.0)
    for now in (5.0, 10.0, 15.0):
        assert await a.leases.heartbeat(a.owner, now)
        assert await b.leases.requeue_abandoned(b.owner, now + SILENT, SILENT) == 0
    assert await a.finish("1", now=16.0) == [True]


async def test_to_lease_more_is_a_sign_of_life(a: Process, b: Process) -> None:
    await a.accept(1, 2)
    await a.claim(1, now=1.0)
    await a.claim(1, now=20.0)
    assert await b.leases.requeue_abandoned(b.owner, 21.0, SILENT) == 0


async def test_an_earlier_epoch_of_a_node_is_gone_at_once_and_another_node_is_not(
    a: Process, b: Process, back_end: SqliteBackEnd
) -> None:
    await a.accept(1, 2)
    await a.claim(1, now=1.0)
    await b.claim(1, now=1.0)
    again = back_end.process("a", "2")
    assert await again.leases.requeue_abandoned(again.owner, 1.5, SILENT) == 1
    assert (await a.status("1"), await a.status("2")) == (Status.QUEUED, Status.RUNNING)
    assert (await a.record("1")).due == 1.5
    assert await b.finish("2") == [True]


async def test_an_owner_that_has_begun_nothing_takes_nothing_from_itself(a: Process) -> None:
    await a.accept(1)
    await a.claim()
    assert await a.leases.requeue_abandoned(a.owner, 1000.0, SILENT) == 0
    assert await a.finish("1") == [True]


async def test_bodies_that_were_coming_to_a_gone_owner_are_discarded_and_those_of_others_stay(
    a: Process, b: Process, back_end: SqliteBackEnd
) -> None:
    lost = await a.calls.begin_body(a.owner, "", 1000, 1.0)
    kept = await b.calls.begin_body(b.owner, "", 100, 1.0)
    await b.calls.add_piece(kept, b"half ")
    again = back_end.process("a", "2")
    await again.leases.requeue_abandoned(again.owner, 2.0, SILENT)
    assert (await a.calls.usage()).unfinished == 100
    with pytest.raises(Exception, match="discarded"):
        await a.calls.add_piece(lost, b"more")
    await b.calls.add_piece(kept, b"a loaf")
    call = NewCall("1", "f", Request(), b"", payload=Payload(kept, 11))
    await b.calls.accept(call, 2.0)
    assert b"".join([piece async for piece in a.calls.pieces(kept)]) == b"half a loaf"


async def test_an_answer_is_kept_only_of_a_call_that_is_leased(a: Process, b: Process) -> None:
    await a.accept(1)
    with pytest.raises(LeaseRefused):
        await a.calls.begin_payload(a.owner, "1", 10, 1.0)
    await a.claim()
    with pytest.raises(LeaseRefused):
        await b.calls.begin_payload(b.owner, "1", 10, 1.0)
    assert await a.calls.begin_payload(a.owner, "1", 10, 1.0) > 0


async def test_what_ran_for_a_cancelled_job_is_not_run_again(a: Process, back_end: SqliteBackEnd) -> None:
    definition = JobDefinition.model_validate({"function": "f", "count": 2})
    await a.jobs.begin(NewJob(id="j", definition=definition, parallel=2), 0.0)
    await a.jobs.advance(a.owner, "j", 0.0)
    (task,) = await a.claim(1)
    await a.jobs.cancel("j", 1.0)
    again = back_end.process("a", "2")
    assert await again.leases.requeue_abandoned(again.owner, 2.0, SILENT) == 0
    assert await again.status(task) is Status.CANCELLED
    advanced = await again.jobs.advance(again.owner, "j", 3.0)
    assert advanced is not None and advanced.ends


# -- short ids ------------------------------------------------------------------------------------------------


async def test_ids_are_found_by_their_first_digits_and_only_visible_ones(a: Process) -> None:
    definition = JobDefinition.model_validate({"function": "f", "count": 1})
    ids = ["abcc", "abcd0", "abcd1", "abcdf", "abce"]
    for id in ids:
        await a.calls.accept(NewCall(id, "f", Request(), b""), 0.0)
        await a.jobs.begin(NewJob(id=id, definition=definition, parallel=1), 0.0)
        await a.runs.begin(NewRun(id, "one", ONE, EMPTY_BODY), 0.0)
    for store in (a.calls, a.jobs, a.runs):
        assert await store.ids_with_prefix("abcd", lambda _: True) == ids[1:4]
        assert await store.ids_with_prefix("abcd", lambda record: record.id != "abcd1") == [ids[1], ids[3]]
        assert await store.ids_with_prefix("abcd2", lambda _: True) == []


# -- what is leased beside calls ------------------------------------------------------------------------------


ONE = WorkflowDefinition(steps={"s": StepDefinition(function="f")})
FAILED = RunEnd(RunStatus.FAILED, error="x")


async def test_a_run_is_looked_after_by_the_owner_of_its_lease(a: Process, b: Process) -> None:
    await a.runs.begin(NewRun("r", "one", ONE, EMPTY_BODY), 0.0)
    progress = await a.runs.progress(a.owner, "r", 1.0)
    assert progress is not None
    assert await b.runs.progress(b.owner, "r", 1.0) is None
    assert await b.runs.unfinished(b.owner) == []
    changes = await decide(a.runs, progress)
    assert not await b.runs.apply(b.owner, "r", changes, 0, 2.0)
    assert not await b.runs.give_up(b.owner, progress.record, FAILED, 2.0)
    assert await a.calls.counts() == {}, "nothing was written"
    assert await a.runs.apply(a.owner, "r", changes, 0, 2.0)
    assert await a.calls.counts() == {("f", Status.QUEUED): 1}
    assert await a.runs.unfinished(a.owner) == ["r"]


async def test_the_run_of_a_gone_owner_is_free_and_its_late_decision_is_refused(
    a: Process, b: Process
) -> None:
    await a.runs.begin(NewRun("r", "one", ONE, EMPTY_BODY), 0.0)
    progress = await a.runs.progress(a.owner, "r", 1.0)
    assert progress is not None
    changes = await decide(a.runs, progress)
    await b.leases.requeue_abandoned(b.owner, 100.0, SILENT)
    assert not await a.runs.apply(a.owner, "r", changes, 0, 100.0)
    with pytest.raises(LeaseLost):
        await a.runs.progress(a.owner, "r", 100.0)
    assert await b.runs.unfinished(b.owner) == ["r"]
    assert await b.runs.progress(b.owner, "r", 100.0) is not None
    assert await b.runs.apply(b.owner, "r", changes, 0, 100.0)


async def test_a_resumed_run_is_free_for_whoever_looks_at_it_next(a: Process, b: Process) -> None:
    await a.runs.begin(NewRun("r", "one", ONE, EMPTY_BODY), 0.0)
    progress = await a.runs.progress(a.owner, "r", 1.0)
    assert progress is not None
    assert await a.runs.give_up(a.owner, progress.record, FAILED, 2.0)
    await b.runs.resume("r")
    assert await b.runs.progress(b.owner, "r", 3.0) is not None
    assert await a.runs.progress(a.owner, "r", 3.0) is None


async def test_a_job_is_looked_after_by_the_owner_of_its_lease(a: Process, b: Process) -> None:
    definition = JobDefinition.model_validate({"function": "f", "count": 1})
    await a.jobs.begin(NewJob(id="j", definition=definition, parallel=1), 0.0)
    assert [job.id for job in await a.jobs.unfinished(a.owner, 1.0)] == ["j"]
    assert await b.jobs.unfinished(b.owner, 1.0) == []
    assert await b.jobs.advance(b.owner, "j", 1.0) is None
    assert await a.calls.counts() == {}
    advanced = await a.jobs.advance(a.owner, "j", 1.0)
    assert advanced is not None and advanced.queued == 1
    end = JobEnd(JobStatus.SUCCEEDED, {})
    assert not await b.jobs.end(b.owner, advanced.job, end, 2.0)
    await b.leases.requeue_abandoned(b.owner, 100.0, SILENT)
    assert not await a.jobs.end(a.owner, advanced.job, end, 100.0)
    assert [job.id for job in await b.jobs.unfinished(b.owner, 100.0)] == ["j"]
    assert await b.jobs.end(b.owner, advanced.job, end, 100.0)


async def test_a_schedule_has_one_watcher_and_fires_for_it_only(a: Process, b: Process) -> None:
    def fire(number: str) -> Fire:
        call = NewCall(number, "f", Request(), b"{}")
        return Fire("t", "schedule", Outcome.STARTED, "function", "f", number, work=call)

    course = Course("t", "* * * * * UTC", ScheduleState(60.0))
    assert await a.triggers.fire([fire("1")], 1.0, ScheduleWatch(a.owner, course)) == [Outcome.STARTED]
    later = replace(course, state=ScheduleState(120.0))
    with pytest.raises(LeaseRefused):
        await b.triggers.fire([fire("2")], 2.0, ScheduleWatch(b.owner, later))
    assert await b.calls.show("2") is None, "all or nothing"
    (kept,) = await b.triggers.all()
    assert kept.course == course
    await b.leases.requeue_abandoned(b.owner, 100.0, SILENT)
    assert await b.triggers.fire([fire("2")], 101.0, ScheduleWatch(b.owner, later)) == [Outcome.STARTED]
    with pytest.raises(LeaseLost):
        await a.triggers.fire([fire("3")], 102.0, ScheduleWatch(a.owner, later))
    assert await a.triggers.fire([fire("2")], 103.0) == [Outcome.KNOWN], "an event needs no lease"


async def test_a_callback_is_attempted_by_one_owner_at_a_time(a: Process, b: Process) -> None:
    await a.accept(1)
    callback = NewCallback("1", "m", "https://example.com/", "example.com", b"{}")
    await a.calls.begin([callback], 1.0)
    (delivery,), _ = await a.callbacks.due(a.owner, 1.0, 4)
    assert await a.callbacks.lease(a.owner, ["m"], 1.0) == {"m"}
    assert await b.callbacks.due(b.owner, 1.0, 4) == ([], None)
    assert await b.callbacks.lease(b.owner, ["m"], 1.0) == set()
    failed = CallbackAttempt(CallbackStatus.PENDING, delivery.attempts + 1, 5.0, "no")
    assert not await b.callbacks.record(b.owner, "m", failed)
    assert await a.callbacks.record(a.owner, "m", failed)
    assert await b.callbacks.lease(b.owner, ["m"], 5.0) == {"m"}, "a lease is for one attempt"
    await a.leases.requeue_abandoned(a.owner, 100.0, SILENT)
    delivered = CallbackAttempt(CallbackStatus.DELIVERED, 2, 0.0, None)
    assert not await b.callbacks.record(b.owner, "m", delivered)
    assert await a.callbacks.lease(a.owner, ["m"], 100.0) == {"m"}
    assert await a.callbacks.record(a.owner, "m", delivered)
