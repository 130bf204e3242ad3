"""Rules for a request's head that the parser leaves to us: those of RFC 9112, and our own limits."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.http.problems import Problem
from pool.transport.message import header_lines

MOST_HEAD_BYTES = 64 * 1024
"""Bound of a request's target and header fields together."""
MOST_FIELDS = 256
"""Bound of the header fields of a request: each takes `FIELD_BYTES` beside its own, so short ones cost most."""
SHORT_HEAD_BYTES = 3 * MOST_FIELDS
"""Bytes of a head that cannot hold too many fields: each has a name, a colon and a line's end."""
WATCHED = frozenset({b"host", b"expect", b"transfer-encoding"})
"""Fields that are checked as they come."""


class Refusal(Exception):
    """A request that is not served; `problem` says why. Raised within the parser's callbacks."""

    def __init__(self, slug: str, detail: str) -> None:
        super().__init__(detail)
        self.problem = Problem(slug, detail)


def problem_of(error: Exception) -> Problem:
    """Return the problem of a request that the parser does not accept, or one of whose callbacks refused it."""
    if isinstance(error.__context__, Refusal):
        return error.__context__.problem
    return Problem("bad-request", f"the request is not valid HTTP/1.1: {error}")


def too_long() -> Refusal:
    """Return the refusal of a head with too many bytes or fields."""
    return Refusal(
        "head-too-large", f"the request's head is over {MOST_HEAD_BYTES} bytes or {MOST_FIELDS} fields"
    )


def check_size(url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Raise `Refusal` for a head of too many bytes."""
    if len(url) + sum(len(name) + len(value) + 4 for name, value in headers) > MOST_HEAD_BYTES:
        raise too_long()


def check_host(hosts: int, version: str) -> None:
    """Raise `Refusal` for a request of this version of HTTP that has `hosts` Host fields, which is not one."""
    if version not in ("1.0", "1.1"):
        raise Refusal("bad-request", f"HTTP/{version} is not served, HTTP/1.1 is")
    if hosts or version == "1.1":
        raise Refusal("bad-request", "a request of HTTP/1.1 has one Host field")


def head_without_upgrade(
    method: bytes, url: bytes, version: str, headers: Sequence[tuple[bytes, bytes]]
) -> bytes:
    """Return a head once more, without the wish for another protocol, which we do not grant."""
    kept = []
    for name, value in headers:
        if name == b"connection":
            tokens = [token.strip() for token in value.split(b",")]
            value = b", ".join(token for token in tokens if token.lower() != b"upgrade")
        if name != b"upgrade":
            kept.append((name, value))
    return b"%b %b HTTP/%b\r\n%b\r\n" % (method, url, version.encode(), header_lines(kept))
