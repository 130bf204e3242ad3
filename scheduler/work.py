"""Work that is begun durably: the first record of a call, a run, a job, a fire and a callback, in one closed union.

The records are data only, so that every area may name every other's. A back end of the store matches the union
exhaustively, and mypy says where a new member is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from pool.workload import is_private
from scheduler.definitions.jobs import JobDefinition
from scheduler.definitions.language.call_overrides import NO_OVERRIDES, CallOverrides
from scheduler.definitions.workflows import WorkflowDefinition

HeaderList = list[tuple[bytes, bytes]]
RUNS, EVENTS, RESULTS = "/runs", "/events", "/results"
"""Ends of the names under which a caller has shares of its own: for runs and jobs, for what its events start, and
for answers while they come. A backlog of calls takes none of these."""


@dataclass(slots=True)
class Request:
    """A request without its body, such as most calls of a function share. It is not changed once a call has it."""

    method: str = "POST"
    sub_path: bytes = b""
    """The path below the function, as it was sent; and the query."""
    query: bytes = b""
    headers: HeaderList = field(default_factory=list)
    client: str = ""
    """Address of the sender."""
    prepared: Any = field(default=None, compare=False, repr=False)
    """A form of it that the runner of calls has made, to be used for the next call that has the same request."""


class Payload(NamedTuple):
    """A body that lies in pieces in the store."""

    id: int
    size: int
    """Bytes."""


class NewCall(NamedTuple):
    """A call to be accepted."""

    id: str
    function: str
    request: Request
    body: bytes
    depth: int = 0
    """Number of calls that led to this one by `on_success` and `on_failure`."""
    owner: str = ""
    """`kind:id` of the run or job that the call is a part of, or empty if it is part of nothing.

    An owner is told of the end, keeps the call as long as it is kept itself, and decides about another run of it.
    """
    part: str = ""
    """Which part it is: unique within its owner. The same part is accepted once."""
    overrides: CallOverrides = NO_OVERRIDES
    payload: Payload | None = None
    """Place of the body, if it is too large for `body`."""
    caller: str = ""
    """Id of the key whose bytes these are when it is accepted; empty for a caller without a key."""

    @property
    def subject(self) -> str:
        """Return how the log calls it."""
        return f"invocation {self.id} of {self.function}"

    @property
    def private(self) -> bool:
        """Return whether it is a call of a job's private function."""
        return is_private(self.function)


@dataclass(frozen=True, slots=True)
class Body:
    """A body and its content type, which is empty if there is none."""

    data: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be begun. The same id is begun once."""

    id: str
    workflow: str
    definition: WorkflowDefinition
    """As it is now: a later change of the file does not change the run."""
    input: Body
    depth: int = 0
    """Number of calls and runs that led to this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to be begun. The same id is begun once."""

    id: str
    name: str = ""
    """Its name in functions.yaml; empty if it has none."""
    definition: JobDefinition
    """With `count` or `inputs`."""
    parallel: int
    each: bytes | None = None
    """Input of every task, if the definition has no inputs; None: its index."""
    depth: int = 0
    """Number of starts that led to this one."""
    context: tuple[tuple[str, str], ...] = ()
    """Further context of its tasks, see `CallOverrides.context`."""


class Outcome(StrEnum):
    """Result of a fire."""

    STARTED = "started"
    KNOWN = "known"
    """The same start was made before: an event came again."""
    SKIPPED = "skipped"
    """The start before it had not ended."""
    MISSED = "missed"
    """It fell due while nobody looked, and is not made up for."""
    FAILED = "failed"
    """Nothing of that name can be started, or not with this input."""


@dataclass(frozen=True, slots=True)
class Fire:
    """One fire of a trigger."""

    trigger: str
    cause: str
    """schedule, event, webhook or hand."""
    outcome: Outcome
    kind: str
    target: str
    """Name of the started function, workflow or job."""
    id: str = ""
    """Id of the start."""
    detail: str = ""
    scheduled: float | None = None
    work: NewCall | NewRun | NewJob | None = None
    """Begun together with the record of the fire; None if it starts nothing."""
    sender: str | None = None
    """Id of the key that has sent its cause, empty without a key; None if the trigger fires by itself."""

    @property
    def caller(self) -> str:
        """Return the name of the caller whom the bytes of the start count to."""
        return f"trigger:{self.trigger}" if self.sender is None else self.sender + EVENTS


@dataclass(frozen=True, slots=True)
class NewCallback:
    """A callback to be begun, together with the end of the call that it tells of."""

    invocation: str
    message: str
    """Its id: the same in every attempt, so that a receiver knows a repetition."""
    url: str
    host: str
    body: bytes
    fault: str | None = None
    """Reason to give it up at once; None if it is tried."""


Startable = NewCall | NewRun | NewJob
"""Work that can be started by name, for example by a trigger."""
Work = NewCall | NewRun | NewJob | Fire | NewCallback
"""All that is begun durably. Each back end of the store has a `match` over it that ends in `assert_never`."""
