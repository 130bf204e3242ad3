"""Who keeps runs of workflows going: it misses nothing, and forgets nothing that is not on disk."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pool.clock import VirtualClock
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor
from scheduler.calls.leases import LeaseOwner
from scheduler.calls.model import Ending, Idempotency, Query, Result, Status
from scheduler.calls.running.lease_keeper import LeaseKeeper, StoreSettings
from scheduler.calls.store import STORE_RETRY, KeyReused, StoreError, StoreFull
from scheduler.calls.targets import Start
from scheduler.definitions.workflows import StepDefinition, WorkflowDefinition
from scheduler.store.sqlite.calls import SqliteCallStore
from scheduler.store.sqlite.leases import SqliteLeaseStore
from scheduler.store.sqlite.rows import run_rows
from scheduler.store.sqlite.rows.run_end_rows import FORGOTTEN_AT_ONCE
from scheduler.store.sqlite.runs import SqliteRunStore
from scheduler.store.sqlite.writer import Writer
from scheduler.work import NewCall, NewRun, Request
from scheduler.workflows.model import Changes, RunProgress, RunRecord, RunStatus, StepStatus
from scheduler.workflows.moves import decide
from scheduler.workflows.runs import (
    LARGE_RUN_BYTES,
    MAX_RUNS_AT_ONCE,
    PRUNE_EVERY_SECONDS,
    EndedRun,
    WorkflowRuns,
)
from scheduler.workflows.store import RunStore
from scheduler.workflows.target import WorkflowTarget, call_of_failure
from scheduler.workflows.values import value_to_body
from tests.support.lease_owners import ME, MY_NEXT_EPOCH, SOMEBODY_ELSE, take_all_leases

RETENTION = 1000.0
TWO = WorkflowDefinition(
    steps={"a": StepDefinition(function="f"), "b": StepDefinition(function="g", needs=("a",))},
    on_failure="told",
)


@dataclass
class World:
    """A file, and the parts of a process that runs live in."""

    file: Path
    clock: VirtualClock = field(default_factory=lambda: VirtualClock(epoch=0.0))
    most_bytes: int = 2**30
    told: list[object] = field(default_factory=list)
    """What the worker was told, and which calls were to be interrupted."""
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    """Until it is set, no call that is interrupted has ended."""

    def __post_init__(self) -> None:
        self.let_go.set()
        self.writer = writer = Writer(self.file)
        self.calls = SqliteCallStore(writer, self.most_bytes)
        self.metrics = Metrics()
        self.supervisor = Supervisor(self.clock, self.metrics)
        self.leases = LeaseKeeper(SqliteLeaseStore(writer), self.clock, self.metrics, "node")
        self.runs = WorkflowRuns(
            SqliteRunStore(writer, self.calls.room),
            self.clock,
            self.metrics,
            lambda: {"two": TWO},
            lambda: self.told.append("new calls"),
            self.interrupt,
            StoreSettings(self.leases, RETENTION),
        )
        self.runs.followers.append(call_of_failure)

    async def interrupt(self, call: str) -> None:
        self.told.append(call)
        await self.let_go.wait()

    async def quiet(self) -> None:
        """Return when no run is being decided about."""
        while looks := self.runs.looks:
            await asyncio.wait(list(looks.values()), timeout=10)

    async def begin(self, id: str = "r", depth: int = 0) -> RunRecord:
        record = await self.runs.begin(NewRun(id, "two", TWO, value_to_body({"n": 1}), depth))
        await self.quiet()
        return record

    async def finish(
        self, status: Status = Status.SUCCEEDED, function: str | None = None, owner: LeaseOwner = ME
    ) -> NewCall:
        """One call is leased, ends, and is told of."""
        now = self.clock.wall()
        (claim,) = await self.calls.claim(
            owner, {function or next(iter(await self.calls.backlogs(now))): 1}, now
        )
        result = Result(200, [(b"content-type", b"application/json")], b"[1]")
        await self.calls.finish(
            owner, [Ending(claim.call.id, status, 0, result, error="crash")], self.clock.wall()
        )
        self.runs.call_ended(claim.call.owner.removeprefix("run:"))
        await self.quiet()
        return claim.call

    async def status(self, id: str = "r") -> RunStatus | None:
        record = await self.runs.store.show(id)
        return record.status if record else None

    async def stand(self, function: str = "f") -> dict[Status, int]:
        """How many of a function's calls stand how."""
        return Counter(call.status for call in (await self.calls.page(Query(function=function))).records)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "calls.db")
    yield made
    await made.runs.close()
    await made.calls.close()


