"""Callbacks: an accepted call's end is POSTed to a URL. What begins one, and when it is tried again."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pool.backoff import Backoff
from scheduler.calls.destinations import told_to_destination
from scheduler.calls.model import Claim, Ending, Status
from scheduler.definitions.language.callback_allow import Allowed
from scheduler.work import NewCallback

ATTEMPTS = 12
"""Times that a callback is tried: about half an hour."""
CALLBACK_RETRY = Backoff(1.0, 900.0)
"""Pauses between two attempts of a callback."""


class CallbackStatus(StrEnum):
    """How a callback stands."""

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
    """Those that were made before."""


@dataclass(frozen=True, slots=True)
class CallbackRecord:
    """How a callback stands. `due` is wall time; `fault` is what the latest attempt failed of."""

    url: str
    status: CallbackStatus
    attempts: int
    due: float
    fault: str | None


class Calling(Protocol):
    """What is declared of a function that matters here."""

    @property
    def callback(self) -> str | None: ...


class Callbacks:
    """A follower of the worker. A call that was cancelled, or is a part of something, has no callback."""

    def __init__(self, plan_of: Callable[[str], Calling], allowed: Allowed) -> None:
        self._plan_of = plan_of
        self._allowed = allowed

    def __call__(self, claim: Claim, ending: Ending) -> Iterable[NewCallback]:
        """The callback of the call's own, else its function's."""
        call = claim.call
        url = call.overrides.callback or self._plan_of(call.function).callback
        if not url or ending.status is Status.CANCELLED or call.owner:
            return ()
        # What was allowed when the call was accepted may not be any more.
        fault = self._allowed.fault_of(url)
        host = url.split("/", 3)[2]
        body = json.dumps(told_to_destination(claim, ending)).encode()
        return (NewCallback(ending.id, f"msg_{secrets.token_hex(12)}", url, host, body, fault),)


def pause_after(attempts: int) -> float:
    """Return the seconds until the next attempt after `attempts` attempts."""
    return CALLBACK_RETRY.pause(attempts)
