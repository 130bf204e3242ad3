"""Retry policy of accepted calls, and the values that one call overrides of its function's."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

FAILURE_KINDS = ("platform", "timeout", "crash", "429", "5xx")
"""Kinds of failure that a policy can name, besides single statuses."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Rules for repeating failed runs of an accepted call. Times in seconds."""

    attempts: int = 3
    """Runs at most, the first one included."""
    backoff: float = 1.0
    """Pause after the first failure; each further failure doubles it."""
    max_backoff: float = 300.0
    on: frozenset[str] = frozenset(FAILURE_KINDS)
    """Failures that are retried: some of `FAILURE_KINDS`, or statuses from 400 to 599."""
    max_event_age: float = 6 * 3600.0
    """Age, counted from acceptance, at which a call is given up whatever its last failure was."""


@dataclass(frozen=True, slots=True)
class CallOverrides:
    """Values of one accepted call that replace its function's."""

    policy: RetryPolicy | None = None
    """None takes the function's policy."""
    timeout: float | None = None
    """Seconds that a run may take; None takes the function's `timeout`."""
    context: tuple[tuple[str, str], ...] = ()
    """Facts that the function gets besides the request, in printable ASCII. `("Task-Index", "3")` becomes the header
    `X-Hearth-Task-Index`, or the variable `HEARTH_TASK_INDEX` of a command."""
    callback: str | None = None
    """URL that is notified of the call's end; None takes the function's `callback`."""


NO_OVERRIDES = CallOverrides()


def overrides_to_json(overrides: CallOverrides) -> str:
    """Return overrides as JSON text for the store, or "" if there are none."""
    if overrides is NO_OVERRIDES or overrides == NO_OVERRIDES:
        return ""
    policy = (
        None if overrides.policy is None else {**asdict(overrides.policy), "on": sorted(overrides.policy.on)}
    )
    return json.dumps(
        {
            "policy": policy,
            "timeout": overrides.timeout,
            "context": overrides.context,
            "callback": overrides.callback,
        }
    )


@lru_cache(maxsize=256)
def overrides_from_json(text: str) -> CallOverrides:
    """Return the overrides that `overrides_to_json` wrote. Cached: all calls of one trigger have the same text."""
    if not text:
        return NO_OVERRIDES
    data: dict[str, Any] = json.loads(text)
    policy = data["policy"]
    return CallOverrides(
        None if policy is None else RetryPolicy(**{**policy, "on": frozenset(policy["on"])}),
        data["timeout"],
        tuple((name, value) for name, value in data["context"]),
        data.get("callback"),
    )