async def test_a_run_goes_through_its_steps_and_ends(world: World) -> None:
    await world.begin()
    assert (await world.finish()).body == b'{"n":1}'
    assert (await world.finish()).body == b"[1]"
    assert await world.status() is RunStatus.SUCCEEDED
    assert await world.runs.store.output("r") == value_to_body([1])
    assert world.metrics.workflow_runs.labels("two", "succeeded").value == 1


async def test_what_is_told_at_the_moment_when_looking_has_ended_is_not_missed(world: World) -> None:
    record = await world.runs.begin(NewRun("r", "two", TWO, value_to_body(1)))
    looking = world.runs.looks[record.id]
    again: list[asyncio.Task[None]] = []

    def tell(_: object) -> None:
        world.runs.call_ended("r/a")
        again.append(world.runs.looks["r"])

    looking.add_done_callback(tell)
    await looking
    await asyncio.sleep(0)
    assert again and again[0] is not looking


async def test_what_fails_in_the_store_is_tried_again(world: World) -> None:
    await world.begin()
    (claim,) = await world.calls.claim(ME, {"f": 1}, 0.0)
    await world.calls.finish(ME, [Ending(claim.call.id, Status.SUCCEEDED, 0, Result(200, [], b"1"))], 0.0)
    database = sqlite3.connect(world.file)
    database.execute(
        "CREATE TRIGGER broken BEFORE INSERT ON run_steps BEGIN SELECT RAISE(ABORT, 'broken'); END"
    )
    world.runs.call_ended("r/a")
    while world.clock.next_due() is None:
        await asyncio.sleep(0.001)
    database.execute("DROP TRIGGER broken")
    database.close()
    await world.clock.advance(STORE_RETRY.longest)
    await world.quiet()
    assert [
        record.function for record in (await world.calls.page(Query(statuses=(Status.QUEUED,)))).records
    ] == ["g"]


async def test_the_next_process_goes_on_with_what_one_has_left(world: World) -> None:
    await world.begin()
    (claim,) = await world.calls.claim(ME, {"f": 1}, 0.0)
    await world.calls.finish(ME, [Ending(claim.call.id, Status.SUCCEEDED, 0, Result(200, [], b"1"))], 0.0)
    await world.runs.close()
    world.runs.look_at("r")
    assert not world.runs.looks, "nothing is begun any more"
    await world.calls.close()
    later = World(world.file)
    later.runs.start(later.supervisor)
    while not later.told:
        await asyncio.sleep(0.001)
    assert [
        record.function for record in (await later.calls.page(Query(statuses=(Status.QUEUED,)))).records
    ] == ["g"]
    await later.runs.close()
    await later.calls.close()


async def test_who_waits_is_told_of_every_end(world: World) -> None:
    await world.begin()
    waiting = asyncio.ensure_future(world.runs.wait("r", 60.0))
    await world.finish(Status.FAILED)
    await waiting
    await world.runs.wait("r", 60.0)  # it has ended: at once
    await world.begin("other")
    waiting = asyncio.ensure_future(world.runs.wait("other", 60.0))
    while not world.runs.waiting:
        await asyncio.sleep(0)
    await world.runs.cancel("other")
    await waiting
    assert not world.runs.waiting


