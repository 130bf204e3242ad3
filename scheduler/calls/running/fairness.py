"""Fairness between functions with accepted calls: which calls are leased next. Pure functions.

Accepted calls of a function take at most half of its slots (at least one), or all but one if its calls are short. So
a direct call waits behind half the slots at most, or for as long as a short call takes.

Leases are given one by one to the function that holds the fewest. So a function without any gets the next one,
however long the backlogs of others are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heapreplace

from scheduler.calls.model import Claim

SHORT_CALL_SECONDS = 0.02
"""Longest short call. So much work is leased ahead of running short calls, as a commit takes longer than one."""
MAX_LEASED_AHEAD = 480
"""Short calls of one function that are leased ahead of those that run."""


def is_short(exec_seconds: float | None) -> bool:
    """Return whether a function's calls are so short that one more before a direct call does not matter."""
    return exec_seconds is not None and exec_seconds < SHORT_CALL_SECONDS


def places(slots: int, exec_seconds: float | None) -> int:
    """Return how many accepted calls of a function with so many slots may run at once."""
    return max(1, slots - 1 if is_short(exec_seconds) else slots // 2)


def in_hand(at_once: int, exec_seconds: float | None) -> int:
    """Return how many calls of a function may be leased at once: the running ones, and short ones ahead of them."""
    if exec_seconds is None or not is_short(exec_seconds):
        return at_once
    return at_once + min(MAX_LEASED_AHEAD, int(at_once * SHORT_CALL_SECONDS / max(exec_seconds, 1e-6)))


def share(
    waiting: Mapping[str, int], held: Mapping[str, int], most: Mapping[str, int], room: int
) -> dict[str, int]:
    """Return how many further calls of each function to lease; functions that hold few come first.

    By function, `waiting` counts due calls, `held` counts leased calls, and `most` limits leased calls. `room` limits
    the further leases in all.
    """
    granted: dict[str, int] = {}
    wants = {name: wanted for name in waiting if (wanted := _wants(name, waiting, held, most)) > 0}
    fewest = [(held.get(name, 0), name) for name in wants]
    heapify(fewest)
    while room > 0 and len(fewest) > 1:
        holds, name = fewest[0]
        granted[name] = granted.get(name, 0) + 1
        room -= 1
        if granted[name] < wants[name]:
            heapreplace(fewest, (holds + 1, name))
        else:
            heappop(fewest)
    for _, name in fewest[:room]:  # at most one function is left, or no room
        granted[name] = min(wants[name], granted.get(name, 0) + room)
    return granted


def _wants(name: str, waiting: Mapping[str, int], held: Mapping[str, int], most: Mapping[str, int]) -> int:
    return min(waiting[name], most.get(name, 1) - held.get(name, 0))


class Lane:
    """The leased calls of one function."""

    __slots__ = ("at_once", "few", "function", "held", "ready", "running")

    def __init__(self, function: str) -> None:
        self.function = function
        self.ready: deque[Claim] = deque()
        """Leased calls that have not begun."""
        self.running = 0
        self.held = 0
        """All leased calls: ready, running, or ended and not recorded yet."""
        self.at_once = 1
        """Calls that may run at once, updated when calls are leased or end."""
        self.few = 0
        """Number of ready calls at which more are leased: leasing many at once costs little more than one."""


def next_to_run(lanes: Iterable[Lane]) -> Lane | None:
    """Return the lane whose call runs next, or None if no lane may run one.

    It has a call ready, runs fewer than it may at once, and has the fewest running.
    """
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
