"""What accepted calls are run under: the policy of retries, and what one call has of its own."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

FAILURE_KINDS = ("platform", "timeout", "crash", "429", "5xx")
"""Failures that a policy can name, beside single statuses."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How failed runs are tried again. Times in seconds."""

    attempts: int = 3
    """Runs, the first one included."""
    backoff: float = 1.0
    """Pause after the first failure; each further one doubles it."""
    max_backoff: float = 300.0
    on: frozenset[str] = frozenset(FAILURE_KINDS)
    """Which failures are tried again: of `FAILURE_KINDS`, or statuses from 400 to 599."""
    max_event_age: float = 6 * 3600.0
    """From accepting a call; then it is given up whatever it failed of."""


@dataclass(frozen=True, slots=True)
class CallOverrides:
    """What one call is run under that its function does not say."""

    policy: RetryPolicy | None = None
    """None: the function's."""
    timeout: float | None = None
    """Seconds that a run may take; None: the function's `timeout`."""
    context: tuple[tuple[str, str], ...] = ()
    """What the function is told beside its request: `("Task-Index", "3")` is the header `X-Hearth-Task-Index`, and
    for a command the variable `HEARTH_TASK_INDEX`. Values are printable ASCII."""
    callback: str | None = None
    """URL that is told of its end; None: the function's `callback`."""


NO_OVERRIDES = CallOverrides()


def overrides_to_json(overrides: CallOverrides) -> str:
    """As text, empty for none; `overrides_from_json` reads it."""
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
    """What `overrides_to_json` has written. Calls of one trigger have the same."""
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