async def test_a_run_that_is_cancelled_interrupts_what_runs_and_stays_so(world: World) -> None:
    await world.begin()
    (claim,) = await world.calls.claim(ME, {"f": 1}, 0.0)
    before = await world.runs.cancel("r")
    assert before is not None and before.status is RunStatus.RUNNING
    assert world.told[-1] == claim.call.id
    assert await world.calls.finish(ME, [Ending(claim.call.id, Status.SUCCEEDED, 0)], 1.0) == [False], (
        "it is cancelled already"
    )
    assert await SqliteLeaseStore(world.writer).requeue_abandoned(MY_NEXT_EPOCH, 1.0, 10.0) == 0, (
        "no process takes it up again"
    )
    world.runs.call_ended("r/a")
    await world.quiet()
    assert await world.status() is RunStatus.CANCELLED
    again = await world.runs.cancel("r")
    assert again is not None and again.status is RunStatus.CANCELLED
    assert await world.runs.cancel("none") is None


async def test_the_function_for_failures_is_called_once_with_what_happened(world: World) -> None:
    await world.begin()
    await world.finish(Status.FAILED)
    (call,) = await world.calls.claim(ME, {"told": 1}, 0.0)
    assert call.call.function == "told" and call.call.depth == 1
    assert (
        call.call.body == b'{"run_id": "r", "workflow": "two", "error": "step-failed", "detail": "a failed"}'
    )
    await world.begin("deep", depth=8)
    (claim,) = await world.calls.claim(ME, {"f": 1}, 0.0)
    await world.calls.finish(ME, [Ending(claim.call.id, Status.FAILED, 1)], 0.0)
    world.runs.call_ended("deep/a")
    await world.quiet()
    assert await world.status("deep") is RunStatus.FAILED
    assert (await world.calls.page(Query(statuses=(Status.QUEUED,)))).records == []


async def test_those_who_follow_are_asked_with_the_end(world: World) -> None:
    followed: list[EndedRun] = []

    def follow(ended: EndedRun) -> list[NewCall]:
        followed.append(ended)
        return [NewCall("c" * 32, "later", Request(), b"")]

    world.runs.followers = [follow]
    await world.begin()
    await world.finish()
    await world.finish()
    assert [(ended.run.id, ended.end.status) for ended in followed] == [("r", RunStatus.SUCCEEDED)]
    assert (await world.calls.show("c" * 32)) is not None


async def test_old_runs_are_forgotten_with_their_calls(world: World) -> None:
    await world.begin("old")
    await world.runs.cancel("old")
    await world.begin("goes-on")
    world.runs.start(world.supervisor)
    await world.quiet()
    assert await world.status("old") is RunStatus.CANCELLED
    await world.clock.advance(RETENTION)
    while await world.status("old") is not None:  # the store takes no time of this clock
        await world.clock.advance(PRUNE_EVERY_SECONDS)
    assert {record.owner for record in (await world.calls.page(Query())).records} == {"run:goes-on/a"}


async def test_a_full_store_forgets_what_has_ended_and_then_begins_nothing(tmp_path: Path) -> None:
    world = World(tmp_path / "calls.db", most_bytes=600_000)
    large = value_to_body("x" * 50_000)
    for number in range(40):  # twenty times as much as there is room for, if nothing were forgotten
        await world.runs.begin(NewRun(f"r{number}", "two", TWO, large))
        await world.quiet()
        await world.runs.cancel(f"r{number}")
    assert await world.status("r39") is RunStatus.CANCELLED and await world.status("r0") is None
    with pytest.raises(StoreFull):
        for number in range(40):
            await world.runs.begin(NewRun(f"s{number}", "two", TWO, large))
            await world.quiet()
    assert await world.status("s0") is RunStatus.RUNNING
    await world.runs.close()
    await world.calls.close()


