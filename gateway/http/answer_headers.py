"""Header fields of a function's answer that a caller sees. Pure functions.

It imports the standard library alone: `hearth.testing` of clients/python is given this very file.

All functions and the API share one origin. So no answer may become active content of that origin, unless its function
is marked `web: true`. A list of allowed fields ensures that, because browsers learn new fields each year.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

Pairs = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    b"""
    connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade
    """.split()
)
"""Fields that concern one connection only, of requests and answers (RFC 9110, 7.6.1)."""

POLICY = b"content-security-policy"
SANDBOX = b"sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Policy for answers of functions: a browser shows them without scripts, without loading, in a separate origin."""
NOSNIFF = (b"x-content-type-options", b"nosniff")
FROM_FUNCTION = (NOSNIFF, (POLICY, SANDBOX))
"""Fields of every answer of a function that is not marked `web: true`."""

OCTETS = b"application/octet-stream"
"""Content type that every browser saves and none shows."""

UNTYPED = (*FROM_FUNCTION, (b"content-type", OCTETS))
"""Last fields of an answer whose function gave no content type."""

NOT_FROM_FUNCTION = HOP_BY_HOP | {b"content-length", b"date", b"server", b"x-invocation-id"}
NOT_FROM_ANY_FUNCTION = (
    b"x-hearth",
    b"x-accel-redirect",
    b"x-accel-limit",
    b"x-accel-charset",
    b"x-accel-expires",
    b"x-archive-",
    b"x-envoy-",
    b"x-sendfile",
    b"x-lighttpd-send",
    b"x-litespeed-",
    b"x-reproxy",
)
"""Prefixes of fields that only Hearth may set, or that a proxy in front of Hearth would act on."""

PASSED = frozenset(
    b"""
    accept-patch accept-post accept-ranges access-control-allow-credentials access-control-allow-headers
    access-control-allow-methods access-control-allow-origin access-control-expose-headers access-control-max-age age
    allow api-version authentication-info baggage cache-control content-digest content-disposition content-encoding
    content-language content-location content-md5 content-range correlation-id dav deprecation digest dpop-nonce etag
    expires idempotency-key last-modified link location lock-token operation-location pragma preference-applied
    ratelimit repr-digest request-id retry-after server-timing signature signature-input sunset timing-allow-origin
    traceparent traceresponse tracestate vary warning www-authenticate
    """.split()
)
"""Fields that browsers ignore, or that affect only the answer that carries them."""
PASSED_PREFIXES = (b"x-", b"ce-", b"grpc-", b"mcp-", b"ratelimit-")
"""Prefixes of fields that programs define for each other."""
READ_BY_BROWSERS = (
    b"x-content-security-policy",
    b"x-content-type-options",
    b"x-dns-prefetch-control",
    b"x-download-options",
    b"x-frame-options",
    b"x-permitted-cross-domain-policies",
    b"x-sourcemap",
    b"x-ua-compatible",
    b"x-webkit-csp",
    b"x-xss-protection",
)
"""Prefixes of the `x-` fields that browsers read."""

_TOKEN = rb"[!#$%&'+.^_`|~0-9A-Za-z-]+"  # without `*`, which has no meaning in a content type
_PARAMETER = rb"[ \t]*(?:(%b)=(%b|\"[^\"\\\x00-\x08\x0a-\x1f\x7f-\xff]*\")[ \t]*)?" % (_TOKEN, _TOKEN)
_MEDIA_TYPE = re.compile(rb"(%b/%b)[ \t]*((?:;%b)*)" % (_TOKEN, _TOKEN, _PARAMETER))
_PARAMETERS = re.compile(rb";" + _PARAMETER)
UNKNOWN_TYPES = frozenset({b"application/unknown", b"unknown/unknown"})
"""Content types that make browsers guess the type, as `*/*` and a missing type do."""
REPLACING_TYPE = b"multipart/x-mixed-replace"
"""Content type whose parts are separate documents, each with its own header fields."""

