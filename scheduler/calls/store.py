"""What keeps accepted calls. An interface, so that a server database can stand behind it one day."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pool.backoff import Backoff
from scheduler.calls.leases import LeaseOwner
from scheduler.calls.model import Backlog, CallRecord, Claim, Ending, Idempotency, Page, Query, Result, Status
from scheduler.work import NewCall, Work

MOST_BYTES = 64 * 2**20
"""Bytes of bodies after which no more calls are leased at once, of one function: they are in memory."""
LARGEST_KEPT = 256 * 2**20
"""Bytes of a body that is kept, of a request or an answer, whatever its function allows."""


STORE_RETRY = Backoff(0.5, 2.0)
"""Pauses until the store is asked again after it has failed. The longest bounds how late its recovery is noticed."""


class StoreError(Exception):
    """The store could not do it: the disk is full, the file is damaged or newer than this program."""


class StoreFull(StoreError):
    """The store, or the caller's share of it, holds as much as it may of what has not ended."""


class StoreBusy(StoreError):
    """A read was refused, or ended for its length when it had `begun`. What is kept is sound."""

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
    """How many bytes a store keeps."""

    used: int
    """Everything, with what was announced and is still to come."""
    unfinished: int
    """What of it cannot be forgotten yet."""
    largest: int
    """The share of that of the caller who holds the most."""
    size: int
    """Bytes that it may keep."""


class CallStore(Protocol):
    """Accepted calls. Each verb is atomic and on disk when it returns. All raise `StoreError`."""

    @property
    def exists(self) -> bool:
        """Whether anything was ever kept here."""

    @property
    def fault(self) -> str | None:
        """Why nothing can be kept until somebody does something: the file was deleted, say. None: it can."""

    @property
    def refusals(self) -> Mapping[str, int]:
        """Reads that were refused so far, by reason: `busy` or `slow`."""

    async def accept(self, call: NewCall, now: float, idempotency: Idempotency | None = None) -> CallRecord:
        """Keep a call: it will be run. With a known idempotency key the call that it was first used for.

        Raises `KeyReused` and `StoreFull`.
        """

    async def begin(self, works: Sequence[Work], now: float, caller: str = "") -> None:
        """Begin all of these, or none. Their bytes count to `caller`. Raises `StoreFull`."""

    async def backlogs(self, now: float) -> Mapping[str, Backlog]:
        """Return what waits, by function, and how much of it is due at `now`."""

    async def claim(self, owner: LeaseOwner, wanted: Mapping[str, int], now: float) -> Sequence[Claim]:
        """Lease so many calls of each function that are due at `now` to an owner, the oldest first.

        Returns fewer where others have leased them meanwhile, or where their bodies are `MOST_BYTES` or more. Raises
        `LeaseLost` if the owner counts as gone.
        """

    async def hand_back(self, owner: LeaseOwner, ids: Sequence[str]) -> None:
        """Give leases of an owner back that nothing was done with: these attempts never were."""

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
        """Keep the next piece of it. `direct` is that of `shares.usable_bytes`. Raises `StoreFull`."""

    def discard(self, payload: int) -> None:
        """Have one go that nothing refers to, as soon as the store comes to it."""

    def pieces(self, payload: int) -> AsyncIterator[bytes]:
        """Return one piece by piece. Raises `StoreError`, also if it is forgotten meanwhile."""

    async def cancel(self, id: str, now: float) -> CallRecord | None:
        """End a call that waits; one that runs or has ended is left as it is. What it was is returned, with QUEUED
        or HELD for one that was ended now. None: there is none."""

    async def again(self, id: str, now: float) -> CallRecord | None:
        """Queue a call that has ended once more, as if it were new, unless it has an owner. The record as it was;
        None: there is none."""

    async def redrive(self, now: float, function: str | None = None) -> int:
        """`again` for every dead letter that there is now, some hundred in each commit; how many there were."""

    async def purge(self, now: float, function: str | None = None) -> int:
        """Forget every dead letter that ended by `now`, some hundred in each commit; how many there were."""

    async def prune(self, before: float, now: float) -> int:
        """Forget calls that ended before `before`, and, while the store is over its size, the oldest that have ended.
        Old idempotency keys too. How many calls there were; a bounded number at a time."""

    async def show(self, id: str) -> CallRecord | None:
        """One call; None: there is none."""

    async def result(self, id: str) -> Result | None:
        """What its latest run brought; None: there is none."""

    async def page(self, query: Query) -> Page[CallRecord]:
        """Return calls, newest first."""

    async def counts(self) -> Mapping[tuple[str, Status], int]:
        """How many calls wait or run, by function and status."""

    async def kept(self) -> StoreUse:
        """How full it is."""

    async def close(self) -> None:
        """Finish what was asked for, and let go of the file."""
