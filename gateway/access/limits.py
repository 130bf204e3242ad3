"""Limits of a key: a rate with a burst (a token bucket), and calls at once. Arithmetic on given times."""

from __future__ import annotations

import re
from dataclasses import dataclass

PERIODS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_RATE = re.compile(r"([1-9][0-9]{0,8})/([smh])")


@dataclass(frozen=True)
class Rate:
    """A number of requests in each second, minute or hour (`s`, `m`, `h`)."""

    count: int
    period: str

    @property
    def per_second(self) -> float:
        """Return the requests a second."""
        return self.count / PERIODS[self.period]

    def __str__(self) -> str:
        return f"{self.count}/{self.period}"


def parse_rate(text: str) -> Rate:
    """Return the rate of a text such as `100/s`, `600/m` or `5000/h`. Raises ValueError."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(
            "a rate must be a whole number of requests a second, minute or hour, like 100/s or 600/m"
        )
    return Rate(int(match[1]), match[2])


@dataclass(frozen=True)
class Quota:
    """The limits of one key; None means no limit. Without `burst`, the burst is the rate's count."""

    rate: Rate | None = None
    burst: int | None = None
    concurrency: int | None = None

    def __post_init__(self) -> None:
        if self.burst is not None and self.rate is None:
            raise ValueError("a burst needs a rate; add one, like 100/s")
        if self.burst is not None and not 1 <= self.burst <= 10**9:
            raise ValueError("a burst must be a whole number from 1 to 1000000000")
        if self.concurrency is not None and not 1 <= self.concurrency <= 10**6:
            raise ValueError("a concurrency must be a whole number from 1 to 1000000")

    def bucket(self, now: float) -> TokenBucket | None:
        """Return a full bucket for the rate, or None if there is no rate."""
        if self.rate is None:
            return None
        return TokenBucket(self.rate.per_second, float(self.burst or self.rate.count), now)


UNLIMITED = Quota()


class TokenBucket:
    """A bucket of up to `burst` tokens that gains `rate` a second. Each request takes one. It is full at first.

    Times are seconds of one clock that never goes back.
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, now: float) -> float:
        """Take a token and return 0.0. If there is none, take nothing and return the seconds until there is one."""
        tokens = self._filled(now)
        if tokens < 1.0:
            return (1.0 - tokens) / self._rate
        self._tokens = tokens - 1.0
        return 0.0

    def owe(self, count: int, now: float) -> float:
        """Take `count` more tokens for a request that had one, even if they are not there yet, and return 0.0.

        If tokens are owed already, take nothing and return the seconds until none is owed.
        """
        tokens = self._filled(now)
        if tokens < 0.0:
            return -tokens / self._rate
        self._tokens = tokens - count
        return 0.0

    def give_back(self, count: int, now: float) -> None:
        """Put back `count` tokens that were taken for nothing."""
        self._tokens = min(self._burst, self._filled(now) + count)

    def _filled(self, now: float) -> float:
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return self._tokens
