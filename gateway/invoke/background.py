"""A call that no client waits for: what the invoke endpoint is told of it, and tells, beside ASGI."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.http.problems import Problem
from gateway.invoke.invocation import Invocation
from scheduler.calls.model import Phases

BACKGROUND = "hearth.background"
"""Key of a request's scope."""


@dataclass(slots=True)
class Background:
    """One run of an accepted call. `attempt` counts from 1, and the function is told it."""

    id: str
    attempt: int
    timeout: float | None = None
    """Seconds that the run may take; None: the function's `timeout`."""
    context: tuple[tuple[str, str], ...] = ()
    """What else the function is told, see `CallOverrides.context`."""
    problem: Problem | None = None
    """Set if the function's own answer is not the outcome, also where its head was passed on already."""
    phases: Phases | None = None
    """Set when it has ended, if it got a slot."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What the function is told, as fields of its request."""
        return background_headers(self.attempt, self.context)

    def variables(self) -> dict[str, str]:
        """What a command is told, as variables."""
        told = {f"HEARTH_{name.upper().replace('-', '_')}": value for name, value in self.context}
        return {"HEARTH_ATTEMPT": str(self.attempt), **told}


def background_headers(attempt: int, context: tuple[tuple[str, str], ...]) -> list[tuple[bytes, bytes]]:
    """What a function is told of a run."""
    return [
        (b"x-hearth-attempt", b"%d" % attempt),
        *((f"x-hearth-{name.lower()}".encode(), value.encode()) for name, value in context),
    ]


def phases_of(invocation: Invocation) -> Phases | None:
    """Where the time of a call went; None: it got no slot."""
    if not invocation.kind:
        return None
    return Phases(
        invocation.kind,
        1000 * invocation.queue_seconds,
        1000 * invocation.start_seconds,
        1000 * invocation.exec_seconds,
    )
