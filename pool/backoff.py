"""Pauses between tries of the same thing: exponential, bounded, and shortened by chance."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

MOST_DOUBLINGS = 60
"""Doublings after which a pause grows no more: a float could not hold the power of a very large count."""
SHORTEST_SHARE = 0.75
"""Share of a pause that chance always leaves. Pauses stay within a quarter of their documented length."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """A schedule of pauses in seconds: `first`, then twice as long after each further failure, up to `longest`."""

    first: float
    longest: float

    def pause(self, failures: int, jitter: float = 1.0) -> float:
        """Return the seconds to wait after `failures` failures in a row (1 or more).

        `jitter` is the share of the pause that is waited for, above 0 and up to 1.
        """
        return min(self.longest, self.first * 2.0 ** min(failures - 1, MOST_DOUBLINGS)) * jitter


def jitter(chance: Callable[[], float] = random.random) -> float:
    """Return a share from 0.75 to 1 to shorten a pause by, so that what failed together is not tried again together.

    `chance` returns numbers from 0 to 1.
    """
    return SHORTEST_SHARE + (1.0 - SHORTEST_SHARE) * chance()


class Retries:
    """Counts the failures in a row of one thing, and says how long to wait before it is tried again."""

    __slots__ = ("_backoff", "_chance", "failures")

    def __init__(self, backoff: Backoff, chance: Callable[[], float] = random.random) -> None:
        self._backoff = backoff
        self._chance = chance
        self.failures = 0
        """Failures since the last success."""

    def failed(self) -> float:
        """Count a failure, and return the seconds to wait."""
        self.failures += 1
        return self._backoff.pause(self.failures, jitter(self._chance))

    def succeeded(self) -> None:
        """Begin with the first pause again."""
        self.failures = 0
