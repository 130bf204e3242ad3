"""Whose calls are leased next. Pure functions.

Two bounds follow from them. A function's accepted calls take at most half of its slots (at least one), or all but one
if its calls are short: so a direct call never stands behind more of them than half the slots, or for longer than a
short call takes. And places are given, one by one, to whom holds the fewest: a function that has none gets the next
one that is free, however long the backlogs of others are, and none holds more than half.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from scheduler.calls.model import Claim

FEW_MS = 0.02
"""Seconds of a call that is short; and of work that is leased ahead of it, since a commit takes longer than it."""
MOST_AHEAD = 480


def is_short(exec_seconds: float | None) -> bool:
    """Whether a function's calls take so little that one more of them in front of a direct call does not matter."""
    return exec_seconds is not None and exec_seconds < FEW_MS


def places(slots: int, exec_seconds: float | None) -> int:
    """How many accepted calls of a function with so many slots run at once."""
    return max(1, slots - 1 if is_short(exec_seconds) else slots // 2)


def in_hand(at_once: int, exec_seconds: float | None) -> int:
    """How many calls of a function are leased at once: those that run, and the next few if they take no time."""
    if exec_seconds is None or not is_short(exec_seconds):
        return at_once
    return at_once + min(MOST_AHEAD, int(at_once * FEW_MS / max(exec_seconds, 1e-6)))


def share(
    waiting: Mapping[str, int], held: Mapping[str, int], most: Mapping[str, int], room: int
) -> dict[str, int]:
    """How many further calls of which function are leased: so that those who hold few come first.

    `waiting`: calls that are due; `held`: calls that are leased; `most`: that may be; `room`: further ones in all.
    """
    granted = dict.fromkeys(waiting, 0)
    open_to = {name: wants for name in waiting if (wants := _wants(name, waiting, held, most)) > 0}
    while room > 0 and len(open_to) > 1:
        name = min(open_to, key=lambda n: (held.get(n, 0) + granted[n], n))
        granted[name] += 1
        room -= 1
        if granted[name] == open_to[name]:
            del open_to[name]
    for name, wants in open_to.items():  # nobody else wants any more
        granted[name] = min(wants, granted[name] + room)
    return {name: count for name, count in granted.items() if count}


def _wants(name: str, waiting: Mapping[str, int], held: Mapping[str, int], most: Mapping[str, int]) -> int:
    return min(waiting[name], most.get(name, 1) - held.get(name, 0))


class Lane:
    """What is leased of one function."""

    __slots__ = ("at_once", "few", "function", "held", "ready", "running")

    def __init__(self, function: str) -> None:
        self.function = function
        self.ready: deque[Claim] = deque()
        """Calls that have not begun."""
        self.running = 0
        self.held = 0
        """Those, and the ones whose ends are not recorded yet."""
        self.at_once = 1
        """How many may run at once, as was found when some were leased or had ended last."""
        self.few = 0
        """With no more ready than that, further ones are leased: many at a time cost little more than one."""


def next_to_run(lanes: Iterable[Lane]) -> Lane | None:
    """Whose call is run next, of those that have some ready and run fewer than they may at once: the one with the
    fewest running. None: nobody's."""
    first: Lane | None = None
    for lane in lanes:
        running = lane.running
        if (
            lane.ready
            and running < lane.at_once
            and (first is None or (running, lane.function) < (first.running, first.function))
        ):
            first = lane
    return first
