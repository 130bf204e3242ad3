"""Model of accepted calls: a call's status, its runs with their results, its record, and queries for records.

Objects that are made for each run are named tuples: a frozen dataclass takes four times as long to make.
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
    """Status of an accepted call."""

    QUEUED = "queued"
    """Waits for its first run, or for a retry."""
    HELD = "held"
    """Waits for its owner, a run or job, to queue it."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Failed, and its policy does not retry such a failure."""
    TIMED_OUT = "timed_out"
    """Ran past its timeout, and its policy does not retry that."""
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    """Did not succeed within `max_event_age`."""
    DEAD = "dead"
    """Failed at every attempt that its policy allows."""

    @property
    def ended(self) -> bool:
        """Return whether the call is over; only a new run on request continues it."""
        return self not in (Status.QUEUED, Status.HELD, Status.RUNNING)


@dataclass(frozen=True, slots=True)
class Idempotency:
    """An idempotency key: the same key of the same caller gives the same call. `digest` is that of the request."""

    caller: str
    key: str
    digest: bytes
    seconds: float
    """Time for which the key is remembered."""


class Claim(NamedTuple):
    """A call that is leased for one run."""

    call: NewCall
    attempt: int
    """1 for the first run; every lease counts, also one that a crash ended."""
    failures: int
    """Failed runs that count against the policy's attempts."""
    since: float
    """Wall time from which `max_event_age` counts."""
    lease_owner: LeaseOwner
    """Holder of the lease: what is done under it is done in its name."""


class Phases(NamedTuple):
    """Parts of a run's time in milliseconds: waiting for a slot, starting an instance, executing."""

    kind: str
    """Kind of its start: warm, prewarmed or cold."""
    queue: float
    start: float
    exec: float


class Result(NamedTuple):
    """Result of a run: the function's answer, or the problem that a direct call would have got."""

    status: int
    headers: HeaderList
    body: bytes
    problem: str | None = None
    """Slug of the problem, or None if the function answered."""
    detail: str = ""
    blame: str = "none"
    log: bytes = b""
    """Output of the call so far."""
    phases: Phases | None = None
    """None if no instance was leased for the run."""
    payload: Payload | None = None
    """Place of a body that is too large for `body`, else None."""

    @property
    def size(self) -> int:
        """Return the size of the body in bytes."""
        return len(self.body) if self.payload is None else self.payload.size


class Ending(NamedTuple):
    """The end of a run, to be recorded. `due` is the wall time of the next run if the call is QUEUED."""

    id: str
    status: Status
    failures: int
    result: Result | None = None
    due: float = 0.0
    error: str | None = None
    detail: str = ""
    blame: str = "none"
    follow: tuple[Work, ...] = ()
    """Work to begin in the same transaction."""


class CallRecord(NamedTuple):
    """A stored accepted call. Times are wall times in seconds, or None if not reached yet."""

    seq: int
    """Order of acceptance."""
    id: str
    function: str
    status: Status
    attempts: int
    accepted: float
    due: float
    started: float | None
    """Start of its latest run."""
    ended: float | None
    error: str | None
    detail: str
    blame: str
    owner: str = ""
    part: str = ""
    phases: Phases | None = None
    """Phases of its latest run that has ended."""


@dataclass(frozen=True, slots=True)
class Query:
    """Query for records, newest first. `before` is a `seq`; only older records are returned."""

    function: str | None = None
    statuses: tuple[Status, ...] = ()
    since: float | None = None
    before: int | None = None
    limit: int = 50
    owner: str | None = None
    visible: Callable[[str], bool] | None = None
    """Predicate on functions whose calls to show; runs on a reader's thread. None shows all."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list. `cursor` is the start of the next page, or None if this is the last.

    A page may be short or empty and still have a cursor: only a bounded number of rows is read for it.
    """

    records: Sequence[T]
    cursor: int | None


EMPTY_PAGE: Page[Any] = Page((), None)
"""The only page of an empty list. (`Page[X](...)` raises TypeError in Python 3.11, since the class has slots.)"""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Waiting calls of one function. `due` counts those that may run now, up to a bound; `next_due` is the wall time
    of the first that may not, or None if there is none."""

    due: int
    next_due: float | None
