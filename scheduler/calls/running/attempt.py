"""One run of a leased call, from its begin until its end is told."""

from __future__ import annotations

from collections.abc import Callable

from scheduler.calls.model import Claim, Result
from scheduler.calls.running.fairness import Lane
from scheduler.calls.running.running import Run
from scheduler.definitions.language.call_overrides import RetryPolicy


class CallAttempt:
    """One run of a leased call. `on_end` is told of it once or more; only the first time counts."""

    __slots__ = ("_on_end", "cancelled", "claim", "lane", "lost", "policy", "run")

    def __init__(
        self,
        lane: Lane,
        claim: Claim,
        policy: RetryPolicy,
        on_end: Callable[[CallAttempt, Result | None], None],
    ) -> None:
        self.lane = lane
        self.claim = claim
        self.policy = policy
        self.run: Run | None = None
        """None while it is being begun."""
        self.cancelled = False
        self.lost = False
        """Set when its lease was taken away: nothing of it is recorded then."""
        self._on_end = on_end

    def ended(self, result: Result | None) -> None:
        """Take the end that the run tells."""
        self._on_end(self, result)
