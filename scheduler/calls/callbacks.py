"""Callbacks: the end of an accepted call is sent to a URL. Beginning one, its record, and its retries."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pool.backoff import Backoff
from scheduler.calls.destinations import destination_body
from scheduler.calls.model import Claim, Ending, Status
from scheduler.definitions.language.callback_allow import Allowed
from scheduler.work import NewCallback

MAX_ATTEMPTS = 12
"""Attempts to deliver one callback, within about half an hour."""
CALLBACK_RETRY = Backoff(1.0, 900.0)
"""Pauses between the attempts."""


class CallbackStatus(StrEnum):
    """Status of a callback."""

    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A callback that is due."""

    message: str
    url: str
    host: str
    body: bytes
    attempts: int
    """Attempts made before this one."""


@dataclass(frozen=True, slots=True)
class CallbackRecord:
    """A stored callback. `due` is wall time; `fault` is the error of the latest attempt, or None."""

    url: str
    status: CallbackStatus
    attempts: int
    due: float
    fault: str | None


class CallbackPlan(Protocol):
    """The part of a function's plan that names its callback."""

    @property
    def callback(self) -> str | None: ...


class Callbacks:
    """A follower of the worker. A cancelled call has no callback, nor has a part of a run or job."""

    def __init__(self, plan_of: Callable[[str], CallbackPlan], allowed: Allowed) -> None:
        self._plan_of = plan_of
        self._allowed = allowed

    def __call__(self, claim: Claim, ending: Ending) -> Iterable[NewCallback]:
        """Return the callback of the call, or of its function, if there is one."""
        call = claim.call
        url = call.overrides.callback or self._plan_of(call.function).callback
        if not url or ending.status is Status.CANCELLED or call.owner:
            return ()
        # The allow-list may have changed since the call was accepted.
        fault = self._allowed.fault_of(url)
        host = url.split("/", 3)[2]
        body = json.dumps(destination_body(claim, ending)).encode()
        return (NewCallback(ending.id, f"msg_{secrets.token_hex(12)}", url, host, body, fault),)
