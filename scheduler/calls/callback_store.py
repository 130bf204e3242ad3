"""The store of callbacks, whichever database is behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from scheduler.calls.callbacks import CallbackRecord, CallbackStatus, Delivery
from scheduler.calls.leases import LeaseOwner


class CallbackAttempt(NamedTuple):
    """An attempt to deliver a callback, with the wall time `due` of the next one."""

    status: CallbackStatus
    attempts: int
    """Attempts so far."""
    due: float
    fault: str | None
    """Reason of the failure, or None if it was delivered."""


class CallbackStore(Protocol):
    """Callbacks. Each verb is atomic and on disk when it returns. All raise `StoreError`."""

    @property
    def exists(self) -> bool:
        """Return whether anything was ever kept here."""

    async def due(self, owner: LeaseOwner, now: float, each: int) -> tuple[list[Delivery], float | None]:
        """Return due callbacks that are not leased to another, at most `each` for one host.

        Returns the time when the next one is due besides, or None if none waits.
        """

    async def lease(self, owner: LeaseOwner, messages: Sequence[str], now: float) -> set[str]:
        """Lease callbacks to an owner for one attempt each. Return the messages of those that it has then.

        Raises `LeaseLost`.
        """

    async def record(self, owner: LeaseOwner, message: str, attempt: CallbackAttempt) -> bool:
        """Record an attempt and end its lease. The body of a delivered callback is not kept.

        Returns False if it is not leased to this owner any more; then nothing is written.
        """

    async def of(self, invocation: str) -> CallbackRecord | None:
        """Return the callback of a call, or None if it has none yet."""
