"""Workflows as a start target, and the call of `on_failure` after a failed run."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable

from scheduler.calls.destinations import call_with_json, chain_too_deep
from scheduler.calls.targets import Start
from scheduler.definitions.workflows import WorkflowDefinition
from scheduler.work import Body, HeaderList, NewCall, NewRun
from scheduler.workflows.model import RunStatus
from scheduler.workflows.runs import EndedRun, WorkflowRuns
from scheduler.workflows.values import body_to_value


class WorkflowTarget:
    """The start target for workflows: begins a run by a workflow's name."""

    def __init__(self, runs: WorkflowRuns) -> None:
        self._runs = runs

    def names(self) -> Collection[str]:
        """Return the names of the declared workflows."""
        return self._runs.workflows().keys()

    def functions(self, name: str) -> Collection[str]:
        """Return all functions that a run of a workflow may call."""
        return self._runs.workflows()[name].functions()

    def work(self, start: Start) -> NewRun:
        """Return the run to begin. Raises ValueError, see `run_of`."""
        return run_of(start, self._runs.workflows()[start.name])

    def begun(self, ids: Collection[str]) -> None:
        """Begin the first steps of these runs, which are stored by now."""
        for id in ids:
            self._runs.look_at(id)

    async def running(self, id: str) -> bool:
        """Return whether the run exists and has not ended."""
        record = await self._runs.store.show(id)
        return record is not None and not record.status.ended


def run_of(start: Start, definition: WorkflowDefinition) -> NewRun:
    """Return the run that a start asks for. Raises ValueError for a body that expressions cannot read."""
    body = Body(start.body, content_type_of(start.headers))
    try:
        body_to_value(body)
    except ValueError as error:
        raise ValueError(f"the input {error}") from error
    return NewRun(start.id, start.name, definition, body, start.depth)


def content_type_of(headers: HeaderList) -> str:
    """Return the content type of a request, or "" if it has none."""
    return next((value.decode("latin-1") for name, value in headers if name == b"content-type"), "")


def call_of_failure(ended: EndedRun) -> Iterable[NewCall]:
    """Return the call of `on_failure` if a run has failed. A follower of runs."""
    run, end = ended.run, ended.end
    function = None if ended.definition is None else ended.definition.on_failure
    if function is None or end.status is not RunStatus.FAILED:
        return ()
    if chain_too_deep(f"run {run.id}", run.depth, f"{function} is not called"):
        return ()
    told = {"run_id": run.id, "workflow": run.workflow, "error": end.error, "detail": end.detail}
    return (call_with_json(function, told, secrets.token_hex(16), run.depth + 1),)
