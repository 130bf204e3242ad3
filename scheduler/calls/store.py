"""The store of accepted calls, whichever database is behind it, and the faults of all stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pool.backoff import Backoff
from scheduler.calls.leases import LeaseOwner
from scheduler.calls.model import Backlog, CallRecord, Claim, Ending, Idempotency, Page, Query, Result, Status
from scheduler.work import NewCall, Work

MOST_BYTES = 64 * 2**20
"""Bytes of bodies after which no more calls of a function are leased at once: they are in memory."""
LARGEST_KEPT = 256 * 2**20
"""Bytes of the largest body that is kept, of a request or an answer, whatever its function allows."""
STORE_RETRY = Backoff(0.5, 2.0)
"""Pauses until the store is asked again after it has failed. The longest bounds how late its recovery is noticed."""


class StoreError(Exception):
    """The store has failed: for example, the disk is full, or the file is damaged or newer than this program."""


class StoreFull(StoreError):
    """The store, or the caller's share of it, is full of unfinished work."""


class StoreBusy(StoreError):
    """A read was refused, or ended because it took too long if it had `begun`. The data is sound."""

    def __init__(self, detail: str, begun: bool = False) -> None:
        super().__init__(detail)
        self.begun = begun


class LeaseLost(StoreError):
    """The leases of this owner were taken away, as it was silent for too long. Nothing was changed."""


class LeaseRefused(StoreError):
    """The work is not leased to this owner, and another has it or may get it. Nothing was changed."""


class KeyReused(Exception):
    """The idempotency key was used for another request."""


@dataclass(frozen=True, slots=True)
class StoreUse:
    """The use of a store, in bytes."""

    used: int
    """Everything, with the announced rest of bodies that are coming."""
    unfinished: int
    """The part of `used` that cannot be forgotten yet."""
    largest: int
    """The largest share of `unfinished` that one caller holds."""
    size: int
    """Most that it may keep."""


class CallStore(Protocol):
    """Accepted calls. Each verb is atomic and on disk when it returns. All raise `StoreError`."""

    @property
    def exists(self) -> bool:
        """Return whether anything was ever kept here."""

    @property
    def fault(self) -> str | None:
        """Return why nothing can be kept until somebody mends it, or None. For example, the file was deleted."""

    @property
    def refusals(self) -> Mapping[str, int]:
        """Return the number of reads refused so far, by reason: `busy` or `slow`."""

    async def accept(self, call: NewCall, now: float, idempotency: Idempotency | None = None) -> CallRecord:
        """Keep a call, to be run later. Return its record.

        With a known idempotency key, return the call that the key was first used for. Raises `KeyReused` and
        `StoreFull`.
        """

    async def begin(self, works: Sequence[Work], now: float, caller: str = "") -> None:
        """Begin all of these, or none. Their bytes count to `caller`. Raises `StoreFull`."""

    async def backlogs(self, now: float) -> Mapping[str, Backlog]:
        """Return the waiting calls by function: how many are due at `now`, and when the first is."""

    async def claim(self, owner: LeaseOwner, wanted: Mapping[str, int], now: float) -> Sequence[Claim]:
        """Lease so many calls of each function that are due at `now` to an owner, the oldest first.

        Returns fewer where others have leased them meanwhile, or where their bodies are `MOST_BYTES` or more. Raises
        `LeaseLost` if the owner counts as gone.
        """

    async def hand_back(self, owner: LeaseOwner, ids: Sequence[str]) -> None:
        """Give unused leases of an owner back. These attempts do not count."""

    async def finish(self, owner: LeaseOwner, endings: Sequence[Ending], now: float) -> Sequence[bool]:
        """Record the ends of runs that an owner has leased.

        Returns False for each call that is not leased to it any more; nothing is recorded of that.
        """

    async def begin_payload(self, owner: LeaseOwner, call: str, expected: int, now: float) -> int:
        """Begin to keep the answer of a call that is leased to `owner`, in pieces. Return the number of the payload.

        It will have `expected` bytes, as far as is known, for which there is room from now on. Raises `StoreFull`,
        `LeaseLost` and `LeaseRefused`.
        """

    async def begin_body(self, owner: LeaseOwner, caller: str, expected: int, now: float) -> int:
        """Begin to keep the body of a call that a caller wants to have accepted, and return its number.

        It is discarded when `owner` is gone before that. Raises `StoreFull` and `LeaseLost`.
        """

    async def add_piece(self, payload: int, data: bytes, direct: bool = False) -> None:
        """Add the next piece to a payload. `direct` is that of `shares.usable_bytes`. Raises `StoreFull`."""

    def discard(self, payload: int) -> None:
        """Discard a payload that no record refers to. Returns at once; the store does it soon."""

    def pieces(self, payload: int) -> AsyncIterator[bytes]:
        """Yield the pieces of a payload. Raises `StoreError`, also if it is forgotten meanwhile."""

    async def cancel(self, id: str, now: float) -> CallRecord | None:
        """End a call that waits, and leave one that runs or has ended.

        Returns the call as it was before (QUEUED or HELD if it was ended now), or None if there is none.
        """

    async def run_again(self, id: str, now: float) -> CallRecord | None:
        """Queue an ended call once more, as if it were new, unless it has an owner.

        Returns the call as it was before, or None if there is none. Raises `StoreFull`.
        """

    async def redrive(self, now: float, function: str | None = None) -> int:
        """Queue every dead letter once more, some hundred in each commit. Return how many there were."""

    async def purge(self, now: float, function: str | None = None) -> int:
        """Forget every dead letter that ended by `now`, some hundred in each commit. Return how many there were."""

    async def prune(self, before: float, now: float) -> int:
        """Forget some calls that ended before `before`, and expired idempotency keys. Return how many calls.

        While the store is over its size, forget the calls that ended first.
        """

    async def show(self, id: str) -> CallRecord | None:
        """Return one call, or None if there is none."""

    async def ids_with_prefix(self, prefix: str, visible: Callable[[CallRecord], bool]) -> Sequence[str]:
        """Return a few ids of visible calls that begin with these hexadecimal digits. `visible` runs on a reader's
        thread."""

    async def result(self, id: str) -> Result | None:
        """Return the result of a call's latest run, or None if there is none."""

    async def page(self, query: Query) -> Page[CallRecord]:
        """Return calls, newest first."""

    async def counts(self) -> Mapping[tuple[str, Status], int]:
        """Return how many calls wait or run, by function and status."""

    async def usage(self) -> StoreUse:
        """Return how full the store is."""

    async def close(self) -> None:
        """Finish all operations that were asked for, and let go of the database."""