async def test_others_start_workflows_by_name(world: World) -> None:
    target = WorkflowTarget(world.runs)
    assert list(target.names()) == ["two"] and list(target.functions("two")) == ["f", "g", "told"]
    start = Start("5" * 32, "two", b'{"n":2}', [(b"content-type", b"application/json")], depth=3)
    await world.calls.begin([target.work(start)], 0.0)
    await world.calls.begin([target.work(start)], 0.0)
    assert await target.running(start.id)
    target.begun([start.id])
    await world.quiet()
    call = await world.finish()
    assert (call.body, call.depth) == (b'{"n":2}', 3)
    await world.finish()
    assert not await target.running(start.id)
    assert not await target.running("none")
    with pytest.raises(ValueError, match="the input is not valid JSON"):
        target.work(Start("6" * 32, "two", b"{", [(b"content-type", b"application/json")]))


async def test_a_run_is_not_resumed_before_what_ran_is_interrupted(world: World) -> None:
    await world.begin()
    (claim,) = await world.calls.claim(ME, {"f": 1}, world.clock.wall())
    world.let_go.clear()
    cancelling = asyncio.ensure_future(world.runs.cancel("r"))
    while await world.status() is not RunStatus.CANCELLED:
        pass
    resuming = asyncio.ensure_future(world.runs.resume("r"))
    assert await world.status() is RunStatus.CANCELLED
    assert await world.status() is RunStatus.CANCELLED, "the first look could have been in the same commit"
    cancelled = Ending(claim.call.id, Status.CANCELLED, 0)
    assert await world.calls.finish(ME, [cancelled], world.clock.wall()) == [False]
    world.let_go.set()
    await asyncio.gather(cancelling, resuming)
    assert await world.status() is RunStatus.RUNNING
    await world.quiet()
    assert (await world.finish()).id == claim.call.id
    await world.finish()
    assert await world.status() is RunStatus.SUCCEEDED


async def test_an_expression_that_fails_of_half_a_character_fails_the_run(world: World) -> None:
    definition = WorkflowDefinition(steps={"a": StepDefinition(function="f", input="abs(input.x)")})
    await world.runs.begin(NewRun("r", "two", definition, value_to_body({"x": "\ud800"})))
    await world.quiet()
    record = await world.runs.store.show("r")
    assert record is not None and record.status is RunStatus.FAILED
    found = await world.runs.store.steps(record)
    assert found is not None and "\\ud800" in found[1][0].detail


