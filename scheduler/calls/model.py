"""What the durable floor speaks of: an accepted call, a run of it, what came of the run, and how it stands.

What is made for each run is a tuple with names: a frozen dataclass takes four times as long to make.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, NamedTuple, TypeVar

from scheduler.calls.leases import LeaseOwner
from scheduler.work import HeaderList, NewCall, Payload, Work

T = TypeVar("T")


class Status(StrEnum):
    """How an accepted call stands."""

    QUEUED = "queued"
    """Waits for its first run, or for its next."""
    HELD = "held"
    """Waits for what it belongs to, which has it queued when its turn comes."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Failed in a way that its policy does not retry."""
    TIMED_OUT = "timed_out"
    """Ran past its timeout, and its policy does not retry that."""
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    """Was not done within `max_event_age`."""
    DEAD = "dead"
    """Failed at every attempt that its policy allows."""

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self not in (Status.QUEUED, Status.HELD, Status.RUNNING)


@dataclass(frozen=True, slots=True)
class Idempotency:
    """That the same key of the same caller gives the same call. `digest` tells whether it is the same request."""

    caller: str
    key: str
    digest: bytes
    seconds: float
    """For how long."""


class Claim(NamedTuple):
    """A call that is leased for one run."""

    call: NewCall
    attempt: int
    """1 for the first run; every lease counts, also one that a crash has ended."""
    failures: int
    """Runs that failed and count against the policy's attempts."""
    since: float
    """Wall time from which `max_event_age` counts."""
    lease_owner: LeaseOwner
    """Holder of the lease: what is done under it is done in its name."""


class Phases(NamedTuple):
    """Where the time of a run went, in milliseconds: waiting for a slot, starting an instance, in the function."""

    kind: str
    """Of its start: warm, prewarmed or cold."""
    queue: float
    start: float
    exec: float


class Result(NamedTuple):
    """What a run brought: the function's own answer, or the problem that it would have been answered with."""

    status: int
    headers: HeaderList
    body: bytes
    problem: str | None = None
    """Slug of the problem; None: the function itself has answered."""
    detail: str = ""
    blame: str = "none"
    log: bytes = b""
    """What the call has printed so far."""
    phases: Phases | None = None
    """None: no instance was leased for it."""
    payload: Payload | None = None
    """Where the body is, if `body` does not hold it: it is large."""

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self.body) if self.payload is None else self.payload.size


class Ending(NamedTuple):
    """What is to be recorded of a run. `due` (wall time) is when it is to be run again, if it is QUEUED."""

    id: str
    status: Status
    failures: int
    result: Result | None = None
    due: float = 0.0
    error: str | None = None
    detail: str = ""
    blame: str = "none"
    follow: tuple[Work, ...] = ()
    """What is begun together with this record."""


class CallRecord(NamedTuple):
    """How an accepted call stands. Times are wall times in seconds; None: not yet."""

    seq: int
    """Grows with each accepted call."""
    id: str
    function: str
    status: Status
    attempts: int
    accepted: float
    due: float
    started: float | None
    """When its latest run began."""
    ended: float | None
    error: str | None
    detail: str
    blame: str
    owner: str = ""
    part: str = ""
    phases: Phases | None = None
    """Of its latest run that has ended."""


@dataclass(frozen=True, slots=True)
class Query:
    """Which records are wanted, newest first. `before` is the `seq` that they are older than."""

    function: str | None = None
    statuses: tuple[Status, ...] = ()
    since: float | None = None
    before: int | None = None
    limit: int = 50
    owner: str | None = None
    visible: Callable[[str], bool] | None = None
    """Whether calls of a function may be shown; a reader's thread asks it. None: all may."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of a list. `cursor` is where the next page begins, or None if this is the last.

    A page may be short or empty and still have a cursor: a bounded number of rows is looked at.
    """

    records: Sequence[T]
    cursor: int | None


EMPTY_PAGE: Page[Any] = Page((), None)
"""The only page of an empty list. (`Page[X](...)` raises TypeError in Python 3.11, since the class has slots.)"""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What one function has waiting. `due` is how many may run now (counted up to a bound), `next_due` when the first
    may."""

    due: int
    next_due: float
