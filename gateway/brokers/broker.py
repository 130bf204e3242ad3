"""A connection to a message broker. Each kind of broker is one module, imported when a definition names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

ANSWER_SECONDS = 10.0
"""Time that a server gets to answer: after that the connection is opened again."""
QUIET_SECONDS = 5.0
"""Time that `Broker.take` waits for a first message before it returns none."""


class LostConnection(Exception):
    """The server has gone, does not answer, or refuses."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message as its broker gave it."""

    id: str
    """The same for every delivery of one message."""
    data: bytes
    content_type: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Attributes of a CloudEvent that the message carries beside its data."""
    subject: str | None = None
    time: str | None = None
    """Time at which it was published (RFC 3339)."""
    fault: str | None = None
    """The reason why it has no data that could be an event, or None."""
    receipt: Any = None
    """Handle by which the broker acknowledges it."""


class Broker(Protocol):
    """A connection to a queue, opened again after each failure. Every verb may raise what its library raises."""

    address: str
    """Place of the queue, as a URI without credentials."""

    async def open(self) -> None:
        """Connect, and have the server know us. Messages that were not acknowledged before come again."""

    async def take(self, most: int) -> Sequence[Message]:
        """Return the next messages, at most so many, or none if none came for a while. It may be cancelled."""

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """Tell the server that these are kept: it may forget them."""

    async def lag(self) -> int | None:
        """Return how many messages the server has for us that we have not taken, or None if it does not say."""

    async def close(self) -> None:
        """Disconnect. Harmless if nothing is open."""


def without_credentials(url: str, path: str = "") -> str:
    """Return a broker's URL without user, password and options, with `path` after its own."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    own = parts.path.rstrip("/")
    return f"{parts.scheme}://{host}{port}{own}{f'/{path}' if path else ''}"
