"""The log lines of invocations that fail: the first of a kind at once, a flood of them as a count."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from gateway.http.problems import Problem
from gateway.http.visible import shortened
from pool.clock import Clock
from pool.contracts import problem_slugs as slugs

log = logging.getLogger("hearth.invoke")

LINES = 20
"""Lines about one kind of problem of one function within `WINDOW`. The rest is counted, as metrics count all."""
WINDOW = 10.0
"""Seconds."""
LOGGED_DETAIL = 1000
"""Characters of a problem's detail in a line: a function writes it. Of a longer one, begin and end are shown."""
MOST_KINDS = 1000
"""Kinds that are told apart at once; functions and problems are few."""


@dataclass(slots=True)
class _Kind:
    since: float
    lines: int = 0
    left_out: int = 0


class RefusalLog:
    """One a gateway. A function that fails five thousand times a second writes two lines a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kinds: dict[tuple[str, str], _Kind] = {}

    @property
    def kinds(self) -> int:
        """Return how many kinds of problem are told apart now: up to `MOST_KINDS`."""
        return len(self._kinds)

    def note(self, invocation: str, function: str, problem: Problem, error: Exception | None = None) -> None:
        """Log that an invocation ended with this problem, or count it, unless its caller is to blame.

        `error` is the fault of the gateway, if the problem is one.
        """
        if problem.slug == slugs.INTERNAL_ERROR:
            fault = "invocation %s of %s failed because of a fault of the gateway"
            log.error(fault, invocation, function, exc_info=error)
        elif problem.blame != "caller":
            self._note(invocation, function, problem)

    def _note(self, invocation: str, function: str, problem: Problem) -> None:
        now = self._clock.now()
        kind = self._kinds.get((function, problem.slug))
        if kind is None or now - kind.since >= WINDOW:
            if kind is not None and kind.left_out:
                log.warning(
                    "%d more invocations of %s failed with %s within %.0f s",
                    kind.left_out,
                    function,
                    problem.slug,
                    now - kind.since,
                )
            if len(self._kinds) >= MOST_KINDS:
                self._kinds.clear()
            kind = self._kinds[function, problem.slug] = _Kind(now)
        if kind.lines == LINES:
            kind.left_out += 1
            return
        kind.lines += 1
        detail = shortened(problem.detail, LOGGED_DETAIL)
        log.warning("invocation %s of %s: %s: %s", invocation, function, problem.slug, detail)