async def test_a_run_of_which_nothing_can_be_read_fails_and_is_let_go(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.begin()
    await world.writer.do(lambda db: db.execute("UPDATE run_data SET definition = '[]'"))
    waiting = asyncio.ensure_future(world.runs.wait("r", 60.0))
    await world.finish()
    await waiting
    record = await world.runs.store.show("r")
    assert record is not None and (record.status, record.error) == (RunStatus.FAILED, "not-decided")
    assert "could not be decided" in caplog.text


async def undecidable(store: RunStore, progress: RunProgress) -> Changes:
    raise KeyError("of a decision")


async def test_a_run_that_is_given_up_is_told_of_like_any_other_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[EndedRun] = []
    followed: list[object] = []
    world.runs.followers.append(lambda ended: ends.append(ended) or ())  # type: ignore[func-returns-value]
    world.runs.on_followed.append(followed.extend)
    await world.begin()
    monkeypatch.setattr("scheduler.workflows.runs.decide", undecidable)
    await world.finish()
    (call,) = await world.calls.claim(ME, {"told": 1}, 0.0)
    assert json.loads(call.call.body)["error"] == "not-decided"
    assert [call.call.id] == [work.id for work in followed if isinstance(work, NewCall)]
    assert [(ended.run.id, ended.end.status) for ended in ends] == [("r", RunStatus.FAILED)]
    assert world.metrics.workflow_runs.value_of("two", "failed") == 1


async def test_a_run_for_which_there_is_no_room_is_given_up_once_and_without_what_does_not_fit(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await world.begin()

    def is_full(db: sqlite3.Connection, wanted: int = 0) -> bool:
        if not wanted:  # else it is asked for the answer of a call
            raise StoreFull("full")
        return False

    monkeypatch.setattr(world.calls.room, "make", is_full)
    await world.finish()
    record = await world.runs.store.show("r")
    assert record is not None and (record.status, record.error) == (RunStatus.FAILED, "not-kept")
    assert await world.stand("told") == {}
    assert world.metrics.workflow_runs.value_of("two", "failed") == 1
    assert "its follow-ups are not started" in caplog.text


async def test_a_run_that_cannot_be_given_up_now_is_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.begin()
    monkeypatch.setattr("scheduler.workflows.runs.decide", undecidable)

    async def broken(*_: object) -> bool:
        monkeypatch.undo()
        monkeypatch.setattr("scheduler.workflows.runs.decide", undecidable)
        raise StoreError("the disk is full")

    monkeypatch.setattr(world.runs.store, "give_up", broken)
    world.runs.look_at("r")
    await world.clock.settle()
    while world.clock.next_due() is None:
        await asyncio.sleep(0.001)
    assert await world.status() is RunStatus.RUNNING
    await world.clock.advance(STORE_RETRY.longest)
    await world.quiet()
    assert await world.status() is RunStatus.FAILED


async def test_a_process_that_was_taken_for_dead_takes_its_runs_up_again_under_a_new_epoch(
    world: World,
) -> None:
    await world.begin()
    before = world.leases.owner
    await take_all_leases(world.writer)
    await world.finish(function="f", owner=SOMEBODY_ELSE)
    assert world.leases.owner != before
    await world.finish(function="g", owner=SOMEBODY_ELSE)
    assert await world.status() is RunStatus.SUCCEEDED


async def test_a_run_of_another_process_is_left_to_it(world: World) -> None:
    await world.begin()
    await take_all_leases(world.writer)
    assert await world.runs.store.progress(SOMEBODY_ELSE, "r", 0.0) is not None
    await world.finish(function="f", owner=SOMEBODY_ELSE)
    assert await world.stand("g") == {}, "the step behind it is begun by the other process"
    assert await world.status() is RunStatus.RUNNING


async def test_a_follower_with_a_fault_keeps_no_run_from_its_end(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def faulty(ended: EndedRun) -> list[object]:
        raise KeyError("of a follower")

    world.runs.followers.append(faulty)
    await world.begin()
    await world.finish()
    await world.finish()
    assert await world.status() is RunStatus.SUCCEEDED
    assert "of a follower" in caplog.text


@pytest.mark.parametrize(
    ("size", "count", "at_once"), [(10_000, 20, MAX_RUNS_AT_ONCE), (LARGE_RUN_BYTES, 3, 1)]
)
async def test_large_runs_are_decided_about_one_by_one(
    world: World, monkeypatch: pytest.MonkeyPatch, size: int, count: int, at_once: int
) -> None:
    now, most = 0, 0

    async def watched(store: RunStore, progress: RunProgress) -> Changes:
        nonlocal now, most
        now += 1
        most = max(most, now)
        try:
            return await decide(store, progress)
        finally:
            now -= 1

    monkeypatch.setattr("scheduler.workflows.runs.decide", watched)
    large = value_to_body("x" * size)
    await asyncio.gather(*(world.runs.begin(NewRun(f"r{n}", "two", TWO, large)) for n in range(count)))
    await world.quiet()
    assert most == at_once
    assert await world.stand() == {Status.QUEUED: count}


async def test_a_full_store_takes_no_run(world: World) -> None:
    full = SqliteRunStore(world.writer, SqliteCallStore(world.writer, 0).room)
    run = NewRun("r", "two", TWO, value_to_body(1))
    with pytest.raises(StoreFull):
        await full.begin(run, world.clock.wall())
    await world.runs.begin(run)
    assert (await full.begin(run, world.clock.wall())).id == "r", "known already"


async def test_to_look_at_a_map_costs_the_same_however_many_of_it_have_ended(world: World) -> None:
    step = StepDefinition(function="f", map="input", parallel=2)
    run = NewRun("r", "two", WorkflowDefinition(steps={"a": step}), value_to_body(list(range(2000))))
    await world.runs.begin(run)
    await world.quiet()
    costs = []
    for ended in (10, 1500):
        await world.writer.do(lambda db, ended=ended: end_items(db, ended))  # type: ignore[misc]
        costs.append(await world.writer.do(steps_of_looking))
    assert costs[1] <= costs[0] + 10, "in tens of steps of the database's machine"


def end_items(db: sqlite3.Connection, first: int, run: str = "r") -> None:
    """Have the first items of the map ended, and two begun behind them."""
    owner = f"run:{run}/a"
    db.execute("DELETE FROM invocations")
    db.executemany(
        "INSERT INTO invocations (id, function, status, accepted, since, due, owner, part)"
        " VALUES (?, 'f', ?, 0, 0, 0, ?, ?)",
        [(f"{n}", "succeeded" if n < first else "queued", owner, str(n)) for n in range(first + 2)],
    )
    db.execute("DELETE FROM run_items WHERE number < ?", (first + 2,))


def steps_of_looking(db: sqlite3.Connection) -> int:
    """What it costs to read how the run stands."""
    db.execute("UPDATE runs SET lease_owner = ?", (ME.id,))
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    db.set_progress_handler(count, 10)
    progress = run_rows.progress(db, ME, "r", 0.0)
    db.set_progress_handler(None, 0)
    assert progress is not None
    assert progress.steps["a"].open == 2
    return steps


async def test_a_large_run_is_forgotten_in_pieces(world: World) -> None:
    step = StepDefinition(function="f", map="input", parallel=2)
    items = 2 * FORGOTTEN_AT_ONCE
    definition = WorkflowDefinition(steps={"a": step})
    for id in ("r", "s"):
        await world.runs.begin(NewRun(id, "two", definition, value_to_body(list(range(items)))))
        await world.quiet()
        await world.writer.do(lambda db, id=id: end_items(db, items - 2, id))  # type: ignore[misc]
        await world.runs.cancel(id)
        assert await world.runs.store.forget(id), "some of it"
        assert await world.status(id) is RunStatus.CANCELLED
        assert len((await world.calls.page(Query(limit=2 * items))).records) == items - FORGOTTEN_AT_ONCE
        if id == "r":
            await world.runs.forget(id)
        else:
            while await world.runs.store.prune(world.clock.wall() + 1.0):
                pass
        assert await world.status(id) is None
        assert not (await world.calls.page(Query())).records


async def test_a_key_gives_the_same_run_for_its_time_and_of_its_workflow_only(world: World) -> None:
    async def begun(id: str, digest: bytes = b"1", workflow: str = "two") -> str:
        run = NewRun(id, workflow, TWO, value_to_body(1))
        return (await world.runs.begin(run, Idempotency("me", "k", digest, 60.0))).id

    assert [await begun("a"), await begun("b")] == ["a", "a"]
    with pytest.raises(KeyReused):
        await begun("c", b"2")
    assert await begun("d", b"2", "other") == "d"
    await world.clock.advance(61.0)
    assert await begun("e", b"2") == "e"


async def test_a_resumed_step_begins_no_more_items_at_once_than_it_may(world: World) -> None:
    many = StepDefinition(function="f", map="input", parallel=2, may_fail=True)
    definition = WorkflowDefinition(steps={"a": many, "b": StepDefinition(function="g")})

    await world.runs.begin(NewRun("r", "two", definition, value_to_body(list(range(9)))))
    await world.quiet()
    failed = [(await world.finish(Status.FAILED, "f")).id for _ in range(5)]
    await world.finish(Status.FAILED, "g")
    failed += [(await world.finish(Status.DEAD, "f")).id for _ in range(2)]
    assert await world.status() is RunStatus.FAILED
    await world.runs.resume("r")
    await world.quiet()
    assert await world.stand() == {Status.QUEUED: 2, Status.HELD: 5}
    (held,) = [
        call for call in (await world.calls.page(Query(function="f"))).records if call.id == failed[-1]
    ]
    assert (await world.calls.cancel(held.id, world.clock.wall())) == held
    await world.runs.cancel("r")
    assert await world.stand() == {Status.CANCELLED: 7}
    await world.runs.resume("r")
    await world.quiet()
    again = []
    for _ in range(9):
        assert (await world.stand())[Status.QUEUED] <= 2
        again.append((await world.finish(function="f")).id)
    assert again[:7] == failed, "the same calls, in their order, and then those that were never begun"
    await world.finish(function="g")
    assert await world.status() is RunStatus.SUCCEEDED


async def resumed_with_three_held(world: World) -> str:
    """Have a run with four items of `f`, one at a time and none begun yet that has not failed, beside `g`; its
    definition."""
    many = StepDefinition(function="f", map="input", parallel=1, may_fail=True)
    definition = WorkflowDefinition(steps={"a": many, "b": StepDefinition(function="g")})
    await world.runs.begin(NewRun("r", "one", definition, value_to_body([1, 2, 3, 4])))
    await world.quiet()
    for _ in range(3):
        await world.finish(Status.FAILED, "f")
    await world.runs.cancel("r")
    await world.runs.resume("r")
    await world.quiet()
    assert await world.stand() == {Status.QUEUED: 1, Status.HELD: 3}
    return definition.model_dump_json(exclude_unset=True)


async def test_what_a_run_holds_has_ended_when_its_step_has_and_is_held_again_when_it_is_resumed(
    world: World,
) -> None:
    await resumed_with_three_held(world)
    await world.finish(Status.FAILED, "g")
    await world.clock.advance(5.0)
    await world.finish(function="f")
    assert await world.status() is RunStatus.FAILED
    assert await world.stand() == {Status.SUCCEEDED: 1, Status.CANCELLED: 3}
    cancelled = (await world.calls.page(Query(function="f", statuses=(Status.CANCELLED,)))).records
    assert {call.ended for call in cancelled} == {5.0}
    await world.runs.resume("r")
    await world.quiet()
    assert await world.stand() == {Status.SUCCEEDED: 1, Status.QUEUED: 1, Status.HELD: 2}
    for function in "gfff":
        await world.finish(function=function)
    assert await world.status() is RunStatus.SUCCEEDED
    assert await world.stand() == {Status.SUCCEEDED: 4}


async def test_what_a_run_holds_has_ended_when_nothing_can_be_decided_about_it(world: World) -> None:
    definition = await resumed_with_three_held(world)
    await world.writer.do(lambda db: db.execute("UPDATE run_data SET definition = '[]'"))
    await world.finish(function="f")
    assert await world.status() is RunStatus.FAILED
    assert await world.stand() == {Status.SUCCEEDED: 1, Status.CANCELLED: 3}
    await world.writer.do(lambda db: db.execute("UPDATE run_data SET definition = ?", (definition,)))
    record = await world.runs.store.show("r")
    found = record and await world.runs.store.steps(record)
    assert found and {step.step: step.status for step in found[1]} == dict.fromkeys(
        "ab", StepStatus.CANCELLED
    )
    await world.runs.resume("r")
    await world.quiet()
    assert await world.stand() == {Status.SUCCEEDED: 1, Status.QUEUED: 1, Status.HELD: 2}
    for function in "gfff":
        await world.finish(function=function)
    assert await world.status() is RunStatus.SUCCEEDED
