"""Event as triggers see it: the attributes of CloudEvents 1.0 as text, and the data as bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

REQUIRED = ("specversion", "id", "source", "type")


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `attributes` has values for all of `REQUIRED`; `time` is text of RFC 3339."""

    attributes: dict[str, str]
    data: bytes = b""

    @property
    def id(self) -> str:
        """Return its id. Two events with the same source and id are the same event."""
        return self.attributes["id"]

    @property
    def source(self) -> str:
        """Return its origin, a URI or a path."""
        return self.attributes["source"]

    @property
    def type(self) -> str:
        """Return its type, like `com.example.order.paid`."""
        return self.attributes["type"]

    @property
    def content_type(self) -> str | None:
        """Return the media type of `data`, or None if it is not given."""
        return self.attributes.get("datacontenttype")


Publish = Callable[[Event], Awaitable[int]]
"""Start the actions of an event; return their number once they are on disk, so that the sender may forget the event.

Actions that an earlier delivery of the same event started count too. After a `StoreError` the sender must repeat it.
"""
