"""The store of callbacks, whichever database is behind it."""

from __future__ import annotations

from typing import Protocol

from scheduler.calls.callbacks import CallbackRecord, CallbackStatus, Delivery


class CallbackStore(Protocol):
    """Callbacks. Each verb is atomic and on disk when it returns. All raise `StoreError`."""

    @property
    def exists(self) -> bool:
        """Return whether anything was ever kept here."""

    async def due(self, now: float, each: int) -> tuple[list[Delivery], float | None]:
        """Return callbacks that are due, at most `each` for one host, and the time when the next one is due, or None
        if none waits."""

    async def record(
        self, message: str, status: CallbackStatus, attempts: int, due: float, fault: str | None
    ) -> None:
        """Record the result of an attempt. The body of a delivered callback is not kept."""

    async def of(self, invocation: str) -> CallbackRecord | None:
        """Return the callback of a call, or None if it has none yet."""
