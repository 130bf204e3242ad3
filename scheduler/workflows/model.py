"""Model of workflow runs: a run, its steps, their states, and the changes that are stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from scheduler.calls.model import Status
from scheduler.definitions.workflows import WorkflowDefinition
from scheduler.work import Body, Work
from scheduler.workflows.values import EMPTY_BODY

KIND = "run"
"""Kind of the owner of its calls. The owner of a step's calls is `run:RUN/STEP`, and their part the item's number."""


def owner_of(run: str, step: str) -> str:
    """Return the owner of a step's calls."""
    return f"{KIND}:{run}/{step}"


class RunStatus(StrEnum):
    """Status of a run."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Return whether the run is over; only a resume continues it."""
        return self is not RunStatus.RUNNING


class StepStatus(StrEnum):
    """Status of a step of a run."""

    PENDING = "pending"
    """Waits for the steps that it needs."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    """Its `when` was not true."""
    CANCELLED = "cancelled"
    """The run ended before this step did."""

    @property
    def ended(self) -> bool:
        """Return whether the step is over; only a resume of the run continues it."""
        return self not in (StepStatus.PENDING, StepStatus.RUNNING)


@dataclass(frozen=True, slots=True)
class StepState:
    """State of a step, with counts of its calls: one call, or one for each item of a `map`."""

    status: StepStatus = StepStatus.PENDING
    total: int = 0
    waiting: int = 0
    """Calls not begun yet, or to be begun again. The store counts up to `parallel` of them."""
    open: int = 0
    """Calls begun and not ended."""
    failed: int = 0
    """Calls that ended without success. The store counts up to 1."""


PENDING_STEP = StepState()


@dataclass(frozen=True, slots=True)
class OpenedStep:
    """A step that begins, with the input of each of its calls."""

    step: str
    bodies: tuple[Body, ...]
    at_once: int
    """Calls that begin in the same transaction, the first ones."""


@dataclass(frozen=True, slots=True)
class ClosedStep:
    """A step that has ended."""

    step: str
    status: StepStatus
    error: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The end of a run: status, output, and error if it failed."""

    status: RunStatus
    output: Body = EMPTY_BODY
    error: str | None = None
    detail: str = ""
    follow: tuple[Work, ...] = ()
    """Work to begin in the same transaction."""


@dataclass(slots=True)
class Changes:
    """The changes of a run that one transaction writes."""

    opened: list[OpenedStep] = field(default_factory=list)
    more: list[tuple[str, int]] = field(default_factory=list)
    """Step and number of its further items that begin."""
    closed: list[ClosedStep] = field(default_factory=list)
    end: RunEnd | None = None

    def __bool__(self) -> bool:
        """Return whether there is anything to write."""
        return bool(self.opened or self.more or self.closed or self.end)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A stored run. Times are wall times in seconds, or None if not reached yet."""

    seq: int
    """Order of creation."""
    id: str
    workflow: str
    status: RunStatus
    functions: tuple[str, ...]
    """All functions that it may call."""
    started: float
    ended: float | None
    error: str | None
    detail: str
    depth: int
    revision: int
    """Counter that grows when the run is cancelled or resumed."""


@dataclass(frozen=True, slots=True)
class RunProgress:
    """The stored facts that the next moves of a run follow from."""

    record: RunRecord
    definition: WorkflowDefinition
    steps: Mapping[str, StepState]
    """Steps that have begun or ended; the others are pending."""
    size: int
    """Bytes that the run keeps in the store, with its calls and their answers. An upper bound for reading it."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A stored step of a run. `calls` counts its calls by status; `invocation` is the id if there is only one."""

    step: str
    status: StepStatus
    total: int
    started: float
    ended: float | None
    error: str | None
    detail: str
    calls: Mapping[Status, int]
    attempts: int
    invocation: str | None


class FailedCall(NamedTuple):
    """The first call of a step that has failed: its number in the step, and why."""

    number: int
    error: str
    detail: str


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Query for runs, newest first. `before` is a `seq`; only older runs are returned."""

    workflow: str | None = None
    status: RunStatus | None = None
    before: int | None = None
    limit: int = 50
    visible: Callable[[Sequence[str]], bool] | None = None
    """Predicate on the functions that a run may call; runs on a reader's thread. None shows all runs."""
