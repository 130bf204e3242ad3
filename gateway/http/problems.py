"""Errors as `application/problem+json` (RFC 9457), each with its blame."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Literal

from gateway.http.browser_policy import FROM_API
from pool.contracts import problem_slugs as slugs
from pool.errors import (
    AnswerFault,
    AnswerTooLarge,
    CommandFailed,
    ConnectionLost,
    FunctionBroken,
    InstanceDied,
    MalformedAnswer,
    PoolError,
)
from scheduler.calls.store import KeyReused, StoreError
from scheduler.dispatch.errors import EngineAway, Gone, NoCapacity, NotReady, QueueFull

Blame = Literal["caller", "function", "platform"]

TYPES: dict[str, tuple[int, str, Blame]] = {
    slugs.BAD_REQUEST: (400, "The request is malformed", "caller"),
    "unauthorized": (401, "No valid key or signature", "caller"),
    "forbidden": (403, "Not allowed", "caller"),
    slugs.NOT_FOUND: (404, "Not found", "caller"),
    slugs.NO_SUCH_FUNCTION: (404, "No such function", "caller"),
    "method-not-allowed": (405, "This method or path is not allowed", "caller"),
    "head-timeout": (408, "The request's head did not come in time", "caller"),
    "body-timeout": (408, "The request's body did not come in time", "caller"),
    "read-timeout": (408, "The answer was not read in time", "caller"),
    "ambiguous-id": (409, "Several ids begin like this", "caller"),
    "conflict": (409, "The current state does not allow this", "caller"),
    "body-too-large": (413, "The body is over the limit", "caller"),
    slugs.INVALID_INPUT: (422, "The request's parameters are invalid", "caller"),
    "input-mismatch": (422, "The input does not fit the function's schema", "caller"),
    "key-reused": (422, "The idempotency key was used for another request", "caller"),
    slugs.QUEUE_FULL: (429, "The function's queue is full", "caller"),
    slugs.QUOTA_EXCEEDED: (429, "The key's quota is used up", "caller"),
    "head-too-large": (431, "The request's head is over the limit", "caller"),
    slugs.HANDLER_RAISED: (500, "The handler raised an exception", "function"),
    slugs.IMPORT_FAILED: (500, "The handler could not be imported", "function"),
    slugs.INTERNAL_ERROR: (500, "The gateway has a fault", "platform"),
    slugs.INSTANCE_DIED: (502, "The instance died", "function"),
    slugs.CONTRACT_BROKEN: (502, "The function's answer broke the contract", "function"),
    slugs.COMMAND_FAILED: (502, "The command failed", "function"),
    slugs.FUNCTION_FAILED: (502, "The function could not be set up", "function"),
    "busy": (503, "No memory for the request at this time", "platform"),
    slugs.NO_CAPACITY: (503, "No capacity in time", "platform"),
    slugs.CONNECTION_LOST: (502, "The connection to the instance was lost", "platform"),
    slugs.NOT_READY: (503, "The function was not ready in time", "function"),
    slugs.ENGINE_DOWN: (503, "The container engine does not answer", "platform"),
    "store-failed": (503, "The store of accepted calls is full or has failed", "platform"),
    slugs.DRAINING: (503, "The gateway is shutting down", "platform"),
    slugs.NOT_KEPT: (507, "The answer could not be kept", "platform"),
    slugs.TIMEOUT: (504, "The function ran past its timeout", "function"),
}
"""Every problem: slug to status, title and blame."""


@dataclass(eq=False, slots=True)
class Problem(Exception):
    """One error for a caller."""

    slug: str
    detail: str
    retry_after: float | None = None
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())
    pointer: str | None = None
    """Place of the fault in the caller's input, as a JSON pointer (RFC 6901)."""

    @property
    def status(self) -> int:
        """Return the HTTP status."""
        return TYPES[self.slug][0]

    @property
    def blame(self) -> Blame:
        """Return who has to act: caller, function or platform."""
        return TYPES[self.slug][2]

    def body(self, invocation: str | None = None) -> bytes:
        """Return the problem as JSON, with the id of its invocation if there is one."""
        status, title, blame = TYPES[self.slug]
        shown: dict[str, object] = {
            "type": f"urn:hearth:problem:{self.slug}",
            "title": title,
            "status": status,
            "detail": self.detail,
            "blame": blame,
        }
        if self.pointer is not None:
            shown["pointer"] = self.pointer
        if invocation is not None:
            shown["invocation_id"] = invocation
        # JSON can name half a surrogate pair, UTF-8 cannot hold it. So it is escaped again.
        return json.dumps(shown, ensure_ascii=False).encode(errors="backslashreplace")

    def response_headers(self, body: bytes) -> list[tuple[bytes, bytes]]:
        """Return the headers of the response that carries `body`."""
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            *FROM_API,
            *self.headers,
        ]
        if self.retry_after is not None:
            headers.append((b"retry-after", b"%d" % max(1, math.ceil(self.retry_after))))
        return headers


def problem_of(error: Exception) -> Problem:
    """Return the problem that tells a caller about an error of the pool or the scheduler."""
    match error:
        case Problem():
            return error
        case QueueFull():
            return Problem(slugs.QUEUE_FULL, str(error), error.retry_after)
        case EngineAway():
            return Problem(slugs.ENGINE_DOWN, str(error), error.retry_after)
        case NotReady():
            return Problem(slugs.NOT_READY, str(error), error.retry_after)
        case NoCapacity():
            return Problem(slugs.NO_CAPACITY, str(error), error.retry_after)
        case Gone():
            return Problem(slugs.NO_SUCH_FUNCTION, str(error))
        case FunctionBroken(imported=False):
            return Problem(slugs.IMPORT_FAILED, f"{error.kind}: {error}")
        case FunctionBroken():
            return Problem(slugs.INSTANCE_DIED, str(error))
        case AnswerFault():
            return Problem(error.slug, str(error))
        case CommandFailed():
            return Problem(slugs.COMMAND_FAILED, str(error))
        case AnswerTooLarge() | MalformedAnswer():
            return Problem(slugs.CONTRACT_BROKEN, str(error))
        case ConnectionLost():
            return Problem(slugs.CONNECTION_LOST, str(error))
        case InstanceDied():
            return Problem(slugs.INSTANCE_DIED, str(error))
        case PoolError():
            return Problem(slugs.NO_CAPACITY, str(error), 1.0)
        case KeyReused():
            return Problem(
                "key-reused", "this Idempotency-Key came with another request within 24 hours; use a new key"
            )
        case StoreError():
            return Problem("store-failed", str(error), 5.0)
        case _:
            return Problem(slugs.INTERNAL_ERROR, "the gateway has a fault; its log has the traceback")
