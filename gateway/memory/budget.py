"""One budget for all bytes of requests and answers that the gateway holds, with a share of it for each caller.

A caller may hold a fixed multiple of the bytes that it leaves free. For a key this is a third, which is a quarter of
an idle budget. Each further caller gets a quarter of the rest, so that a flood never takes everything. This module
has only arithmetic and callbacks; requests use `Reservation`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from pool.clock import Clock, LoopClock

ANONYMOUS = ""
"""Caller of every request without a key."""
UNREAD = ":unread"
"""Caller for bytes on connections whose caller is not known yet: partial heads, and bodies that nobody has read."""
ANSWERS = ":answers"
"""Caller for answers that clients do not read."""
FREE_PARTS = 3
"""Parts of the budget that must stay free for one that a caller holds. The reverse on a gateway without keys."""
MIN_WAITERS = 4
"""Number of requests of one caller that may always wait for memory, even if the budget is tiny."""
BYTES_PER_WAITER = 2 * 2**20
"""Budget for which one more request of a caller may wait. Each waiting connection holds a piece of its body."""


@dataclass(slots=True, eq=False)
class RoomWaiter:
    """A request that waits for `size` bytes. `granted` is called once, when it gets them."""

    caller: str
    size: int
    granted: Callable[[], None]
    waiting: bool = field(default=True)


class BodyBudget:
    """Bytes in use of `total`, by caller: the id of a key, or one of the constants above.

    `closed` returns whether a key is needed. Without keys everybody is one caller, who may use most of the budget.
    """

    def __init__(
        self,
        total: int,
        closed: Callable[[], bool] = lambda: True,
        on_refused: Callable[[str], object] = lambda what: None,
        clock: Clock | None = None,
    ) -> None:
        self.clock: Clock = clock or LoopClock()
        """Times the waits for room."""
        self.total = total
        self.held = 0
        self.peak = 0
        """Most bytes in use since somebody last set this."""
        self.on_refused = on_refused
        """Called for each refusal with its purpose: `body`, `head`, `unread`, `answer`, `call` or `document`."""
        self.documents = asyncio.Lock()
        """Held by the request whose large document is being parsed. Parsing takes many times its size."""
        self._closed = closed
        self._by_caller: dict[str, int] = {}
        self._queues: dict[str, deque[RoomWaiter]] = {}

    def held_by(self, caller: str) -> int:
        """Return how many bytes a caller holds."""
        return self._by_caller.get(caller, 0)

    def most(self, caller: str) -> int:
        """Return how many bytes a caller can hold if nobody else holds any. It never gets more."""
        mine, others = self._parts(caller)
        return self.total * mine // (mine + others)

    def fits(self, caller: str, size: int) -> bool:
        """Return whether a caller may hold `size` more bytes now."""
        mine, others = self._parts(caller)
        free = self.total - self.held - size
        return (self.held_by(caller) + size) * others <= free * mine

    def take(self, caller: str, size: int, in_turn: bool = True) -> bool:
        """Take `size` more bytes and return True, or return False if there is no room or the caller's others wait.

        With `in_turn=False` the waiting requests do not matter.
        """
        if size <= 0:
            return True
        if (in_turn and caller in self._queues) or not self.fits(caller, size):
            return False
        self._add(caller, size)
        return True

    def give_back(self, caller: str, size: int) -> None:
        """Free `size` bytes of a caller, and grant them to waiting requests. Raises ValueError if it holds less."""
        left = self.held_by(caller) - size
        if size < 0 or left < 0:
            raise ValueError(f"{caller!r} holds {self.held_by(caller)} bytes and gives back {size}")
        self.held -= size
        if left:
            self._by_caller[caller] = left
        else:
            self._by_caller.pop(caller, None)
        self._serve()

    def may_wait(self, caller: str) -> bool:
        """Return whether one more request of a caller may wait. Each of them holds a piece of its body meanwhile."""
        most = max(MIN_WAITERS, self.most(caller) // BYTES_PER_WAITER)
        return len(self._queues.get(caller, ())) < most

    def wait(self, caller: str, size: int, granted: Callable[[], None]) -> RoomWaiter:
        """Queue for `size` bytes behind others of the caller. `granted` may be called before this returns.

        The request must call `leave` after a bounded time.
        """
        waiter = RoomWaiter(caller, size, granted)
        self._queues.setdefault(caller, deque()).append(waiter)
        self._serve()
        return waiter

    def leave(self, waiter: RoomWaiter) -> None:
        """Stop waiting. No effect if the bytes were granted."""
        if not waiter.waiting:
            return
        waiter.waiting = False
        queue = self._queues[waiter.caller]
        queue.remove(waiter)
        if not queue:
            del self._queues[waiter.caller]
        self._serve()

    def by_holder(self) -> dict[str, int]:
        """Return the bytes in use: `bodies` of all callers together, `unread`, and `answers`."""
        unread, answers = self.held_by(UNREAD), self.held_by(ANSWERS)
        return {"bodies": self.held - unread - answers, "unread": unread, "answers": answers}

    @property
    def waiting(self) -> int:
        """Return how many requests wait for memory."""
        return sum(map(len, self._queues.values()))

    def _parts(self, caller: str) -> tuple[int, int]:
        """Return the shares of a caller and of the free rest."""
        if caller == ANONYMOUS and not self._closed():
            return FREE_PARTS, 1
        return 1, FREE_PARTS

    def _add(self, caller: str, size: int) -> None:
        self.held += size
        self.peak = max(self.peak, self.held)
        self._by_caller[caller] = self.held_by(caller) + size

    def _serve(self) -> None:
        """Grant waiting requests that fit, in order for each caller. A large request delays only its own caller."""
        for caller in list(self._queues):
            queue = self._queues.get(caller)
            while queue and self.fits(caller, queue[0].size):
                waiter = queue.popleft()
                if not queue:
                    del self._queues[caller]
                waiter.waiting = False
                self._add(caller, waiter.size)
                waiter.granted()
