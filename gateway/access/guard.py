"""Who may speak to a gateway without keys: programs of this machine, and no web page of somebody else.

A browser sends requests for any page it shows. Two tricks reach a server on loopback: a page posts to it (CSRF,
seen by Origin and Sec-Fetch-Site), or a name of the page's own is made to point to 127.0.0.1 (DNS rebinding, seen
by Host).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

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
MOST_REMEMBERED = 64
"""Host fields that are remembered; a client can make up as many as there are ports."""


class Guard:
    """Checks Host, Origin and Sec-Fetch-Site where the gateway listens on loopback only."""

    def __init__(self, host: str, allowed_hosts: Iterable[str] = ()) -> None:
        self._active = is_loopback(host)
        self._names = LOOPBACK_NAMES | {_normal(name) for name in (host, *allowed_hosts)}
        self._known: set[bytes] = set()
        """Host fields that were found right: nearly every request carries the same one."""

    def fault(self, scope: Mapping[str, Any]) -> Problem | None:
        """Why a request is not served; None if it is."""
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
            if len(self._known) < MOST_REMEMBERED:
                self._known.add(host)
        for origin in origins:
            if not is_origin_of(origin, host):
                return Problem("forbidden", f"a page of {origin.decode('latin-1')} may not call this gateway")
        if sites and not FROM_ANOTHER_SITE.isdisjoint(sites) and not self._is_visit(scope):
            return Problem("forbidden", "a page of another site may not call this gateway")
        return None

    def _is_visit(self, scope: Mapping[str, Any]) -> bool:
        """Following a link from elsewhere to a page of ours is fine; calling a function that way is not."""
        return scope["method"] in ("GET", "HEAD") and not scope["path"].startswith("/invoke/")


class Authority(NamedTuple):
    """The host that a request is for: a name in lower case or an address, and a port if it says one."""

    name: str
    port: int | None


def authority_of(field: bytes) -> Authority | None:
    """Return what a Host field says, or None if it is not written as RFC 9110 has it."""
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


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
