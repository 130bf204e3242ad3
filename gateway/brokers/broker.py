"""What a source needs of a message broker. Each kind is a module of its own, imported when one is declared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

PATIENCE = 10.0
"""Seconds that a server gets to answer."""
QUIET = 5.0
"""Seconds that `Broker.take` waits for a first message."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message as its broker gave it."""

    id: str
    """The same again when the message is delivered again."""
    data: bytes
    content_type: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Of CloudEvents, where the message carries them beside its data."""
    subject: str | None = None
    time: str | None = None
    """When it was published (RFC 3339)."""
    fault: str | None = None
    """Why there is no data in it that could be an event."""
    receipt: Any = None
    """What the broker acknowledges it by."""


class Broker(Protocol):
    """A connection to a queue, opened again after each failure. Every verb may raise what its library raises."""

    address: str
    """Where the messages come from, as a URI without credentials."""

    async def open(self) -> None:
        """Connect, and have the server know us. Messages that were not acknowledged before come again."""

    async def take(self, most: int) -> Sequence[Message]:
        """The next messages, at most so many; none if there were none for a while. May be cancelled."""

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """They are kept: the server may forget them."""

    async def lag(self) -> int | None:
        """How many messages the server has for us that we have not taken; None: it does not say."""

    async def close(self) -> None:
        """Disconnect; harmless if nothing is open."""


def without_credentials(url: str, path: str = "") -> str:
    """A broker's URL without user, password and options, with `path` after its own."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    own = parts.path.rstrip("/")
    return f"{parts.scheme}://{host}{port}{own}{f'/{path}' if path else ''}"
