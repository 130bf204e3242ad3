"""Who may speak to a gateway without keys: programs of this machine, and no web page of somebody else.

A browser sends requests for any page it shows. Two tricks reach a server on loopback: a page posts to it (CSRF,
seen by Origin and Sec-Fetch-Site), or a name of the page's own is made to point to 127.0.0.1 (DNS rebinding, seen
by Host).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from gateway.problems import Problem

CHECKED = frozenset({b"host", b"origin", b"sec-fetch-site"})
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class Guard:
    """Checks Host, Origin and Sec-Fetch-Site where the gateway listens on loopback only."""

    def __init__(self, host: str, allowed_hosts: Iterable[str] = ()) -> None:
        self._active = is_loopback(host)
        self._names = LOOPBACK_NAMES | {host.lower()} | {name.lower() for name in allowed_hosts}
        self._known: set[bytes] = set()
        """Host fields that were found right: nearly every request carries the same one."""

    def fault(self, scope: Mapping[str, Any]) -> Problem | None:
        """Why a request is not served; None if it is."""
        if not self._active:
            return None
        host = origin = site = None
        for name, value in scope["headers"]:
            if name not in CHECKED:
                continue
            if name == b"host":
                host = value
            elif name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
        if host not in self._known:
            if host is None or name_of(host) not in self._names:
                return Problem(
                    "forbidden",
                    f"this gateway does not answer to the Host {(host or b'').decode('latin-1')!r}; "
                    "HEARTH_ALLOWED_HOSTS adds names",
                )
            if len(self._known) < 64:
                self._known.add(host)
        if origin is not None and not self._is_own(origin, host or b""):
            return Problem("forbidden", f"a page of {origin.decode('latin-1')} may not call this gateway")
        if site in (b"cross-site", b"same-site") and not self._is_visit(scope):
            return Problem("forbidden", "a page of another site may not call this gateway")
        return None

    def _is_own(self, origin: bytes, host: bytes) -> bool:
        try:
            parts = urlsplit(origin.decode("latin-1"))
        except ValueError:
            return False
        return parts.netloc.lower() == host.decode("latin-1").lower()

    def _is_visit(self, scope: Mapping[str, Any]) -> bool:
        """Following a link from elsewhere to a page of ours is fine; calling a function that way is not."""
        return scope["method"] in ("GET", "HEAD") and not scope["path"].startswith("/invoke/")


def name_of(host: bytes) -> str:
    """The name in a Host field, without its port, in lower case; empty if it is none."""
    try:
        return (urlsplit(f"//{host.decode('latin-1')}").hostname or "").lower()
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
