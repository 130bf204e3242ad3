"""What a run does next. A pure function of its definition and of how its steps stand: asked again, it says the same.
So it can be asked after every end of a call, and after a crash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.definitions.workflows import StepDefinition, WorkflowDefinition
from scheduler.workflows.model import WAITS, RunStatus, StepState, StepStatus

PASSABLE = (StepStatus.SUCCEEDED, StepStatus.SKIPPED)
"""A step that ended so holds back none that needs it."""


@dataclass(frozen=True, slots=True)
class Open:
    """Begin a step: evaluate what it is called with. If that fails, what is to be done else must be asked again."""

    step: str


@dataclass(frozen=True, slots=True)
class More:
    """Begin so many further items of a step."""

    step: str
    count: int


@dataclass(frozen=True, slots=True)
class Close:
    """Record that a step has ended."""

    step: str
    status: StepStatus


@dataclass(frozen=True, slots=True)
class End:
    """Record that the run has ended."""

    status: RunStatus


Move = Open | More | Close | End


def advance(definition: WorkflowDefinition, steps: Mapping[str, StepState]) -> list[Move]:
    """What is to be done now; nothing while only calls that run can change anything.

    A step begins when all that it needs has ended and none of it has failed. Once a step has failed no other begins
    and no further item does; what runs goes on to its end, so that a run which is resumed has its results. The run
    ends when nothing of it runs any more.
    """
    stopping = any(_fails_run(definition.steps[name], state) for name, state in steps.items())
    moves: list[Move] = []
    for name, step in definition.steps.items():
        state = steps.get(name, WAITS)
        if state.status is StepStatus.RUNNING:
            move = _of_running(name, step, state, stopping)
        elif state.status is StepStatus.PENDING and stopping:
            move = Close(name, StepStatus.CANCELLED)
        elif state.status is StepStatus.PENDING and all(
            _is_passable(definition.steps[needed], steps.get(needed, WAITS)) for needed in step.needs
        ):
            move = Open(name)
        else:
            move = None
        if move is not None:
            moves.append(move)
    if not moves and all(steps.get(name, WAITS).status.ended for name in definition.steps):
        moves.append(End(RunStatus.FAILED if stopping else RunStatus.SUCCEEDED))
    return moves


def _of_running(name: str, step: StepDefinition, state: StepState, stopping: bool) -> Move | None:
    if state.waiting and not stopping:
        room = min(step.parallel - state.open, state.waiting)
        return More(name, room) if room > 0 else None
    if state.open:
        return None
    if state.failed and not (step.may_fail and step.map is not None):
        return Close(name, StepStatus.FAILED)
    return Close(name, StepStatus.CANCELLED if state.waiting else StepStatus.SUCCEEDED)


def _fails_run(step: StepDefinition, state: StepState) -> bool:
    """Whether the run fails of this, also where the step has not ended yet."""
    if step.may_fail:
        return False
    return state.status is StepStatus.FAILED or (state.status is StepStatus.RUNNING and state.failed > 0)


def _is_passable(step: StepDefinition, state: StepState) -> bool:
    return state.status in PASSABLE or (step.may_fail and state.status is StepStatus.FAILED)
