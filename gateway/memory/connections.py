"""The part of the budget that connections use: bytes that nobody has read yet, and answers that clients do not read.

If there is no room, the connection that has held its bytes longest must free them: it is the slowest. A request or an
answer that moves on at once holds nothing here, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.memory.budget import ANSWERS, UNREAD, BodyBudget

Evict = Callable[[], None]
"""Frees the bytes of a connection, by refusing its request or closing it."""


class ConnectionShare:
    """Bytes of all connections for one purpose. `what` is the label of a refusal in the metric."""

    def __init__(self, budget: BodyBudget, caller: str, what: str) -> None:
        self._budget = budget
        self._caller = caller
        self._what = what
        self._held: dict[object, tuple[int, Evict]] = {}
        """Bytes by connection, oldest first."""

    def held_by(self, connection: object) -> int:
        """Return how many bytes a connection holds."""
        return self._held[connection][0] if connection in self._held else 0

    def hold(self, connection: object, size: int, evict: Evict) -> bool:
        """Hold `size` bytes in total for a connection, and return whether there was room.

        The oldest are evicted for it.

        If it returns False, the connection holds nothing.
        """
        before = self.held_by(connection)
        if size <= before:
            self._budget.give_back(self._caller, before - size)
        else:
            while not self._budget.take(self._caller, size - before):
                self._budget.on_refused(self._what)
                oldest = next((other for other in self._held if other is not connection), None)
                if oldest is None:
                    self.let_go(connection)
                    return False
                evict_oldest = self._held[oldest][1]
                self.let_go(oldest)
                evict_oldest()
        self._held[connection] = (size, evict)
        return True

    def let_go(self, connection: object) -> None:
        """Free all bytes of a connection."""
        if connection in self._held:
            size, _ = self._held.pop(connection)
            self._budget.give_back(self._caller, size)


class ConnectionMemory:
    """Bytes of all connections, one share for each purpose."""

    def __init__(self, budget: BodyBudget) -> None:
        self.unread = ConnectionShare(budget, UNREAD, "unread")
        self.answers = ConnectionShare(budget, ANSWERS, "answer")
