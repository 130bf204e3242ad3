"""A call that no client waits for: what the invoke endpoint is told of it, and tells, beside ASGI."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.problems import Problem

BACKGROUND = "hearth.background"
"""Key of a request's scope."""


@dataclass(slots=True)
class Background:
    """One run of an accepted call. `attempt` counts from 1, and the function is told it."""

    id: str
    attempt: int
    problem: Problem | None = None
    """Set if the function's own answer is not the outcome, also where its head was passed on already."""
