"""Requests to a gateway, and conversations of several requests. No I/O: `transport` does it.

A conversation is a generator. It yields requests and pauses, gets the answer to each request, and returns a value. So
`Client` and `AsyncClient` share every decision.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from hearth.errors import ConnectionLost, GatewayAbsent, HearthError
from hearth.response import Response
from hearth.values import encode

T = TypeVar("T")

API_TIMEOUT_SECONDS = 90.0
"""Longest silence of the gateway at a request of its API. It gives up after 60 s itself; no function runs for it."""
RESEND_PAUSES = (0.05, 0.2, 0.75)
"""Seconds between attempts to send a request of which nothing was sent: a gateway that restarts is back soon."""


@dataclass(frozen=True)
class ApiRequest:
    """One request to the gateway."""

    method: str
    path: str
    """Path with its query, percent-encoded."""
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = API_TIMEOUT_SECONDS
    """Longest silence in seconds, or None: the function's own timeout bounds the call."""
    repeatable: bool = False
    """Sending it twice does the same as sending it once."""


@dataclass(frozen=True)
class Pause:
    """A wait between two requests, in seconds."""

    seconds: float


Step = ApiRequest | Pause
Conversation = Generator[Step, Response, T]


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """The value that a conversation has returned."""

    value: T


def advance(conversation: Conversation[T], said: Response | HearthError | None) -> Step | Outcome[T]:
    """Return the next step of a conversation, or its end. `said` is what came of the step before; None of a pause."""
    try:
        if isinstance(said, HearthError):
            return conversation.throw(said)
        return next(conversation) if said is None else conversation.send(said)
    except StopIteration as end:
        return Outcome(end.value)


def exchange(request: ApiRequest) -> Conversation[Response]:
    """Send a request and return its answer, whatever its status.

    It is sent again only if nothing of it was sent, or if it is repeatable. Raises `PlatformError`.
    """
    for seconds in RESEND_PAUSES:
        try:
            return (yield request)
        except GatewayAbsent:
            pass
        except ConnectionLost:
            if not request.repeatable:
                raise
        yield Pause(seconds)
    return (yield request)


def ask(request: ApiRequest) -> Conversation[Any]:
    """Send a request to the API and return the value of its answer. Raises `HearthError`."""
    response = yield from exchange(request)
    response.raise_for_problem()
    if not response.ok:
        raise HearthError(
            f"the server is not a Hearth gateway: it answered {request.method} {request.path} with status "
            f"{response.status}; check its address"
        )
    return response.value


def get(path: str, parameters: Mapping[str, Any] | None = None) -> Conversation[Any]:
    """Return the value that the API has at a path. Parameters that are None are left out. Raises `HearthError`."""
    given = {name: value for name, value in (parameters or {}).items() if value is not None}
    return ask(ApiRequest("GET", with_query(path, given), repeatable=True))


def start(path: str, body: bytes, headers: Mapping[str, str], key: str | None) -> Conversation[Any]:
    """Have the gateway accept work once, and return its record. Raises `HearthError`.

    The key makes a repeated request start nothing twice. It is made here if it is None.
    """
    fields = {**headers, "idempotency-key": key or secrets.token_hex(16)}
    return ask(ApiRequest("POST", path, body, fields, repeatable=True))


def document(value: Any) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a request that carries JSON, text included."""
    return json.dumps(value, allow_nan=False).encode(), {"content-type": "application/json"}


@dataclass(frozen=True)
class Call:
    """A call of a function as its caller describes it."""

    function: str
    data: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"
    path: str = ""
    """Path below the function's name, for functions that serve HTTP."""
    query: str | Mapping[str, str] = ""
    timeout: float | None = None

    def request(self) -> ApiRequest:
        """Return the request of this call. Raises `TypeError` or `ValueError` for data that JSON cannot hold."""
        body, fields = encode(self.data, self.headers)
        below = f"/{self.path.removeprefix('/')}" if self.path else ""
        target = with_query(
            f"/invoke/{part(self.function)}{quote(below, safe='/%:@!$&()*+,;=~')}", self.query
        )
        return ApiRequest(self.method, target, body, fields, self.timeout)


def part(name: str) -> str:
    """Return a name or an id as one part of a path."""
    return quote(name, safe="")


def with_query(path: str, query: str | Mapping[str, Any]) -> str:
    """Return a path with a query, given as text that is encoded already, or as names and values."""
    if not isinstance(query, str):
        query = "&".join(
            f"{quote(name, safe='')}={quote(str(value), safe='')}" for name, value in query.items()
        )
    return f"{path}?{query}" if query else path
