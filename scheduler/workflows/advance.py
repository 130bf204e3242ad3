"""Next moves of a run: a pure function of its definition and the states of its steps.

The same states give the same moves, so it can be asked after every end of a call, and again after a crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.definitions.workflows import StepDefinition, WorkflowDefinition
from scheduler.workflows.model import PENDING_STEP, RunStatus, StepState, StepStatus

PASSABLE = (StepStatus.SUCCEEDED, StepStatus.SKIPPED)
"""Statuses of a step that let the steps that need it begin."""


@dataclass(frozen=True, slots=True)
class OpenStep:
    """Move: begin a step by evaluating its inputs. If that fails, ask again for the moves."""

    step: str


@dataclass(frozen=True, slots=True)
class BeginItems:
    """Move: begin so many further items of a step."""

    step: str
    count: int


@dataclass(frozen=True, slots=True)
class CloseStep:
    """Move: record that a step has ended."""

    step: str
    status: StepStatus


@dataclass(frozen=True, slots=True)
class EndRun:
    """Move: record that the run has ended."""

    status: RunStatus


Move = OpenStep | BeginItems | CloseStep | EndRun


def advance(definition: WorkflowDefinition, steps: Mapping[str, StepState]) -> list[Move]:
    """Return the moves to make now; none while the run waits for calls in flight.

    A step begins when all the steps that it needs have ended and none of them has failed. After a failure no other
    step and no further item begins. Calls in flight go on to their end, so that a resumed run has their results.
    The run ends when nothing of it is in flight.
    """
    stopping = any(_fails_run(definition.steps[name], state) for name, state in steps.items())
    moves: list[Move] = []
    for name, step in definition.steps.items():
        state = steps.get(name, PENDING_STEP)
        if state.status is StepStatus.RUNNING:
            move = _of_running(name, step, state, stopping)
        elif state.status is StepStatus.PENDING and stopping:
            move = CloseStep(name, StepStatus.CANCELLED)
        elif state.status is StepStatus.PENDING and all(
            _is_passable(definition.steps[needed], steps.get(needed, PENDING_STEP)) for needed in step.needs
        ):
            move = OpenStep(name)
        else:
            move = None
        if move is not None:
            moves.append(move)
    if not moves and all(steps.get(name, PENDING_STEP).status.ended for name in definition.steps):
        moves.append(EndRun(RunStatus.FAILED if stopping else RunStatus.SUCCEEDED))
    return moves


def _of_running(name: str, step: StepDefinition, state: StepState, stopping: bool) -> Move | None:
    if state.waiting and not stopping:
        room = min(step.parallel - state.open, state.waiting)
        return BeginItems(name, room) if room > 0 else None
    if state.open:
        return None
    if state.failed and not (step.may_fail and step.map is not None):
        return CloseStep(name, StepStatus.FAILED)
    return CloseStep(name, StepStatus.CANCELLED if state.waiting else StepStatus.SUCCEEDED)


def _fails_run(step: StepDefinition, state: StepState) -> bool:
    """Return whether this step fails the run, even before the step has ended."""
    if step.may_fail:
        return False
    return state.status is StepStatus.FAILED or (state.status is StepStatus.RUNNING and state.failed > 0)


def _is_passable(step: StepDefinition, state: StepState) -> bool:
    return state.status in PASSABLE or (step.may_fail and state.status is StepStatus.FAILED)
