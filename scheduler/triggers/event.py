"""An event as triggers see it: the attributes of CloudEvents 1.0 as text, and its data as bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

REQUIRED = ("specversion", "id", "source", "type")


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `attributes` has at least those of `REQUIRED`, all with a value; `time` is text of RFC 3339."""

    attributes: dict[str, str]
    data: bytes = b""

    @property
    def id(self) -> str:
        """Unique for its source: the same of both is the same event."""
        return self.attributes["id"]

    @property
    def source(self) -> str:
        """Where it happened, a URI or a path."""
        return self.attributes["source"]

    @property
    def type(self) -> str:
        """What happened, like `com.example.order.paid`."""
        return self.attributes["type"]

    @property
    def content_type(self) -> str | None:
        """Media type of `data`; None: it is not said."""
        return self.attributes.get("datacontenttype")


Publish = Callable[[Event], Awaitable[int]]
"""Start what an event starts. Returns how many starts that were once they are on disk, those that an earlier delivery
of the same event has made included: then its sender may forget it. Raises `StoreError`: then it has to send again."""
