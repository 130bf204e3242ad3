"""Allow-list of callback URLs: the form of a URL, its host, and the addresses of that host. Pure functions.

The gateway can reach what callers may not: databases, metadata services, its own engine. So a host name may lead to
public addresses only. Any other address must be listed itself, or its network.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import urlsplit

SETTING = "HEARTH_CALLBACK_ALLOW"
MAX_URL_CHARACTERS = 2000
"""Every common browser, proxy and server takes a URL of this length."""
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""NAT64: the last 32 bits are an IPv4 address."""

Ip = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class CallbackTarget:
    """The server that a callback URL names. `host` is a name in lower case, or an address."""

    host: str
    port: int
    tls: bool


def parse_callback(url: str) -> CallbackTarget:
    """Return the server that a URL names. Raises ValueError with the reason if it cannot be a callback URL."""
    if len(url) > MAX_URL_CHARACTERS or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(
            f"must be a URL of at most {MAX_URL_CHARACTERS} printable ASCII characters without spaces"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").lower().rstrip(".")
    except ValueError as error:
        raise ValueError(f"is not a URL: {error}") from None
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
    """Return a host as an IP address, or None if it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_name(host: str) -> bool:
    """Return whether a host is a name. `127.1` and `0x7f000001` are not: they are other ways to write an address."""
    last = host.rpartition(".")[2]
    return (
        bool(_NAME.fullmatch(host)) and len(host) <= 253 and not last.isdigit() and not last.startswith("0x")
    )


class Allowed:
    """An allow-list of hosts. Raises ValueError for an entry of another form.

    Entries are names (`hooks.example.com`), all names below one (`*.example.com`), all names (`*`), addresses and
    networks (`10.0.0.7`, `10.0.0.0/24`, `::1`).
    """

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
                        f"{entry!r} is not valid; write a name like hooks.example.com or *.example.com, "
                        "an address or a network"
                    ) from None
                self._names.add(name)

    def fault_of(self, url: str) -> str | None:
        """Return why the text of a URL rules it out as a callback, or None if it is allowed."""
        try:
            target = parse_callback(url)
        except ValueError as error:
            return f"the callback {error}"
        ip = as_ip(target.host)
        if self._has_name(target.host) if ip is None else self._has_address(ip):
            return None
        listed = ", ".join(self.entries) or "nothing"
        return f"a callback to {target.host} is not allowed; {SETTING} has {listed}"

    def usable(self, target: CallbackTarget, addresses: Sequence[str]) -> str | None:
        """Return the first address of a host that we may connect to, or None if there is none."""
        for text in addresses:
            ip = as_ip(text)
            if ip is not None and (self._has_address(ip) or (as_ip(target.host) is None and is_public(ip))):
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
    """Return whether an address is public: not loopback, private, link-local, multicast or reserved."""
    inner = embedded(ip)
    if (
        isinstance(ip, IPv6Address) and ip.is_site_local
    ):  # deprecated by RFC 3879; `is_global` does not know it
        return False
    return all(one.is_global and not one.is_multicast and not one.is_reserved for one in {ip, inner})


def embedded(ip: Ip) -> Ip:
    """Return the IPv4 address inside an IPv6 address (mapped, 6to4, Teredo, NAT64), else the address itself."""
    if isinstance(ip, IPv4Address):
        return ip
    if ip in _TRANSLATED:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else ip)
