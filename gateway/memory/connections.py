"""The part of the budget that connections hold: bytes that nobody has asked for, and answers that nobody reads.

Where there is no room, the connection that has held longest makes some: it is the slowest. A request or an answer
that moves on at once holds nothing here, and pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.memory.budget import ANSWERS, UNREAD, BodyBudget

Evict = Callable[[], None]
"""Lets go of what a connection holds, by refusing its request or ending it."""


class ConnectionShare:
    """The share of all connections in the budget for one purpose; `what` is how the metric calls a refusal."""

    def __init__(self, budget: BodyBudget, caller: str, what: str) -> None:
        self._budget = budget
        self._caller = caller
        self._what = what
        self._held: dict[object, tuple[int, Evict]] = {}
        """By connection, in the order in which they began to hold."""

    def held_by(self, connection: object) -> int:
        """Bytes that a connection holds."""
        return self._held[connection][0] if connection in self._held else 0

    def hold(self, connection: object, size: int, evict: Evict) -> bool:
        """Hold `size` bytes in all for a connection; those that have held longest are evicted for it. False if there
        is no room even so: then it holds nothing."""
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
        """Hold nothing for a connection any more."""
        if connection in self._held:
            size, _ = self._held.pop(connection)
            self._budget.give_back(self._caller, size)


class ConnectionMemory:
    """The shares of the connections of all clients."""

    def __init__(self, budget: BodyBudget) -> None:
        self.unread = ConnectionShare(budget, UNREAD, "unread")
        self.answers = ConnectionShare(budget, ANSWERS, "answer")
