"""Ends of runs and of jobs are events."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pool.clock import VirtualClock
from pool.observe.metrics import Metrics
from scheduler.calls.destinations import MAX_CALL_DEPTH
from scheduler.calls.model import Claim, Ending, Result, Status
from scheduler.calls.targets import FunctionTarget
from scheduler.definitions.jobs import JobDefinition
from scheduler.definitions.triggers import TriggerDefinition
from scheduler.definitions.workflows import WorkflowDefinition
from scheduler.jobs.model import Job, JobStatus, JobSummary
from scheduler.store.sqlite.calls import SqliteCallStore
from scheduler.store.sqlite.triggers import SqliteTriggerStore
from scheduler.store.sqlite.writer import Writer
from scheduler.triggers.emitted import EmittedEvents
from scheduler.triggers.triggers import Triggers
from scheduler.work import Fire, NewCall, Request
from scheduler.workflows.model import RunEnd, RunRecord, RunStatus
from scheduler.workflows.runs import EndedRun
from tests.support.lease_owners import ME


@pytest.fixture
def emitted(tmp_path: Path) -> EmittedEvents:
    """Followers of a gateway where a failed end of anything calls `mail`."""
    writer = Writer(tmp_path / "calls.db")
    store = SqliteCallStore(writer, 2**20)
    targets = {"function": FunctionTarget(lambda: {"mail"}, lambda: None, store)}
    triggers = Triggers(SqliteTriggerStore(writer, store.room), targets, VirtualClock(), Metrics())
    filters: list[dict[str, Any]] = [{"suffix": {"type": ".ended"}}, {"exact": {"status": "failed"}}]
    keys = {"name": "tell", "events": {"filters": filters}, "function": "mail"}
    triggers.declare({"tell": TriggerDefinition.model_validate(keys)})
    return EmittedEvents(triggers)


def ended_run(status: RunStatus, depth: int = 0, revision: int = 0) -> EndedRun:
    run = RunRecord(1, "r1", "flow", RunStatus.RUNNING, ("f",), 1.0, None, None, "", depth, revision)
    definition = WorkflowDefinition.model_construct(name="flow")
    return EndedRun(run, definition, RunEnd(status, error="step-failed", detail="a: 500"))


def ended_job(status: JobStatus, depth: int = 0, name: str = "batch", ended: float = 5.0) -> JobSummary:
    definition = JobDefinition.model_validate({"function": "f", "count": 2})
    job = Job(
        seq=1,
        id="j1",
        name=name,
        definition=definition,
        status=status,
        count=2,
        parallel=1,
        begun=2,
        created=1.0,
        ended=ended,
        depth=depth,
    )
    return JobSummary(job, status, ended, {})


def call(fires: Iterable[Fire]) -> NewCall:
    """The call of the one fire."""
    (fire,) = fires
    assert isinstance(fire.work, NewCall)
    return fire.work


def test_the_end_of_a_run_fires_what_asks_for_it(emitted: EmittedEvents) -> None:
    started = call(emitted.after_run(ended_run(RunStatus.FAILED)))
    assert json.loads(started.body) == {
        "run_id": "r1",
        "workflow": "flow",
        "status": "failed",
        "error": "step-failed",
        "detail": "a: 500",
    }
    headers = dict(started.request.headers)
    assert headers[b"ce-type"] == b"hearth.run.ended" and headers[b"ce-source"] == b"/runs/r1"
    assert headers[b"ce-subject"] == b"flow" and headers[b"ce-status"] == b"failed"
    assert started.depth == 1 and not emitted.after_run(ended_run(RunStatus.SUCCEEDED))


def test_a_run_that_was_resumed_ends_once_more(emitted: EmittedEvents) -> None:
    first, same, other = (
        call(emitted.after_run(ended_run(RunStatus.FAILED, revision=n))).id for n in (0, 0, 1)
    )
    assert first == same != other


def test_the_end_of_a_job_fires_what_asks_for_it(emitted: EmittedEvents) -> None:
    started = call(emitted.after_job(ended_job(JobStatus.FAILED)))
    assert json.loads(started.body)["count"] == 2
    headers = dict(started.request.headers)
    assert headers[b"ce-type"] == b"hearth.job.ended" and headers[b"ce-source"] == b"/jobs/j1"
    assert headers[b"ce-subject"] == b"batch"
    assert b"ce-subject" not in dict(
        call(emitted.after_job(ended_job(JobStatus.FAILED, name=""))).request.headers
    )
    assert not emitted.after_job(ended_job(JobStatus.CANCELLED))


def test_a_job_that_is_tried_again_ends_once_more(emitted: EmittedEvents) -> None:
    first, other = (call(emitted.after_job(ended_job(JobStatus.FAILED, ended=at))).id for at in (5.0, 6.0))
    assert first != other


def test_what_is_too_deep_fires_nothing(emitted: EmittedEvents, caplog: pytest.LogCaptureFixture) -> None:
    assert (
        call(emitted.after_run(ended_run(RunStatus.FAILED, depth=MAX_CALL_DEPTH - 1))).depth == MAX_CALL_DEPTH
    )
    assert not emitted.after_run(ended_run(RunStatus.FAILED, depth=MAX_CALL_DEPTH))
    assert not emitted.after_job(ended_job(JobStatus.FAILED, depth=MAX_CALL_DEPTH))
    assert caplog.text.count("fires nothing") == 2


@pytest.mark.parametrize(("depth", "most"), [(0, 1000), (1, 30), (2, 1), (7, 1)])
def test_an_answer_of_many_events_starts_fewer_the_deeper_it_is(
    emitted: EmittedEvents, depth: int, most: int, caplog: pytest.LogCaptureFixture
) -> None:
    event = {"specversion": "1.0", "type": "x.ended", "source": "/f", "status": "failed"}
    body = json.dumps([{**event, "id": str(number)} for number in range(1000)]).encode()
    answered = Result(200, [(b"content-type", b"application/cloudevents-batch+json")], body)
    claim = Claim(NewCall("c1", "f", Request(), b"", depth=depth), 1, 0, 0.0, ME)
    fires = list(emitted.after_call(claim, Ending("c1", Status.SUCCEEDED, 0, answered)))
    assert len(fires) == most
    assert {call([fire]).depth for fire in fires} == {depth + 1}
    assert len(caplog.messages) == (most < 1000)