_REFERENCE = re.compile(rb"(?:https?:|(?![a-z][a-z0-9+.-]*:))[!-~\x80-\xff]*", re.IGNORECASE)
"""Matches a reference that is relative or leads to HTTP, and not to `javascript:` or `data:`."""
_CHALLENGE = re.compile(
    rb"(?:bearer|dpop|signature)\b(?!.*\b(?:basic|digest|negotiate|ntlm)\b).*", re.IGNORECASE
)
"""Matches a challenge for which no browser asks its user for a password."""
_LINK = rb"<[^<>\"\s]*>(?:[ \t]*;[ \t]*%b=(?:%b|\"[^\"\\]*\"))*" % (_TOKEN, _TOKEN)
_LINKS = re.compile(rb"%b(?:[ \t]*,[ \t]*%b)*" % (_LINK, _LINK))
_RELATIONS = re.compile(rb";[ \t]*rel=(?:\"([^\"]*)\"|(%b))" % _TOKEN, re.IGNORECASE)
INERT_RELATIONS = frozenset(
    b"""
    about alternate author bookmark canonical collection copyright current deprecation describedby edit edit-media
    first help item last latest-version license next payment predecessor-version prev previous profile related section
    self service-desc service-doc service-meta start status successor-version sunset tag terms-of-service type up
    version-history via working-copy
    """.split()
)
"""Relations of a `Link` for which no browser loads anything. Relations that are URLs are inert too."""


def response_headers(headers: Sequence[tuple[bytes, bytes]], web: bool, typed: bool = True) -> Pairs:
    """Return the function's headers as the caller will see them, without the length.

    Names are in lower case. Without `web` the function must not act for our origin. So only allowed fields pass, with
    one content type that browsers trust, and with a sandbox. Applying this twice changes nothing more. With `typed`
    an answer without a content type gets one, as its last field; a 304 must not get one.
    """
    listed = listed_by_connection(headers)
    kept = [
        (name, value)
        for name, value in headers
        if (plain := as_servers_read(name)) not in NOT_FROM_FUNCTION
        and plain not in listed
        and not plain.startswith(NOT_FROM_ANY_FUNCTION)
    ]
    if web:
        return kept
    types = [value for name, value in kept if name == b"content-type"]
    safe = [(name, value) for name, value in kept if is_harmless(name, value)]
    if types:
        return [*safe, (b"content-type", safe_content_type(types)), *FROM_FUNCTION]
    return [*safe, *UNTYPED] if typed else [*safe, *FROM_FUNCTION]


def without_added_type(headers: Pairs) -> Pairs:
    """Return `response_headers` without the content type that we added, if we did.

    Accepted calls keep the answer as it came: a workflow finds out the type itself.
    """
    return headers[:-1] if tuple(headers[-len(UNTYPED) :]) == UNTYPED else headers


@lru_cache(maxsize=512)
def response_lines(headers: tuple[tuple[bytes, bytes], ...], web: bool) -> bytes:
    """Return `response_headers` as text for a connection. Cached: most functions answer with the same fields."""
    return b"\r\n".join([*map(b": ".join, response_headers(headers, web)), b""])


def as_servers_read(name: bytes) -> bytes:
    """Return a field's name as read by servers that treat `_` as `-`."""
    return name.replace(b"_", b"-")


def listed_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
    """Return the names of fields that `Connection` limits to the next hop."""
    return {
        as_servers_read(token.strip().lower())
        for name, value in headers
        if name == b"connection" and value.lower() not in (b"keep-alive", b"close")
        for token in value.split(b",")
    }


def is_harmless(name: bytes, value: bytes) -> bool:
    """Return whether a function without `web: true` may set this field. `name` is in lower case.

    False for `content-type`, which never passes unchanged.
    """
    if name.startswith(PASSED_PREFIXES):
        return not as_servers_read(name).startswith(READ_BY_BROWSERS)
    if name not in PASSED:
        return False
    if name in (b"location", b"content-location"):
        return _REFERENCE.fullmatch(value) is not None
    if name == b"www-authenticate":
        return _CHALLENGE.fullmatch(value) is not None
    return name != b"link" or _is_inert_link(value)


def safe_content_type(values: Sequence[bytes]) -> bytes:
    """Return one content type that every reader understands in the same way, from the ones an answer has.

    Without one, with several, or with one that leaves the type open, it is `application/octet-stream`.
    """
    stripped = {value.strip(b" \t") for value in values}
    found = _MEDIA_TYPE.fullmatch(stripped.pop()) if len(stripped) == 1 else None
    if found is None:
        return OCTETS
    essence, parameters = found[1].lower(), _PARAMETERS.findall(found[2])
    if essence in UNKNOWN_TYPES or essence == REPLACING_TYPE:
        return OCTETS
    first = {name.lower(): value for name, value in reversed(parameters) if name}
    return b"; ".join([essence, *(b"%b=%b" % (name, first[name]) for name in reversed(first))])


def _is_inert_link(value: bytes) -> bool:
    """Return whether a `Link` only names other resources. A link that we cannot parse is not inert."""
    if _LINKS.fullmatch(value) is None:
        return False
    relations = [quoted or plain for quoted, plain in _RELATIONS.findall(value)]
    return all(
        token in INERT_RELATIONS or b":" in token for each in relations for token in each.lower().split()
    )
