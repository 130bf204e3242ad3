"""One budget for all bytes of requests and answers that the gateway holds, with a share of it for each caller.

A caller may hold a fixed multiple of what it leaves free to all others: a key at most a third of that, which is a
quarter of an idle budget. Each further caller finds a quarter of the rest, so that a flood never takes everything.
Arithmetic and callbacks only; `Reservation` is what requests use.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

STRANGERS = ""
"""The caller of every request without a key."""
UNREAD = ":unread"
"""The caller for what connections hold before it is known who asks: half heads, and bodies that nobody has read."""
ANSWERS = ":answers"
"""The caller for answers that clients do not read."""
OF_THE_FREE = 3
"""A caller holds at most one part where this many stay free. On a gateway without keys it is the other way round."""
FEWEST_WAITERS = 4
"""Requests of one caller that may wait for room, however small the budget is."""
BYTES_OF_A_WAITER = 2 * 2**20
"""Budget that lets one more request of a caller wait: each waiting connection holds a piece of its body."""


@dataclass(slots=True, eq=False)
class RoomWaiter:
    """A request that waits for `size` bytes. `granted` is called once, when they are its caller's."""

    caller: str
    size: int
    granted: Callable[[], None]
    waiting: bool = field(default=True)


class BodyBudget:
    """The bytes that are held of `total`, by caller: the id of a key, or one of the constants above.

    `closed` says whether a key is needed at all: without keys everybody is one caller and has most of it.
    """

    def __init__(
        self,
        total: int,
        closed: Callable[[], bool] = lambda: True,
        on_refused: Callable[[str], object] = lambda what: None,
    ) -> None:
        self.total = total
        self.held = 0
        self.peak = 0
        """The most bytes that were held since somebody set this."""
        self.on_refused = on_refused
        """Called for what had no room: `body`, `head`, `unread`, `answer`, `call` or
        `document`."""
        self.documents = asyncio.Lock()
        """Held by the one request whose large document is being parsed: that takes many times its size."""
        self._closed = closed
        self._by_caller: dict[str, int] = {}
        self._queues: dict[str, deque[RoomWaiter]] = {}

    def held_by(self, caller: str) -> int:
        """Bytes that a caller holds."""
        return self._by_caller.get(caller, 0)

    def most(self, caller: str) -> int:
        """Bytes that a caller can hold if nobody else holds any: more than this is never granted."""
        mine, others = self._parts(caller)
        return self.total * mine // (mine + others)

    def fits(self, caller: str, size: int) -> bool:
        """Return whether a caller may hold `size` bytes more now."""
        mine, others = self._parts(caller)
        free = self.total - self.held - size
        return (self.held_by(caller) + size) * others <= free * mine

    def take(self, caller: str, size: int, in_turn: bool = True) -> bool:
        """Hold `size` bytes more; False, and nothing is held, if there is no room or others of the caller wait.
        `in_turn=False`: those who wait are no hindrance."""
        if size <= 0:
            return True
        if (in_turn and caller in self._queues) or not self.fits(caller, size):
            return False
        self._add(caller, size)
        return True

    def give_back(self, caller: str, size: int) -> None:
        """Hold `size` bytes less, and let those have them who wait. Raises ValueError if the caller holds less."""
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
        """Return whether one more request of a caller may wait: each of them holds a piece of its body meanwhile."""
        most = max(FEWEST_WAITERS, self.most(caller) // BYTES_OF_A_WAITER)
        return len(self._queues.get(caller, ())) < most

    def wait(self, caller: str, size: int, granted: Callable[[], None]) -> RoomWaiter:
        """Queue for `size` bytes behind others of the caller. `granted` may be called before this returns. Whoever
        waits must leave after a bounded time."""
        waiter = RoomWaiter(caller, size, granted)
        self._queues.setdefault(caller, deque()).append(waiter)
        self._serve()
        return waiter

    def leave(self, waiter: RoomWaiter) -> None:
        """Wait no more. Without effect if the bytes were granted."""
        if not waiter.waiting:
            return
        waiter.waiting = False
        queue = self._queues[waiter.caller]
        queue.remove(waiter)
        if not queue:
            del self._queues[waiter.caller]
        self._serve()

    def by_holder(self) -> dict[str, int]:
        """Bytes that are held: as `bodies` of all callers together, `unread`, and `answers`."""
        unread, answers = self.held_by(UNREAD), self.held_by(ANSWERS)
        return {"bodies": self.held - unread - answers, "unread": unread, "answers": answers}

    @property
    def waiting(self) -> int:
        """Requests that wait for room."""
        return sum(map(len, self._queues.values()))

    def _parts(self, caller: str) -> tuple[int, int]:
        """The shares of a caller and of all others."""
        if caller == STRANGERS and not self._closed():
            return OF_THE_FREE, 1
        return 1, OF_THE_FREE

    def _add(self, caller: str, size: int) -> None:
        self.held += size
        self.peak = max(self.peak, self.held)
        self._by_caller[caller] = self.held_by(caller) + size

    def _serve(self) -> None:
        """Grant what fits, in each caller's own order. One caller's large wish holds no other caller up."""
        for caller in list(self._queues):
            queue = self._queues.get(caller)
            while queue and self.fits(caller, queue[0].size):
                waiter = queue.popleft()
                if not queue:
                    del self._queues[caller]
                waiter.waiting = False
                self._add(caller, waiter.size)
                waiter.granted()
