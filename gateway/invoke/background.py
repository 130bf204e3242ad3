"""A call that no client waits for: facts that pass between its runner and the invoke endpoint beside ASGI."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from gateway.access.access import Admission
from gateway.http.problems import Problem
from gateway.invoke.invocation import Invocation
from scheduler.calls.model import Phases

BACKGROUND = "hearth.background"
"""Key of a request's scope that holds the `Background`."""


class Behalf(Admission):
    """The admission of an accepted call that runs: its caller was admitted when it was accepted."""

    __slots__ = ("attempt", "owner")

    def __init__(self, owner: str, attempt: int) -> None:
        self.owner = owner
        """`kind:id` of the run or job that the call is a part of, or empty."""
        self.attempt = attempt


behalf_of = lru_cache(maxsize=64)(Behalf)
"""Return the admission of a run. It is remembered: most runs of a job or of no owner have the same."""


@dataclass(slots=True)
class Background:
    """One run of an accepted call. `attempt` counts from 1; the function can read it."""

    id: str
    attempt: int
    timeout: float | None = None
    """Seconds that the run may take, or None for the function's `timeout`."""
    context: tuple[tuple[str, str], ...] = ()
    """Further facts for the function, see `CallOverrides.context`."""
    problem: Problem | None = None
    """The outcome if it is not the function's own answer, also if the answer's head was passed on already."""
    phases: Phases | None = None
    """The times of the run, once it has ended, or None if it got no slot."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the facts for the function as fields of its request."""
        return background_headers(self.attempt, self.context)

    def variables(self) -> dict[str, str]:
        """Return the facts for a command as variables."""
        told = {f"HEARTH_{name.upper().replace('-', '_')}": value for name, value in self.context}
        return {"HEARTH_ATTEMPT": str(self.attempt), **told}


def background_headers(attempt: int, context: tuple[tuple[str, str], ...]) -> list[tuple[bytes, bytes]]:
    """Return the facts of a run as fields of the function's request."""
    return [
        (b"x-hearth-attempt", b"%d" % attempt),
        *((f"x-hearth-{name.lower()}".encode(), value.encode()) for name, value in context),
    ]


def phases_of(invocation: Invocation) -> Phases | None:
    """Return the times of a call's phases, or None if it got no slot."""
    if not invocation.kind:
        return None
    return Phases(
        invocation.kind,
        1000 * invocation.queue_seconds,
        1000 * invocation.start_seconds,
        1000 * invocation.exec_seconds,
    )
