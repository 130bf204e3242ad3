"""The check that keeps other people's web pages from a gateway on loopback. Programs of this machine pass it.

A browser sends requests for any page that it shows. Two tricks reach a server on loopback. A page posts to it (CSRF):
Origin and Sec-Fetch-Site show that. Or a name of the page's own points to 127.0.0.1 (DNS rebinding): Host shows that.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from gateway.http.loopback import is_loopback
from gateway.http.problems import Problem

CHECKED = frozenset({b"host", b"origin", b"sec-fetch-site"})
FROM_ANOTHER_SITE = frozenset({b"cross-site", b"same-site"})
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
DEFAULT_PORTS = {b"http": 80, b"https": 443}
_AUTHORITY = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._~!$&'()*+,;=-]{1,255}))(?::([0-9]{1,5}))?"
)
"""`uri-host [":" port]` of RFC 9110, 7.2, without what no client needs: percent signs, zones, an empty port."""
_ORIGIN = re.compile(rb"(https?)://([^/]+)", re.IGNORECASE)
MOST_REMEMBERED_HOSTS = 64
"""Bound of the Host fields that are remembered: a client can make up one for each port."""


class Guard:
    """The check of Host, Origin and Sec-Fetch-Site. It is active if the gateway listens on loopback only."""

    def __init__(self, host: str, allowed_hosts: Iterable[str] = ()) -> None:
        self._active = is_loopback(host)
        self._names = LOOPBACK_NAMES | {_normal(name) for name in (host, *allowed_hosts)}
        self._known: set[bytes] = set()
        """Host fields that passed. Nearly every request carries the same one."""

    @property
    def remembered_hosts(self) -> int:
        """Return how many Host fields are remembered: up to `MOST_REMEMBERED_HOSTS`."""
        return len(self._known)

    def fault(self, scope: Mapping[str, Any]) -> Problem | None:
        """Return the problem that refuses a request, or None if it may be served."""
        if not self._active:
            return None
        host = None
        origins: tuple[bytes, ...] = ()
        sites: tuple[bytes, ...] = ()
        for name, value in scope["headers"]:
            if name not in CHECKED:
                continue
            if name == b"host":
                host = value
            elif name == b"origin":
                origins += (value,)
            elif name == b"sec-fetch-site":
                sites += (value,)
        if host not in self._known:
            authority = authority_of(host or b"")
            if host is None or authority is None or authority.name not in self._names:
                return Problem(
                    "forbidden",
                    f"this gateway does not answer to the Host {(host or b'').decode('latin-1')!r}; "
                    "HEARTH_ALLOWED_HOSTS can add it",
                )
            if len(self._known) < MOST_REMEMBERED_HOSTS:
                self._known.add(host)
        for origin in origins:
            if not is_origin_of(origin, host):
                return Problem("forbidden", f"a page of {origin.decode('latin-1')} may not call this gateway")
        if sites and not FROM_ANOTHER_SITE.isdisjoint(sites) and not self._is_visit(scope):
            return Problem("forbidden", "a page of another site may not call this gateway")
        return None

    def _is_visit(self, scope: Mapping[str, Any]) -> bool:
        """Return whether a request may come from a link on another site. A call of a function may not."""
        return scope["method"] in ("GET", "HEAD") and not scope["path"].startswith("/invoke/")


class Authority(NamedTuple):
    """The host that a request is for: a name in lower case or an address, and a port or None."""

    name: str
    port: int | None


def authority_of(field: bytes) -> Authority | None:
    """Return the authority of a Host field, or None if RFC 9110 does not allow the field."""
    found = _AUTHORITY.fullmatch(field)
    if found is None:
        return None
    address, name, port = found.groups()
    number = None if port is None else int(port)
    if number is not None and not 0 < number < 65536:
        return None
    if address is None:
        return Authority(name.decode().lower(), number)
    try:
        return Authority(str(ipaddress.IPv6Address(address.decode())), number)
    except ValueError:
        return None


def is_origin_of(origin: bytes, host: bytes) -> bool:
    """Return whether an Origin field names the origin that a Host field belongs to. `null` names none."""
    found = _ORIGIN.fullmatch(origin)
    if found is None:
        return False
    default = DEFAULT_PORTS[found[1].lower()]
    ours, theirs = authority_of(host), authority_of(found[2])
    if ours is None or theirs is None:
        return False
    return (ours.name, ours.port or default) == (theirs.name, theirs.port or default)


def host_names(entries: list[str]) -> list[str]:
    """Return the names of a setting, checked. Raises ValueError for one that no Host field could ever match."""
    for entry in entries:
        address = f"[{entry}]" if ":" in entry and not entry.startswith("[") else entry
        authority = authority_of(address.encode())
        if authority is None or authority.port is not None:
            raise ValueError(f"must be names or addresses alone, like hearth.example, not {entry!r}")
    return entries


def _normal(name: str) -> str:
    """Return a name of a setting as `Authority` has it."""
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return name.lower()
