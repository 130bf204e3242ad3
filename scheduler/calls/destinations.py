"""Destinations, `on_success` and `on_failure`: the function that is called when an accepted call has ended."""

from __future__ import annotations

import json
import logging
import secrets
from base64 import b64encode
from collections.abc import Callable, Iterable
from typing import Protocol

from scheduler.calls.model import Claim, Ending, Status
from scheduler.work import NewCall, Request

log = logging.getLogger("hearth.durable")

MAX_CALL_DEPTH = 8
"""Calls that may follow from one another. It ends a circle of destinations or events."""
SUCCEEDED = Status.SUCCEEDED
MAX_TOLD_BYTES = 256 * 1024
"""Largest answer that a destination gets in its body; for a larger one it gets the URL."""


class DestinationPlan(Protocol):
    """The part of a function's plan that names its destinations."""

    @property
    def on_success(self) -> str | None: ...
    @property
    def on_failure(self) -> str | None: ...


class Destinations:
    """A follower of the worker. A cancelled call has no destination, nor has a part of a run or job."""

    def __init__(self, plan_of: Callable[[str], DestinationPlan]) -> None:
        self._plan_of = plan_of

    def __call__(self, claim: Claim, ending: Ending) -> Iterable[NewCall]:
        """Return the call of the function's destination for this ending, if it has one."""
        call, status = claim.call, ending.status
        plan = self._plan_of(call.function)
        destination = plan.on_success if status is SUCCEEDED else plan.on_failure
        if destination is None or status is Status.CANCELLED or call.owner:
            return ()
        if is_too_deep(call, f"{destination} is not called"):
            return ()
        told = destination_body(claim, ending)
        return (call_with_json(destination, told, secrets.token_hex(16), call.depth + 1),)


def call_with_json(function: str, told: object, id: str, depth: int) -> NewCall:
    """Return a call of a function with a JSON body."""
    body = json.dumps(told).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    return NewCall(
        id=id,
        function=function,
        request=Request(headers=headers),
        body=body,
        depth=depth,
    )


def is_too_deep(call: NewCall, consequence: str) -> bool:
    """Return whether too many calls led to this one; if so, log the consequence."""
    return chain_too_deep(call.subject, call.depth, consequence)


def chain_too_deep(what: str, depth: int, consequence: str) -> bool:
    """Return whether too many calls led to something, and log the consequence if so."""
    if depth < MAX_CALL_DEPTH:
        return False
    log.warning("%s: %s, %d calls led here already; look for a circle", what, consequence, depth)
    return True


def destination_body(claim: Claim, ending: Ending) -> dict[str, object]:
    """Return the body of a destination's call, to be written as JSON."""
    result = ending.result
    answer: dict[str, object] | None = None
    if result is not None:
        answer = {"status": result.status}
        types = [value.decode("latin-1") for name, value in result.headers if name == b"content-type"]
        answer["content_type"] = types[0] if types else None
        if result.size > MAX_TOLD_BYTES:
            answer["url"] = f"/invocations/{ending.id}/result"
        else:
            try:
                answer["body"] = result.body.decode()
            except UnicodeDecodeError:
                answer["body_base64"] = b64encode(result.body).decode()
    return {
        "invocation_id": ending.id,
        "function": claim.call.function,
        "status": ending.status.value,
        "attempts": claim.attempt,
        "error": ending.error,
        "detail": ending.detail,
        "blame": ending.blame,
        "result": answer,
    }
