"""Jobs on virtual time over a real store: they go on through kills, faults and cancelling, and end once."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Collection, Iterable
from pathlib import Path

import pytest

from pool.workload import Keep
from scheduler.calls.destinations import MAX_CALL_DEPTH
from scheduler.calls.model import Idempotency, Result, Status
from scheduler.calls.plans import FunctionPlan
from scheduler.calls.store import STORE_RETRY, KeyReused, StoreBusy, StoreFull
from scheduler.definitions.file import FunctionDefinition
from scheduler.definitions.jobs import JobDefinition
from scheduler.jobs.decisions import QUEUED_AHEAD
from scheduler.jobs.jobs import PRUNE_EVERY_SECONDS, Jobs
from scheduler.jobs.model import Job, JobQuery, JobStatus, JobSummary, TaskState
from scheduler.store.sqlite.jobs import SqliteJobStore
from scheduler.store.sqlite.rows import job_rows
from scheduler.work import NewJob
from tests.support.lease_owners import ME, SOMEBODY_ELSE, take_all_leases
from tests.support.store_recount import counted, recounted
from tests.support.virtual_worker import FAILED, OK, RETENTION, World

CRASHED = Result(502, [], b"", "command-failed", "exit status 1", "function")


class Service:
    """What is in service for jobs, and whose containers were cleared away."""

    def __init__(self) -> None:
        self.functions: dict[str, Keep] = {}
        self.cleared: list[str] = []

    async def add(self, definition: FunctionDefinition, keep: Keep) -> None:
        assert definition.name not in self.functions
        await asyncio.sleep(0)
        self.functions[definition.name] = keep

    def remove(self, name: str) -> None:
        del self.functions[name]

    async def clear(self, function: str) -> None:
        self.cleared.append(function)

    async def clear_all_but(self, functions: Collection[str]) -> None:
        self.spared = set(functions)


class JobWorld(World):
    """A gateway process with jobs."""

    def put_together(self) -> None:
        super().put_together()
        self.service = Service()
        self.follow: list[JobSummary] = []
        self.jobs = Jobs(
            SqliteJobStore(self.writer, self.store.room),
            self.worker,
            self.service,
            self.clock,
            self.metrics,
            self.settings,
            self.service,
        )
        self.jobs.on_job_ended.append(self.ended)
        self.worker.on_ended["job"] = self.jobs.note

    def ended(self, summary: JobSummary) -> Iterable[object]:
        self.follow.append(summary)
        return ()

    async def start(self) -> None:
        await self.jobs.start(self.supervisor)
        await super().start()

    async def kill(self) -> None:
        await self.jobs.close()
        await super().kill()

    async def begin(self, parallel: int = 2, id: str = "j", **keys: object) -> Job:
        """Have a job begun: of the function f, unless it has an image."""
        definition = JobDefinition.model_validate({} if "image" in keys else {"function": "f"} | keys)
        return await self.jobs.begin(NewJob(id=id, definition=definition, parallel=parallel))

    async def job(self, id: str = "j") -> Job:
        found = await self.jobs.store.show(id)
        assert found is not None
        return found[0]

    async def counts(self, id: str = "j") -> dict[str, int]:
        """Its tasks by state; states without any left out."""
        found = await self.jobs.store.show(id)
        assert found is not None
        return {state.value: number for state, number in found[1].items() if number}

    async def attempts(self, id: str = "j") -> list[int]:
        return [
            task.attempts for task in (await self.jobs.store.tasks(await self.job(id), limit=10_000)).records
        ]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[JobWorld]:
    world = JobWorld(tmp_path / "calls.db")
    world.plans["f"] = FunctionPlan(slots=100)
    await world.start()
    yield world
    await world.jobs.close()
    await world.worker.close()
    assert await world.writer.do(counted) == await world.writer.do(recounted)
    await world.store.close()


async def test_tasks_run_a_few_at_a_time_and_each_knows_its_number(world: JobWorld) -> None:
    await world.begin(parallel=3, count=10)
    for second in range(4):
        await world.advance(0.5)
        assert (await world.counts())["running"] == (3 if second < 3 else 1)
        assert len(await world.calls_of("f")) == min(10, 3 * (second + 1)), "others have not been queued yet"
        await world.advance(0.5)
    assert (await world.job()).status is JobStatus.SUCCEEDED
    assert await world.counts() == {"succeeded": 10}
    told = [dict(run.claim.call.overrides.context) for run in world.runs]
    assert [(t["Job-Id"], t["Task-Index"], t["Task-Count"]) for t in told] == [
        ("j", str(i), "10") for i in range(10)
    ]
    assert [run.claim.call.body for run in world.runs] == [b"%d" % i for i in range(10)]
    assert world.most["f"] == 3
    assert world.metrics.jobs_ended.labels("succeeded").value == 1
    await world.books_agree()


async def test_inputs_are_json_for_a_function_and_text_is_text_for_an_image(world: JobWorld) -> None:
    given = ["zwölf", {"a": [1.5, None]}, "\ud800"]
    for id, what in (("of-function", {"function": "f"}), ("of-image", {"image": "busybox"})):
        await world.jobs.begin(
            NewJob(id=id, definition=JobDefinition.model_validate({**what, "inputs": given}), parallel=1)
        )
        await world.advance(5.0)
    bodies = [run.claim.call.body for run in world.runs]
    assert [json.loads(body) for body in bodies[:2]] == given[:2]
    assert bodies[3:5] == ["zwölf".encode(), b'{"a": [1.5, null]}']
    assert (b"content-type", b"application/json") in world.runs[0].claim.call.request.headers
    assert all(name != b"content-type" for name, _ in world.runs[3].claim.call.request.headers)


async def test_failing_tasks_have_their_retries_and_then_the_job_has_failed(world: JobWorld) -> None:
    world.answers["f"] = deque([CRASHED, FAILED, OK, CRASHED, CRASHED, CRASHED, OK])
    await world.begin(parallel=1, count=3, retries=2, backoff="10ms")
    await world.advance(20.0)
    assert await world.attempts() == [3, 3, 1]
    assert ((await world.job()).status, await world.counts()) == (
        JobStatus.FAILED,
        {"succeeded": 2, "failed": 1},
    )
    [summary] = world.follow
    assert summary.to_json()["tasks"] == {
        "queued": 0,
        "running": 0,
        "succeeded": 2,
        "failed": 1,
        "cancelled": 0,
    }
    assert summary.to_json()["status"] == "failed"


async def test_only_what_has_not_succeeded_is_run_again_within_the_window(world: JobWorld) -> None:
    world.answers["f"] = deque([CRASHED] * 30 + [OK] * 5)
    await world.begin(parallel=5, count=35)
    await world.advance(20.0)
    assert await world.counts() == {"succeeded": 5, "failed": 30}
    world.most.clear()
    await world.jobs.retry("j")
    await world.advance(0.5)
    assert await world.counts() == {"running": 5, "queued": 25, "succeeded": 5}
    assert (await world.job()).ended is None
    await world.advance(20.0)
    assert await world.counts() == {"succeeded": 35} and world.most["f"] == 5
    assert Counter(await world.attempts()) == {2: 30, 1: 5}
    assert [summary.status for summary in world.follow] == [JobStatus.FAILED, JobStatus.SUCCEEDED]
    before = await world.jobs.retry("j")
    assert before is not None and before.status is JobStatus.SUCCEEDED
    await world.advance(5.0)
    assert (await world.job()).status is JobStatus.SUCCEEDED
    assert await world.jobs.retry("absent") is None


@pytest.mark.parametrize("seed", range(5))
async def test_kills_at_any_moment_run_no_finished_task_again(world: JobWorld, seed: int) -> None:
    chance = random.Random(seed)
    world.seconds["f"] = 0.1
    await world.begin(parallel=4, count=40, retries=1)
    world.answers["f"] = deque(chance.choices([OK, FAILED], k=10))
    done: set[str] = set()
    while (await world.job()).status is JobStatus.RUNNING:
        await world.advance(chance.uniform(0, 0.3))
        tasks = (await world.jobs.store.tasks(await world.job(), limit=1000)).records
        ended = {task.id for task in tasks if task.status.ended}
        assert done <= ended
        done = ended
        runs = len(world.runs)
        await world.kill()
        await world.start()
        assert not {run.claim.call.id for run in world.runs[runs:]} & done
    await world.advance(1.0)
    assert sum((await world.counts()).values()) == 40
    assert len(world.follow) <= 1, "its end is told once"


async def test_a_jobs_own_function_is_there_before_its_tasks_run_and_goes_with_its_end(
    world: JobWorld,
) -> None:
    definition = JobDefinition(image="busybox", count=3, remove="succeeded")
    await world.jobs.begin(NewJob(id="own", definition=definition, parallel=1))
    assert world.service.functions == {"job:own": Keep.FAILED}
    await world.advance(0.5)
    assert len(await world.calls_of("job:own")) == 3 <= 1 + QUEUED_AHEAD, "what may not run yet can be queued"
    await world.kill()
    assert world.service.functions == {}
    await world.start()
    assert world.service.functions == {"job:own": Keep.FAILED}
    assert world.service.spared == {"job:own"}
    await world.advance(60.0)
    assert (await world.job("own")).status is JobStatus.SUCCEEDED
    assert world.service.functions == {}
    await world.jobs.forget("own")
    assert world.service.cleared == ["job:own"]
    assert await world.jobs.store.show("own") is None and await world.calls_of("job:own") == []


async def test_a_cancelled_job_interrupts_what_runs_and_never_begins_what_waits(world: JobWorld) -> None:
    await world.begin(parallel=3, count=10)
    await world.advance(1.5)
    assert await world.counts() == {"succeeded": 3, "running": 3, "queued": 4}
    before = await world.jobs.cancel("j")
    assert before is not None and before.status is JobStatus.RUNNING
    await world.settle()
    assert len(world.interrupted) == 3
    assert ((await world.job()).status, await world.counts()) == (
        JobStatus.CANCELLED,
        {"succeeded": 3, "cancelled": 7},
    )
    await world.advance(50.0)
    assert len(world.runs) == 6
    again = await world.jobs.cancel("j")
    assert again is not None and again.status is JobStatus.CANCELLED
    assert await world.jobs.cancel("absent") is None
    await world.jobs.retry("j")
    await world.advance(50.0)
    assert await world.counts() == {"succeeded": 10}
    await world.books_agree()


async def test_a_task_that_waits_for_its_next_run_is_cancelled_too(world: JobWorld) -> None:
    world.answers["f"] = deque([CRASHED] * 9)
    await world.begin(parallel=3, count=3, retries=5, backoff="1h", max_backoff="1h")
    await world.advance(1.5)
    assert await world.counts() == {"queued": 3}
    await world.jobs.cancel("j")
    await world.settle()
    assert (await world.job()).status is JobStatus.CANCELLED
    await world.advance(8000.0)
    assert len(world.runs) == 3


async def test_a_run_that_is_being_recorded_while_its_job_is_cancelled_is_the_last_one(
    world: JobWorld,
) -> None:
    world.answers["f"] = deque([CRASHED] * 9)
    await world.begin(parallel=1, count=1, retries=5)
    await world.settle()
    world.fault("UPDATE")
    await world.advance(1.5)  # it has failed, and that cannot be recorded
    await world.jobs.cancel("j")
    await world.advance(1.0)
    world.mend()
    await world.advance(20.0)
    assert (await world.job()).status is JobStatus.CANCELLED
    assert len(world.runs) - 1 == len(world.interrupted) <= 1, (
        "a run that was due meanwhile is interrupted at once"
    )


async def test_a_store_that_fails_for_a_while_delays_a_job_and_no_more(world: JobWorld) -> None:
    world.answers["f"] = deque([OK, OK, OK])
    await world.begin(parallel=1, count=3)
    await world.settle()
    world.fault("UPDATE")
    await world.advance(10 * STORE_RETRY.longest)
    assert len(world.runs) == 1
    world.mend()
    await world.advance(30.0)
    assert (await world.job()).status is JobStatus.SUCCEEDED and len(world.runs) == 3


async def test_the_end_is_told_in_one_commit_to_a_function(world: JobWorld) -> None:
    world.answers["f"] = deque([OK, CRASHED])
    await world.begin(id="good", count=1, on_success="told", on_failure="never")
    await world.advance(10.0)
    await world.begin(id="bad", count=1, on_success="never", on_failure="told")
    await world.begin(id="gone", count=1, on_success="never", on_failure="never")
    await world.jobs.cancel("gone")
    await world.advance(10.0)
    assert [
        json.loads(run.claim.call.body)["id"] for run in world.runs if run.claim.call.function == "told"
    ] == [
        "good",
        "bad",
    ]
    assert await world.calls_of("never") == []
    deep = JobDefinition(function="f", count=1, on_success="never")
    await world.jobs.begin(NewJob(id="deep", definition=deep, parallel=1, depth=MAX_CALL_DEPTH))
    await world.advance(10.0)
    assert (await world.job("deep")).status is JobStatus.SUCCEEDED
    assert await world.calls_of("never") == []


async def test_the_same_job_is_begun_once_and_by_whoever_begins_it(world: JobWorld) -> None:
    new = NewJob(id="x", definition=JobDefinition(function="f", count=2), parallel=2, each=b"event", depth=3)
    await world.store.begin([new, new], world.clock.wall())
    world.jobs.begun()
    await world.advance(5.0)
    await world.store.begin([new], world.clock.wall())
    world.jobs.begun()
    await world.advance(5.0)
    assert [(run.claim.call.body, run.claim.call.depth) for run in world.runs] == [(b"event", 3)] * 2


async def test_jobs_are_forgotten_with_their_tasks_when_they_are_old(world: JobWorld) -> None:
    await world.begin(id="old", count=3)
    await world.advance(RETENTION / 2)
    await world.begin(id="young", count=3)
    await world.advance(RETENTION / 2 + 2 * PRUNE_EVERY_SECONDS)
    assert await world.jobs.store.show("old") is None
    assert (await world.job("young")).status is JobStatus.SUCCEEDED
    assert len(await world.calls_of("f")) == 3
    assert world.service.cleared == [], "it kept no container"


async def test_what_runs_is_not_forgotten(world: JobWorld) -> None:
    await world.begin(count=1)
    await world.settle()
    await world.jobs.forget("j")
    await world.advance(5.0)
    assert (await world.job()).status is JobStatus.SUCCEEDED


async def test_a_full_store_takes_no_job(world: JobWorld) -> None:
    await world.begin(count=1)
    await world.advance(5.0)
    world.store.room.size = 0
    with pytest.raises(StoreFull):
        await world.begin(id="more", count=1)
    assert (await world.job()).status is JobStatus.SUCCEEDED
    await world.advance(PRUNE_EVERY_SECONDS)
    assert await world.jobs.store.show("j") is None, "what has ended makes room, the oldest first"
    assert not await world.calls_of("f")


async def test_tasks_are_listed_by_index_in_pages_and_by_state(world: JobWorld) -> None:
    world.answers["f"] = deque([OK, CRASHED] * 12 + [OK])
    await world.begin(parallel=1, count=25)
    await world.advance(100.0)
    job, store = await world.job(), world.jobs.store
    first = (await store.tasks(job, limit=20)).records
    rest = (await store.tasks(job, after=int(first[-1].part), limit=20)).records
    assert [int(task.part) for task in (*first, *rest)] == list(range(25))
    failed = (await store.tasks(job, TaskState.FAILED, limit=100)).records
    assert [int(task.part) for task in failed] == list(range(1, 25, 2))
    assert {task.status for task in failed} == {Status.DEAD}
    await world.begin(id="k", count=1)
    await world.advance(5.0)
    assert [job.id for job, _ in (await store.page(JobQuery())).records] == ["k", "j"]
    assert [job.id for job, _ in (await store.page(JobQuery(JobStatus.FAILED))).records] == ["j"]
    assert [job.id for job, _ in (await store.page(JobQuery(before=2))).records] == ["j"]


async def test_looking_after_a_job_with_many_tasks_uses_the_indices(world: JobWorld) -> None:
    await world.begin(count=1)
    await world.advance(5.0)
    for condition in ("AND status IN ('queued', 'running')", "AND part > ''"):
        which = f"owner = 'job:j' AND owner != '' {condition}"
        query = f"EXPLAIN QUERY PLAN SELECT count(*) FROM invocations WHERE {which}"
        plan = await world.writer.do(lambda db, query=query: db.execute(query).fetchall())
        assert "USING" in str(plan) and "INDEX" in str(plan) and "SCAN" not in str(plan), plan


async def test_what_ran_when_a_cancelled_job_was_killed_is_not_run_again(world: JobWorld) -> None:
    await world.begin(parallel=3, count=10)
    await world.advance(0.5)
    await world.jobs.store.cancel("j", world.clock.wall())
    await world.kill()
    await world.start()
    await world.advance(5.0)
    assert len(world.times()) == 3
    assert (await world.job()).status is JobStatus.CANCELLED
    assert await world.counts() == {"cancelled": 10}


async def test_a_job_that_is_not_understood_holds_back_no_other(
    world: JobWorld, caplog: pytest.LogCaptureFixture
) -> None:
    await world.begin(id="odd", count=1)
    for number in range(8):
        await world.begin(id=f"{number}", count=1)
    spoilt = "UPDATE jobs SET bytes = bytes + 2 - length(definition), definition = '{}' WHERE id = 'odd'"
    await world.writer.do(lambda db: db.execute(spoilt))
    await world.advance(2.0)
    assert {(await world.job(f"{number}")).status for number in range(8)} == {JobStatus.SUCCEEDED}
    assert "job odd cannot go on" in caplog.text
    world.answers["f"] = deque([FAILED])
    await world.begin(id="again", count=1)
    await world.advance(2.0)
    await world.jobs.retry("again")
    await world.advance(2.0)
    assert (await world.job("again")).status is JobStatus.SUCCEEDED
    assert "job odd cannot be read by this version" in caplog.text


async def test_a_follower_with_a_fault_keeps_no_job_from_its_end(
    world: JobWorld, caplog: pytest.LogCaptureFixture
) -> None:
    def faulty(summary: JobSummary) -> Iterable[object]:
        raise KeyError("of a follower")

    world.jobs.on_job_ended.append(faulty)
    await world.begin(count=1)
    await world.advance(2.0)
    assert (await world.job()).status is JobStatus.SUCCEEDED
    assert "of a follower" in caplog.text


async def test_to_look_after_a_job_costs_the_same_however_many_tasks_are_to_be_run_again(
    world: JobWorld,
) -> None:
    world.answers["f"] = deque([CRASHED] * 400)
    await world.begin(parallel=100, count=400)
    await world.advance(20.0)
    assert (await world.counts()) == {"failed": 400}
    await world.kill()  # nobody looks after it meanwhile
    await world.jobs.store.retry("j")
    few, many = [
        await world.writer.do(lambda db, left=left: steps_of_looking(db, left)) for left in (250, 400)
    ]
    assert few == many, "in hundreds of steps of the database's machine"


def steps_of_looking(db: sqlite3.Connection, left: int) -> int:
    """What it costs to look after the job with its window full, and so many tasks to be run again."""
    db.execute("SAVEPOINT here")
    db.execute("DELETE FROM job_again WHERE part >= ?", (f"{left:07d}",))
    job_rows.advance(db, ME, "j", 0.0)
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    db.set_progress_handler(count, 100)
    advanced = job_rows.advance(db, ME, "j", 0.0)
    db.set_progress_handler(None, 0)
    db.execute("ROLLBACK TO here")
    assert advanced is not None and (advanced.queued, advanced.ends) == (0, False)
    return steps


@pytest.mark.parametrize("busy", [False, True])
async def test_the_tasks_of_a_job_that_ends_are_counted_beside_the_writer_unless_no_reader_has_time(
    world: JobWorld, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    counting, where = job_rows.counts, list[str]()

    def noted(db: sqlite3.Connection, job: Job) -> dict[TaskState, int]:
        name = threading.current_thread().name
        if busy and name != "hearth-store":
            raise StoreBusy("others read")
        where.append(name)
        return counting(db, job)

    monkeypatch.setattr(job_rows, "counts", noted)
    await world.begin(count=7)
    await world.advance(20.0)
    assert [(summary.status, summary.counts[TaskState.SUCCEEDED]) for summary in world.follow] == [
        (JobStatus.SUCCEEDED, 7)
    ]
    assert len(where) == 1 and (where[0] == "hearth-store") is busy


async def test_a_key_gives_the_same_job_for_its_time_and_an_ended_one_is_not_served_again(
    world: JobWorld,
) -> None:
    def begun(id: str, digest: bytes = b"1", caller: str = "me", **keys: object) -> Awaitable[Job]:
        definition = JobDefinition.model_validate({"image": "i", "count": 1} | keys)
        key = Idempotency(caller, "k", digest, 60.0)
        return world.jobs.begin(NewJob(id=id, definition=definition, parallel=1), key)

    first, again = await asyncio.gather(begun("a"), begun("b"))
    assert first.id == again.id and len(world.service.functions) == 1
    with pytest.raises(KeyReused):
        await begun("c", b"2")
    assert (await begun("d", caller="you")).id == "d"
    await world.advance(10.0)
    assert not world.service.functions, "both have ended"
    assert (await begun("e")).status is JobStatus.SUCCEEDED
    assert not world.service.functions
    await world.jobs.forget(first.id)
    assert (await begun("f", b"2")).id == "f", "nobody is left whom the key could give"
    await world.advance(60.0)
    assert (await begun("g")).id == "g"
    await world.store.prune(0.0, world.clock.wall() + 61.0)
    kept = await world.writer.do(lambda db: db.execute("SELECT count(*) FROM start_keys").fetchone())
    assert kept == (0,)


@pytest.mark.parametrize("count", [9, 10, 11])
async def test_the_tasks_of_a_large_job_are_noted_and_forgotten_some_in_each_commit(
    world: JobWorld, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(job_rows, "NOTED_AT_ONCE", 5)
    world.answers["f"] = deque([CRASHED] * count)
    await world.begin(parallel=100, inputs=list(range(count)))
    await world.advance(5.0)
    assert await world.counts() == {"failed": count}
    before = world.writer.commits
    assert (await world.jobs.retry("j")).status is JobStatus.FAILED
    assert world.writer.commits - before >= 2
    await world.advance(5.0)
    assert await world.counts() == {"succeeded": count}
    before = world.writer.commits
    await world.jobs.forget("j")
    assert world.writer.commits - before >= 3
    assert await world.writer.do(lambda db: db.execute("SELECT count(*) FROM job_inputs").fetchone()) == (0,)


async def test_a_job_that_is_cancelled_before_its_tasks_are_run_again_keeps_how_they_ended(
    world: JobWorld,
) -> None:
    world.answers["f"] = deque([CRASHED] * 10)
    await world.begin(parallel=2, count=10)
    await world.advance(20.0)
    await world.jobs.store.retry("j")
    await world.jobs.cancel("j")
    await world.advance(5.0)
    assert ((await world.job()).status, await world.counts()) == (JobStatus.CANCELLED, {"failed": 10})
    await world.jobs.retry("j")
    await world.advance(20.0)
    assert await world.counts() == {"succeeded": 10}


async def test_a_process_that_was_taken_for_dead_takes_its_jobs_up_again_under_a_new_epoch(
    world: JobWorld,
) -> None:
    await world.begin(parallel=2, count=6)
    await world.advance(1.5)
    before = world.settings.leases.owner
    assert await take_all_leases(world.writer) == 2
    await world.advance(1.0)
    assert world.settings.leases.owner != before
    await world.advance(10.0)
    assert (await world.job()).status is JobStatus.SUCCEEDED
    assert sum(await world.attempts()) == 8, "what ran then was run again"
    assert len(world.follow) == 1


async def test_a_job_of_another_process_is_left_to_it(world: JobWorld) -> None:
    await world.begin(parallel=2, count=6)
    await world.advance(0.5)
    await take_all_leases(world.writer)
    assert [job.id for job in await world.jobs.store.unfinished(SOMEBODY_ELSE, 0.0)] == ["j"]
    world.jobs.begun()
    world.jobs.note("j")
    await world.advance(10.0)
    assert (await world.job()).begun == 2, "no further task is queued here"
