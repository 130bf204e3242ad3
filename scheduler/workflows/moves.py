"""Turning the moves of a run into the changes to store: reads outputs, evaluates expressions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from scheduler.workflows.advance import BeginItems, CloseStep, EndRun, OpenStep, advance
from scheduler.workflows.evaluation import (
    MAX_STEP_BYTES,
    EndedStep,
    RunFacts,
    StepFault,
    evaluate_output,
    evaluate_step,
    needed_outputs,
    outputs_for_result,
)
from scheduler.workflows.model import (
    PENDING_STEP,
    Changes,
    ClosedStep,
    OpenedStep,
    RunEnd,
    RunProgress,
    RunStatus,
    StepState,
    StepStatus,
)
from scheduler.workflows.store import RunStore
from scheduler.workflows.values import EMPTY_BODY


async def decide(store: RunStore, progress: RunProgress) -> Changes:
    """Return the changes of a run that one transaction is to write. Raises `StoreError`."""
    return await _Moves(store, progress).decide()


class _Moves:
    """One run in the state that it will have once the changes so far are written."""

    def __init__(self, store: RunStore, progress: RunProgress) -> None:
        self._store = store
        self._id = progress.record.id
        self._definition = progress.definition
        self._states: dict[str, StepState] = dict(progress.steps)
        self._changes = Changes()

    async def decide(self) -> Changes:
        """Make all moves, until the run waits for calls in flight or has ended; return the changes."""
        while self._changes.end is None and (moves := advance(self._definition, self._states)):
            for move in moves:
                match move:
                    case OpenStep(step):
                        await self._open(step)
                        if self._states[step].status is StepStatus.FAILED:
                            break  # the other moves assumed that the run goes on
                    case BeginItems(step, count):
                        self._begin_more(step, count)
                    case CloseStep(step, status):
                        await self._close(step, status)
                    case EndRun(status):
                        self._changes.end = await self._end(status)
        return self._changes

    async def _open(self, name: str) -> None:
        step = self._definition.steps[name]
        try:
            facts = await self._facts(needed_outputs(step))
            # In a thread: it may parse and write some megabytes of JSON.
            bodies = await asyncio.to_thread(evaluate_step, step, facts)
        except StepFault as fault:
            self._record(ClosedStep(name, StepStatus.FAILED, "expression-failed", str(fault)))
            return
        if bodies is None:
            self._record(ClosedStep(name, StepStatus.SKIPPED))
            return
        at_once = min(len(bodies), step.parallel)
        self._changes.opened.append(OpenedStep(name, bodies, at_once))
        self._states[name] = StepState(StepStatus.RUNNING, len(bodies), len(bodies) - at_once, at_once)

    def _begin_more(self, name: str, count: int) -> None:
        self._changes.more.append((name, count))
        state = self._states[name]
        self._states[name] = StepState(
            state.status, state.total, state.waiting - count, state.open + count, state.failed
        )

    async def _close(self, name: str, status: StepStatus) -> None:
        closed = ClosedStep(name, status)
        if (
            status is StepStatus.FAILED
            and (failed := await self._store.first_failure(self._id, name)) is not None
        ):
            where = f"item {failed.number}: " if self._definition.steps[name].map is not None else ""
            closed = ClosedStep(name, status, failed.error, where + failed.detail)
        self._record(closed)

    def _record(self, closed: ClosedStep) -> None:
        self._changes.closed.append(closed)
        self._states[closed.step] = StepState(closed.status)

    async def _end(self, status: RunStatus) -> RunEnd:
        if status is RunStatus.SUCCEEDED:
            try:
                facts = await self._facts(outputs_for_result(self._definition))
                return RunEnd(status, await asyncio.to_thread(evaluate_output, self._definition, facts))
            except StepFault as fault:
                return RunEnd(RunStatus.FAILED, error="output-failed", detail=str(fault))
        failed = [name for name, state in self._states.items() if state.status is StepStatus.FAILED]
        blamed = [name for name in failed if not self._definition.steps[name].may_fail]
        return RunEnd(status, error="step-failed", detail=f"{', '.join(blamed)} failed")

    async def _facts(self, steps: Iterable[str]) -> RunFacts:
        """Return the values that expressions over these steps read. Raises `StepFault` if they are too large."""
        ended = {}
        for name in sorted(steps):
            status = self._states.get(name, PENDING_STEP).status
            answers = None
            if status is StepStatus.SUCCEEDED:
                answers = await self._store.answers(self._id, name, MAX_STEP_BYTES)
                if answers is None:
                    raise StepFault(
                        f"the answers of {name} have over {MAX_STEP_BYTES} bytes together; make them smaller or fewer"
                    )
            ended[name] = EndedStep(status, answers or (), self._definition.steps[name].map is not None)
        return RunFacts(await self._store.input(self._id) or EMPTY_BODY, ended)
