"""What the workflows' part of the durable floor speaks of: a run, its steps, and how they stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from scheduler.calls.model import Status
from scheduler.definitions.workflows import WorkflowDefinition
from scheduler.work import Body, Work
from scheduler.workflows.values import NOTHING

KIND = "run"
"""Kind of the owner of its calls. The owner of a step's calls is `run:RUN/STEP`, and their part the item's number."""


def owner_of(run: str, step: str) -> str:
    """Return the owner of a step's calls."""
    return f"{KIND}:{run}/{step}"


class RunStatus(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self is not RunStatus.RUNNING


class StepStatus(StrEnum):
    """How a step of a run stands."""

    PENDING = "pending"
    """Waits for what it needs."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    """Its `when` was not true."""
    CANCELLED = "cancelled"
    """The run ended before it did."""

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self not in (StepStatus.PENDING, StepStatus.RUNNING)


@dataclass(frozen=True, slots=True)
class StepState:
    """How a step stands. The counts are of its calls: one, or one for each item of a `map`."""

    status: StepStatus = StepStatus.PENDING
    total: int = 0
    waiting: int = 0
    """Not begun, or to be begun again. Of a step as it is in the store not more than its `parallel` are counted."""
    open: int = 0
    """Begun and not ended."""
    failed: int = 0
    """Ended otherwise than succeeded. Of a step as it is in the store not more than 1 is counted."""


WAITS = StepState()


@dataclass(frozen=True, slots=True)
class Opened:
    """A step that begins: what each of its calls is sent."""

    step: str
    bodies: tuple[Body, ...]
    at_once: int
    """How many of them are begun together with this record."""


@dataclass(frozen=True, slots=True)
class Closed:
    """A step that has ended."""

    step: str
    status: StepStatus
    error: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run has ended."""

    status: RunStatus
    output: Body = NOTHING
    error: str | None = None
    detail: str = ""
    follow: tuple[Work, ...] = ()
    """What is begun together with this record."""


@dataclass(slots=True)
class Changes:
    """What one transaction writes of a run."""

    opened: list[Opened] = field(default_factory=list)
    more: list[tuple[str, int]] = field(default_factory=list)
    """So many further items of a step are begun."""
    closed: list[Closed] = field(default_factory=list)
    end: RunEnd | None = None

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.opened or self.more or self.closed or self.end)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """How a run stands. Times are wall times in seconds; None: not yet."""

    seq: int
    """Grows with each run."""
    id: str
    workflow: str
    status: RunStatus
    functions: tuple[str, ...]
    """All that it may call."""
    started: float
    ended: float | None
    error: str | None
    detail: str
    depth: int
    revision: int
    """Grows when it is cancelled or resumed."""


@dataclass(frozen=True, slots=True)
class RunProgress:
    """What a run's next moves follow from."""

    record: RunRecord
    definition: WorkflowDefinition
    steps: Mapping[str, StepState]
    """Those that were begun or have ended; the others wait."""
    size: int
    """Bytes that the run keeps, with its calls and their answers: more than any decision looks at."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """How a step of a run stands. `calls` counts its calls by status, `invocation` is the id of the only one."""

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


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs are wanted, newest first. `before` is the `seq` that they are older than."""

    workflow: str | None = None
    status: RunStatus | None = None
    before: int | None = None
    limit: int = 50
    visible: Callable[[Sequence[str]], bool] | None = None
    """Whether a run that may call these functions may be shown; a reader's thread asks it. None: all may."""
