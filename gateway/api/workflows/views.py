"""Answers about workflows and their runs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from pydantic import BaseModel, Field

from gateway.api.views import NEXT_PAGE, moment
from scheduler.calls.model import Status
from scheduler.definitions.workflows import WorkflowDefinition
from scheduler.workflows.model import RunRecord, RunStatus, StepRecord, StepStatus


class StepDefinitionView(BaseModel):
    """A step as it is declared."""

    name: str = Field(examples=["thumbnails"])
    function: str = Field(examples=["thumbnail"])
    needs: list[str] = Field(default=[], description="Steps that must have ended before")
    input: str | None = Field(default=None, description="JMESPath: what the function is called with")
    when: str | None = Field(default=None, description="JMESPath: the step is skipped if it is not true")
    map: str | None = Field(
        default=None, description="JMESPath: a list, for each item of which the function is called"
    )
    parallel: int | None = Field(default=None, description="With `map`: how many items at once")
    may_fail: bool = False


class WorkflowView(BaseModel):
    """A workflow as it is declared."""

    name: str = Field(examples=["gallery"])
    steps: list[StepDefinitionView]
    output: str | None = Field(
        default=None, description="JMESPath: what a run answers; null: what its last steps answered"
    )
    on_failure: str | None = Field(default=None, description="Function that is called when a run has failed")


class ItemCounts(BaseModel):
    """The calls of a step, counted by status."""

    waiting: int = Field(description="Not begun yet, or begun and queued")
    running: int
    succeeded: int
    failed: int = Field(description="Ended otherwise")


class StepView(BaseModel):
    """A step of a run."""

    name: str = Field(examples=["thumbnails"])
    function: str = Field(examples=["thumbnail"])
    status: StepStatus
    items: ItemCounts | None = Field(
        default=None, description="Of a step with `map` that was begun: its calls, one an item"
    )
    attempts: int = Field(default=0, description="Runs of the function for this step so far")
    started: datetime | None = None
    ended: datetime | None = None
    error: str | None = Field(
        default=None, description="What it failed of: as of an accepted call, or `expression-failed`"
    )
    detail: str = Field(default="", description="The same in words")
    invocation: str | None = Field(default=None, description="Id of its call, if it has one only")


class RunView(BaseModel):
    """A run of a workflow."""

    id: str = Field(examples=["6f1d2c9ab04e4f7c8a3e5d7b90c1f2e4"])
    workflow: str = Field(examples=["gallery"])
    status: RunStatus = Field(description="`running` changes by itself, the others do not")
    started: datetime
    ended: datetime | None = None
    error: str | None = Field(
        default=None,
        description="`step-failed`, `output-failed` if what it answers could not be made, or `not-decided` if the "
        "gateway has a fault",
    )
    detail: str = Field("", description="The same in words")
    output: str | None = Field(default=None, description="Where its answer is, when it has succeeded")


class RunWithStepsView(RunView):
    """A run of a workflow, with its steps in the order of their declaration."""

    steps: list[StepView]


class RunsView(BaseModel):
    """A page of a list."""

    runs: list[RunView]
    cursor: str | None = Field(default=None, description=NEXT_PAGE)


def workflow_view(name: str, definition: WorkflowDefinition) -> WorkflowView:
    """Return a workflow as the API shows it."""
    steps = [
        StepDefinitionView(
            name=step_name,
            function=step.function,
            needs=list(step.needs),
            input=step.input,
            when=step.when,
            map=step.map,
            parallel=step.parallel if step.map is not None else None,
            may_fail=step.may_fail,
        )
        for step_name, step in definition.steps.items()
    ]
    return WorkflowView(name=name, steps=steps, output=definition.output, on_failure=definition.on_failure)


def run_view(record: RunRecord) -> RunView:
    """Return a run as the API shows it."""
    return RunView(
        id=record.id,
        workflow=record.workflow,
        status=record.status,
        started=moment(record.started),
        ended=None if record.ended is None else moment(record.ended),
        error=record.error,
        detail=record.detail,
        output=f"/runs/{record.id}/output" if record.status is RunStatus.SUCCEEDED else None,
    )


def run_with_steps_view(
    record: RunRecord, definition: WorkflowDefinition, steps: Iterable[StepRecord]
) -> RunWithStepsView:
    """Return a run and all its steps as the API shows them, those that wait included."""
    known = {step.step: step for step in steps}
    shown = [step_view(name, step.function, known.get(name)) for name, step in definition.steps.items()]
    for view, step in zip(shown, definition.steps.values(), strict=True):
        if step.map is None:
            view.items = None
    return RunWithStepsView(**run_view(record).model_dump(), steps=shown)


def step_view(name: str, function: str, record: StepRecord | None) -> StepView:
    """Return a step as the API shows it; without a record it waits."""
    if record is None:
        return StepView(name=name, function=function, status=StepStatus.PENDING)
    begun, succeeded = sum(record.calls.values()), record.calls.get(Status.SUCCEEDED, 0)
    running = record.calls.get(Status.RUNNING, 0)
    waiting = record.calls.get(Status.QUEUED, 0) + record.calls.get(Status.HELD, 0)
    return StepView(
        name=name,
        function=function,
        status=record.status,
        items=ItemCounts(
            waiting=waiting + record.total - begun,
            running=running,
            succeeded=succeeded,
            failed=begun - succeeded - running - waiting,
        )
        if record.total or record.status is StepStatus.SUCCEEDED
        else None,
        attempts=record.attempts,
        started=moment(record.started),
        ended=None if record.ended is None else moment(record.ended),
        error=record.error,
        detail=record.detail,
        invocation=record.invocation,
    )
