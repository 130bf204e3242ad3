"""The type of what a handler is told about its call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable


@runtime_checkable
class Context(Protocol):
    """Facts that a handler is told about its call, beside the event.

        def handle(event: dict[str, str], context: hearth.Context) -> dict[str, str]: ...

    A function needs no hearth-client for this type: its instance has one of this name.
    """

    invocation_id: str
    """Id of this call. `hearth logs ID` shows what it printed."""
    function: str
    version: str
    """Id of the function's revision."""
    method: str
    path: str
    """Path as it was sent, percent-encoded."""
    query_string: str
    """Query as it was sent, percent-encoded."""
    deadline: float
    """Unix time at which the gateway ends the call and its instance."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the request's headers. Names are in lower case, and looked up in any case."""

    @property
    def query(self) -> dict[str, str]:
        """Return the decoded parameters of the query. If a name is repeated, the last one counts."""

    def remaining(self) -> float:
        """Return the seconds until the deadline, never below 0."""
