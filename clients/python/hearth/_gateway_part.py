"""The gateway's part in a call of a handler, as bytes: what it refuses, passes, adds and calls a problem.

`tests/unit/clients` holds each rule against the gateway's own code. The rules for fields of an answer are that code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from hearth._answer_headers import (
    HOP_BY_HOP,
    NOSNIFF,
    POLICY,
    as_servers_read,
    listed_by_connection,
    response_headers,
)

Pairs = list[tuple[bytes, bytes]]

NOT_TO_FUNCTION = HOP_BY_HOP | {b"content-length", b"expect", b"forwarded", b"x-invocation-id"}
RESERVED_PREFIXES = (b"x-hearth", b"x-forwarded", b"x-invocation")
OUTCOME = b"x-hearth-outcome"
OUTCOMES = {b"raised": "handler-raised", b"bad-json": "bad-request", b"bad-result": "contract-broken"}
"""Problems by the outcome that a shim reports."""
REPORT_STATUSES = frozenset({400, 500})
"""Statuses with which a shim reports a failure."""
PROBLEMS: dict[str, tuple[int, str, str]] = {
    "bad-request": (400, "The request is malformed", "caller"),
    "not-found": (404, "Not found", "caller"),
    "no-such-function": (404, "No such function", "caller"),
    "method-not-allowed": (405, "This method or path is not allowed", "caller"),
    "conflict": (409, "The current state does not allow this", "caller"),
    "handler-raised": (500, "The handler raised an exception", "function"),
    "instance-died": (502, "The instance died", "function"),
    "contract-broken": (502, "The function's answer broke the contract", "function"),
    "timeout": (504, "The function ran past its timeout", "function"),
}
"""Problems that a call of a handler can meet without a gateway: slug to status, title and blame."""
FROM_API = (NOSNIFF, (POLICY, b"sandbox; default-src 'none'; frame-ancestors 'none'"))
"""Fields of every answer that is the gateway's own."""
HOST = "127.0.0.1:8080"


@dataclass
class Refusal(Exception):
    """One problem in place of a function's answer."""

    slug: str
    detail: str
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def status(self) -> int:
        """Return the HTTP status."""
        return PROBLEMS[self.slug][0]

    def body(self, invocation: str | None) -> bytes:
        """Return the problem as JSON."""
        status, title, blame = PROBLEMS[self.slug]
        shown: dict[str, object] = {
            "type": f"urn:hearth:problem:{self.slug}",
            "title": title,
            "status": status,
            "detail": self.detail,
            "blame": blame,
        }
        if invocation is not None:
            shown["invocation_id"] = invocation
        return json.dumps(shown, ensure_ascii=False).encode(errors="backslashreplace")

    def response_headers(self, body: bytes) -> Pairs:
        """Return the headers of the answer that carries `body`."""
        return [
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            *FROM_API,
            *self.headers,
        ]


def caller_fields(headers: Mapping[str, str]) -> Pairs:
    """Return a caller's fields as an HTTP client sends them. Raises `ValueError` for what HTTP cannot carry."""
    fields = []
    for name, value in headers.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or re.search(r"[\r\n\0]", value):
            raise ValueError(f"{name}: {value!r} is not a header; leave out control characters")
        fields.append((name.lower().encode(), value.strip(" \t").encode("latin-1")))
    return fields


def passed_headers(given: Pairs) -> Pairs:
    """Return a caller's fields as the function sees them, and `x-forwarded-…` fields."""
    names, listed = {name for name, _ in given}, listed_by_connection(given)
    passed = [
        (name, value)
        for name, value in given
        if (read := as_servers_read(name)) not in NOT_TO_FUNCTION
        and not read.startswith(RESERVED_PREFIXES)
        and (read == name or read not in names)
        and (name == b"host" or read not in listed)
    ]
    host = dict(passed).get(b"host", b"")
    return [
        *passed,
        (b"x-forwarded-for", b"127.0.0.1"),
        (b"x-forwarded-proto", b"http"),
        (b"x-forwarded-host", host),
    ]


def told_headers(given: Pairs, invocation: str, timeout: float) -> Pairs:
    """Return the fields of a call as the gateway sends them to an instance. `timeout` is in seconds."""
    own = ((b"x-invocation-id", invocation.encode()), (b"x-hearth-deadline", b"%.3f" % timeout))
    return [*passed_headers(given), *own]


def check_method(function: str, method: str, path: str) -> None:
    """Raise `Refusal` unless a handler may be called with this method and path."""
    if path:
        detail, allowed = f"{function} takes no sub-path: POST /invoke/{function}", b""
    elif method != "POST":
        detail, allowed = f"{function} answers POST only", b"POST"
    else:
        return
    raise Refusal("method-not-allowed", detail, ((b"allow", allowed),))


def ran_out(function: str, timeout: float) -> Refusal:
    """Return the problem of a function that has run for `timeout` seconds."""
    return Refusal("timeout", f"{function} ran past its timeout of {timeout:g} s")


def refusal_of(outcome: bytes, report: bytes) -> Refusal:
    """Return the problem that a shim's report leads to."""
    fault = json.loads(report)
    return Refusal(OUTCOMES.get(outcome, "contract-broken"), f"{fault['type']}: {fault['message']}")


def own_headers(invocation: str, exec_seconds: float | None) -> Pairs:
    """Return the fields that every answer to a call carries. `exec_seconds` is None if no handler ran."""
    fields = [(b"x-invocation-id", invocation.encode())]
    if exec_seconds is not None:
        timing = b"queue;dur=0.00, start;dur=0.00, exec;dur=%.2f" % (1000 * exec_seconds)
        fields += [(b"x-hearth-start", b"warm"), (b"server-timing", timing)]
    return fields


class Answer(NamedTuple):
    """An answer as the caller gets it. Reading `pieces` raises `ConnectionError` if the handler fails in between."""

    status: int
    headers: Pairs
    pieces: Iterator[bytes]


class ToldAnswer(Protocol):
    """An answer as a shim gives it."""

    status: int
    headers: Pairs

    @property
    def length(self) -> int | None:
        """Return the length of the body in bytes, or None if it is streamed or there is none."""

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it comes."""


def pass_on(told: ToldAnswer, invocation: str, exec_seconds: float) -> Answer:
    """Return what a caller gets of a shim's answer."""
    outcome = dict(told.headers).get(OUTCOME) if told.status in REPORT_STATUSES else None
    if outcome is not None:
        return refuse(refusal_of(outcome, b"".join(told.pieces())), invocation, exec_seconds)
    bodiless = told.status in (204, 304)
    headers = response_headers(told.headers, web=False, typed=not bodiless)
    if not bodiless and told.length is not None:
        headers.append((b"content-length", b"%d" % told.length))
    return Answer(told.status, headers + own_headers(invocation, exec_seconds), told.pieces())


def refuse(refusal: Refusal, invocation: str | None = None, exec_seconds: float | None = None) -> Answer:
    """Return what a caller gets in place of a function's answer. `invocation` is None outside of a call."""
    body = refusal.body(invocation)
    own = [] if invocation is None else own_headers(invocation, exec_seconds)
    return Answer(refusal.status, refusal.response_headers(body) + own, iter((body,)))
