"""Decides whether the container engine may be asked: a circuit breaker without I/O, clock or tasks.

While it is `closed`, calls are made. After `FAILURES` calls in a row without an answer it is `open`, and none is made
until a pause is over. Then one attempt, `half-open`, decides: closed again, or open for twice as long.
"""

from __future__ import annotations

from enum import StrEnum

from pool.backoff import Backoff

FAILURES = 3
"""Failures in a row that open the breaker. One or two may be a hiccup."""
PAUSE = Backoff(0.25, 1.0)
"""Pauses until an engine that does not answer is tried again."""
TRUSTED_AFTER_SECONDS = 10.0
"""Seconds for which it must stay closed before the next pauses begin with the first again."""


class BreakerState(StrEnum):
    """One of the three states of a breaker; the module's docstring explains them."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """The circuit breaker of one engine. `now` is in seconds of a clock that only grows."""

    def __init__(self) -> None:
        self.state = BreakerState.CLOSED
        self.failures = 0
        """Failures since the last answer."""
        self.since = float("-inf")
        """Time of the last change between closed and not closed."""
        self._retry_at = 0.0
        self._openings = 0
        """Number of openings since it was last closed for `TRUSTED_AFTER_SECONDS`."""

    def answered(self, now: float) -> bool:
        """Note an answer, and return whether it closed the breaker. A late answer does not close an open one."""
        if self.state is BreakerState.OPEN:
            return False
        self.failures = 0
        if self.state is BreakerState.CLOSED:
            return False
        self.state, self.since = BreakerState.CLOSED, now
        return True

    def failed(self, now: float, jitter: float = 1.0) -> bool:
        """Note a failure, and return whether it opened the breaker. `jitter` is the share of the pause, up to 1."""
        self.failures += 1
        if self.state is BreakerState.OPEN or (
            self.state is BreakerState.CLOSED and self.failures < FAILURES
        ):
            return False
        self._open(now, jitter)
        return True

    def trip(self, now: float, jitter: float = 1.0) -> bool:
        """Open the breaker whatever it has counted, and return whether it was closed before."""
        if self.state is not BreakerState.CLOSED:
            return False
        self.failures = max(self.failures, FAILURES)
        self._open(now, jitter)
        return True

    def _open(self, now: float, jitter: float) -> None:
        if self.state is BreakerState.CLOSED:
            if now - self.since >= TRUSTED_AFTER_SECONDS:
                self._openings = 0
            self.since = now
        self.state = BreakerState.OPEN
        self._openings += 1
        self._retry_at = now + PAUSE.pause(self._openings, jitter)

    def try_again(self) -> None:
        """Begin the single attempt of an open breaker; `answered` or `failed` ends it."""
        self.state = BreakerState.HALF_OPEN

    def retry_in(self, now: float) -> float:
        """Return the seconds until the next attempt of an open breaker; 0 if it is due."""
        return max(0.0, self._retry_at - now)
