"""Where callbacks may go: a URL's form, an allow-list of hosts, and which addresses of theirs. Pure functions.

The gateway stands where callers may not: beside databases, metadata services and its own engine. So a name reaches
public addresses only, and any other address only if that address, or its network, is listed as such.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import urlsplit

SETTING = "HEARTH_CALLBACK_ALLOW"
LONGEST_URL = 2000
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""NAT64: the last 32 bits are an IPv4 address."""

Ip = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class CallbackTarget:
    """Where a callback goes: what of its URL decides about that. `host` is a name in lower case or an address."""

    host: str
    port: int
    tls: bool


def parse_callback(url: str) -> CallbackTarget:
    """The place of a URL. Raises ValueError, in words, for one that cannot be a callback's."""
    if len(url) > LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"must be a URL of at most {LONGEST_URL} printable ASCII characters without spaces")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").lower().rstrip(".")
    except ValueError as error:
        raise ValueError(f"is no URL: {error}") from None
    if parts.scheme not in ("http", "https") or "\\" in url:
        raise ValueError("must begin with https:// or http://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password; the signature tells who sends it")
    if parts.fragment:
        raise ValueError("must not have a fragment")
    if as_ip(host) is None and ("[" in parts.netloc or not is_name(host)):
        raise ValueError("must have a host: a name or an address")
    tls = parts.scheme == "https"
    return CallbackTarget(host, port if port is not None else (443 if tls else 80), tls)


def as_ip(host: str) -> Ip | None:
    """The address that a host is; None: it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_name(host: str) -> bool:
    """Whether a host is a name, and no other way to write an address: `127.1` and `0x7f000001` are such ways."""
    last = host.rpartition(".")[2]
    return (
        bool(_NAME.fullmatch(host)) and len(host) <= 253 and not last.isdigit() and not last.startswith("0x")
    )


class Allowed:
    """An allow-list: names (`hooks.example.com`), all below a name (`*.example.com`), all names (`*`), addresses and
    networks (`10.0.0.7`, `10.0.0.0/24`, `::1`). Raises ValueError for an entry that is none of these."""

    def __init__(self, entries: Iterable[str] = ()) -> None:
        self.entries = tuple(entries)
        self._names: set[str] = set()
        self._networks: list[Network] = []
        for entry in self.entries:
            try:
                self._networks.append(ipaddress.ip_network(entry.strip("[]")))
            except ValueError:
                name = entry.lower().rstrip(".")
                if name != "*" and not is_name(name.removeprefix("*.")):
                    raise ValueError(
                        f"{entry!r} is no name like hooks.example.com or *.example.com, no address and no network"
                    ) from None
                self._names.add(name)

    def fault_of(self, url: str) -> str | None:
        """Why a callback may not go to a URL, as far as its text says; None if it may."""
        try:
            place = parse_callback(url)
        except ValueError as error:
            return f"the callback {error}"
        ip = as_ip(place.host)
        if self._has_name(place.host) if ip is None else self._has_address(ip):
            return None
        listed = ", ".join(self.entries) or "nothing"
        return f"a callback to {place.host} is not allowed; {SETTING} has {listed}"

    def usable(self, place: CallbackTarget, addresses: Sequence[str]) -> str | None:
        """The first of a place's addresses that a connection may be made to; None: there is none."""
        for text in addresses:
            ip = as_ip(text)
            if ip is not None and (self._has_address(ip) or (as_ip(place.host) is None and is_public(ip))):
                return text
        return None

    def _has_name(self, name: str) -> bool:
        above = name.split(".")[1:]
        wider = {"*." + ".".join(above[at:]) for at in range(len(above))}
        return "*" in self._names or name in self._names or not wider.isdisjoint(self._names)

    def _has_address(self, ip: Ip) -> bool:
        inner = embedded(ip)
        return any(address in network for network in self._networks for address in (ip, inner))


def is_public(ip: Ip) -> bool:
    """Whether an address is anybody's on the Internet: not loopback, private, link-local, multicast or reserved."""
    inner = embedded(ip)
    if isinstance(ip, IPv6Address) and ip.is_site_local:  # of old; `is_global` does not know it
        return False
    return all(one.is_global and not one.is_multicast and not one.is_reserved for one in {ip, inner})


def embedded(ip: Ip) -> Ip:
    """The IPv4 address that an IPv6 address leads to, if it is of such a kind; else itself."""
    if isinstance(ip, IPv4Address):
        return ip
    if ip in _TRANSLATED:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else ip)
