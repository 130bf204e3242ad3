"""Where the gateway is, and the key for it."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_URL = "http://127.0.0.1:8080"
KEY = re.compile(r"hth_[!-~]+")


@dataclass(frozen=True)
class Address:
    """A gateway's URL and the key that it wants, if it wants one."""

    url: str
    key: str | None = field(default=None, repr=False)

    @classmethod
    def find(cls, url: str | None, key: str | None) -> Address:
        """Return the given address, completed from HEARTH_URL, HEARTH_API_KEY_FILE and HEARTH_API_KEY.

        Raises `ValueError` for what is neither a gateway's URL nor a key, and `OSError` for an unreadable file.
        """
        url = url or os.environ.get("HEARTH_URL") or DEFAULT_URL
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url} is not a gateway's address; use one like {DEFAULT_URL}")
        if key is None and (file := os.environ.get("HEARTH_API_KEY_FILE")):
            key = Path(file).read_text().strip()
        key = key or os.environ.get("HEARTH_API_KEY", "").strip() or None
        if key is not None and not KEY.fullmatch(key):
            raise ValueError("the given key is not a key of Hearth; use one like hth_ID_SECRET")
        return cls(url.rstrip("/"), key)

    @property
    def is_loopback(self) -> bool:
        """Return whether the gateway is on this machine, where no proxy can reach it."""
        host = urlsplit(self.url).hostname or ""
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    @property
    def is_plain_loopback(self) -> bool:
        """Return whether no TLS is ever used: then nobody need read this machine's certificates, which takes long."""
        return self.is_loopback and self.url.startswith("http://")

    def fields(self, headers: dict[str, str]) -> dict[str, str]:
        """Return header fields with the key. `authorization` among them is for the function."""
        if self.key is None:
            return headers
        names = {name.lower() for name in headers}
        if "authorization" in names:
            return {**headers, "x-hearth-key": self.key}
        return {**headers, "authorization": f"Bearer {self.key}"}
