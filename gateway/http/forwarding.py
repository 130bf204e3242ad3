"""Parts of a request that go to a function. `answer_headers` does the same for its answer. Pure functions.

Both sides rebuild the framing, and never pass it on (RFC 9110, 7.6.1: hop-by-hop fields; RFC 9112, 6: length or
chunks, never both).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import compress
from operator import itemgetter
from typing import Any

from gateway.http.answer_headers import HOP_BY_HOP, as_servers_read, listed_by_connection
from gateway.http.problems import Problem

HeaderList = list[tuple[bytes, bytes]]

DEADLINE = b"x-hearth-deadline"
NOT_TO_FUNCTION = HOP_BY_HOP | {b"content-length", b"expect", b"forwarded", b"x-invocation-id"}
RESERVED_PREFIXES = (b"x-hearth", b"x-forwarded", b"x-invocation")
"""Prefixes of fields that only Hearth may set."""
NOT_TO_CGI = frozenset({b"authorization", b"proxy"})
"""Fields that a command does not get, beside those that no function gets."""
NAME, VALUE = itemgetter(0), itemgetter(1)
MAX_CACHED_NAMES = 64
"""Most field names of a request that are cached. It bounds the memory of one entry; clients send about ten."""
FORBIDDEN_IN_VALUE = re.compile(rb"[\r\n\0]")
FORBIDDEN_IN_TARGET = re.compile(rb"[\x00-\x20\x7f]")


@lru_cache(maxsize=256)
def _are_passed(names: tuple[bytes, ...]) -> list[bool]:
    """Return, for each of a caller's fields, whether it goes to the function.

    Cached: most callers send the same ones.

    Many servers, and CGI, read `_` in a name as `-`. Read so, a field with `_` must be neither ours nor the same as
    another field of the request.
    """
    plain = [as_servers_read(name) for name in names]
    known = frozenset(names)
    return [
        read not in NOT_TO_FUNCTION
        and not read.startswith(RESERVED_PREFIXES)
        and (read == name or read not in known)
        for name, read in zip(names, plain, strict=True)
    ]


def request_headers(scope: Mapping[str, Any], invocation: bytes, timeout: float) -> HeaderList:
    """Return the headers for a function: the caller's, and Hearth's own of this call. Raises `Problem`."""
    return [*passed_headers(scope), (b"x-invocation-id", invocation), (DEADLINE, b"%.3f" % timeout)]


def passed_headers(scope: Mapping[str, Any]) -> HeaderList:
    """Return the caller's headers as the function will see them, and `x-forwarded-…` fields. Raises `Problem`."""
    given: Sequence[tuple[bytes, bytes]] = scope["headers"]
    names = tuple(map(NAME, given))
    known = _are_passed if len(names) <= MAX_CACHED_NAMES else _are_passed.__wrapped__
    headers = list(compress(given, known(names)))
    if FORBIDDEN_IN_VALUE.search(b" ".join(map(VALUE, headers))):
        raise Problem("bad-request", "a header's value contains CR, LF or NUL; remove them")
    if b"connection" in names and (listed := listed_by_connection(given)):
        headers = [pair for pair in headers if pair[0] == b"host" or as_servers_read(pair[0]) not in listed]
    host = dict(headers).get(b"host", b"")
    if not host:
        if b"host" in names:
            headers = [pair for pair in headers if pair[0] != b"host"]
        headers.append((b"host", b"localhost"))  # HTTP/1.0 may omit it, but we send HTTP/1.1
    client = scope.get("client")
    headers += (
        (b"x-forwarded-for", client[0].encode() if client else b"unknown"),
        (b"x-forwarded-proto", scope.get("scheme", "http").encode()),
        (b"x-forwarded-host", host),
    )
    return headers


def target_of(sub_path: bytes, query: bytes) -> bytes:
    """Return the request target that the function sees.

    Raises `Problem` if it contains white space or a control character.
    """
    target = b"/" + sub_path.lstrip(b"/") if sub_path else b"/"
    if query:
        target += b"?" + query
    if target != b"/" and FORBIDDEN_IN_TARGET.search(target):
        raise Problem(
            "bad-request", "the path or query contains white space or a control character; encode it"
        )
    return target


def cgi_variables(
    scope: Mapping[str, Any], function: str, invocation: str, length: int | None
) -> dict[str, str]:
    """Return the CGI/1.1 meta-variables (RFC 3875, 4.1) of a call, without `HTTP_AUTHORIZATION` and `HTTP_PROXY`."""
    server = scope.get("server") or ("", 0)
    client = scope.get("client") or ("", 0)
    variables = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_SOFTWARE": "Hearth",
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": str(server[0]),
        "SERVER_PORT": str(server[1]),
        "REQUEST_METHOD": str(scope["method"]),
        "SCRIPT_NAME": f"/invoke/{function}",
        "PATH_INFO": "",
        "QUERY_STRING": as_text(scope["query_string"]),
        "REMOTE_ADDR": str(client[0]),
        "HEARTH_INVOCATION_ID": invocation,
    }
    if length is not None:
        variables["CONTENT_LENGTH"] = str(length)
    given: Sequence[tuple[bytes, bytes]] = scope["headers"]
    passed = _are_passed.__wrapped__(tuple(map(NAME, given)))
    for raw_name, raw_value in compress(given, passed):
        if raw_name in NOT_TO_CGI:
            continue
        name = raw_name.decode("latin-1").upper().replace("-", "_")
        if raw_name == b"content-type":
            variables["CONTENT_TYPE"] = as_text(raw_value)
        elif name.isidentifier() and not FORBIDDEN_IN_VALUE.search(raw_value):
            value = as_text(raw_value)
            key = f"HTTP_{name}"
            separator = "; " if raw_name == b"cookie" else ", "
            variables[key] = f"{variables[key]}{separator}{value}" if key in variables else value
    return variables


def as_text(data: bytes) -> str:
    """Return bytes as the value of a variable, which is given to the program as the same bytes."""
    return data.decode(errors="surrogateescape")
