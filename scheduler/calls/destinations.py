"""`on_success` and `on_failure`: the function that is called when an accepted call has ended."""

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

DEEPEST = 8
"""Calls that may follow from one another: a circle ends."""
SUCCEEDED = Status.SUCCEEDED
LARGEST_TOLD = 256 * 1024
"""Bytes of an answer that a destination is told; of a larger one, where it is."""


class Destined(Protocol):
    """What is declared of a function that matters here."""

    @property
    def on_success(self) -> str | None: ...
    @property
    def on_failure(self) -> str | None: ...


class Destinations:
    """A follower of the worker. A call that was cancelled, or is a part of something, has no destination."""

    def __init__(self, plan_of: Callable[[str], Destined]) -> None:
        self._plan_of = plan_of

    def __call__(self, claim: Claim, ending: Ending) -> Iterable[NewCall]:
        """The call of the function's destination, if it has one for this ending."""
        call, status = claim.call, ending.status
        plan = self._plan_of(call.function)
        destination = plan.on_success if status is SUCCEEDED else plan.on_failure
        if destination is None or status is Status.CANCELLED or call.owner:
            return ()
        if is_too_deep(call, f"{destination} is not called"):
            return ()
        told = told_to_destination(claim, ending)
        return (call_of(destination, told, secrets.token_hex(16), call.depth + 1),)


def call_of(function: str, told: object, id: str, depth: int) -> NewCall:
    """The call of a function that is told something, as JSON."""
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
    """Whether nothing may follow from a call any more; it is logged with what does not happen."""
    return led_too_deep(call.subject, call.depth, consequence)


def led_too_deep(what: str, depth: int, consequence: str) -> bool:
    """The same of anything that so many calls have led to."""
    if depth < DEEPEST:
        return False
    log.warning("%s: %s, %d calls led here already", what, consequence, depth)
    return True


def told_to_destination(claim: Claim, ending: Ending) -> dict[str, object]:
    """What a destination function is called with, as JSON."""
    result = ending.result
    answer: dict[str, object] | None = None
    if result is not None:
        answer = {"status": result.status}
        types = [value.decode("latin-1") for name, value in result.headers if name == b"content-type"]
        answer["content_type"] = types[0] if types else None
        if result.size > LARGEST_TOLD:
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
