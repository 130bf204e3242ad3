"""Shapes that many answers of the API share: a problem, a moment, a page of a list."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import Query
from pydantic import BaseModel, Field

from gateway.http.problems import Problem
from scheduler.definitions.language.units import parse_duration

PageLimit = Annotated[int, Query(ge=1, le=1000, description="How many a page has at most")]
PageCursor = Annotated[
    str | None, Query(pattern="^[0-9]{1,18}$", description="`cursor` of the page before this one")
]
NEXT_PAGE = (
    "For the next page; null: there is none. A page with a cursor may be short or empty: a bounded number of records "
    "is looked at for each"
)
"""Description of the cursor of a list."""
EVENTS = "text/event-stream"
EVENTS_OPENING = b"retry: 1000\n\n"
"""Bytes that open server-sent events. A browser connects again after so many milliseconds."""
EVENTS_SIGN_OF_LIFE = b":\n\n"
"""Bytes that mean nothing, sent when there was no event for a while."""
NOT_HELD_BACK = {"cache-control": "no-store", "x-accel-buffering": "no"}
"""Fields that keep caches and proxies from holding a stream back."""


class ProblemView(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(
        description="The kind of error, `urn:hearth:problem:` and its slug",
        examples=["urn:hearth:problem:no-such-function"],
    )
    title: str = Field(description="The same for every error of this kind")
    status: int = Field(description="The HTTP status")
    detail: str = Field(description="What happened this time")
    blame: Literal["caller", "function", "platform"] = Field(description="Who has to act")
    pointer: str | None = Field(
        None, description="Only of `input-mismatch`: where in the input the fault is, as a JSON pointer"
    )
    invocation_id: str | None = Field(None, description="Only in answers of `/invoke`")


def place_of(cursor: str | None) -> int | None:
    """Return where a page of a list begins, or None for the first page."""
    return int(cursor) if cursor else None


def moment(seconds: float) -> datetime:
    """Return wall time in seconds as the API shows it."""
    return datetime.fromtimestamp(seconds, UTC)


def duration_of(text: str, name: str) -> float:
    """Return the seconds of a duration in the query. Raises `Problem` 422 about the parameter `name`."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise Problem("invalid-input", f"query.{name}: {error}") from None


def moment_of(text: str, name: str, now: float) -> float:
    """Return the Unix time that a text names: a duration before `now`, or a time of RFC 3339 (UTC without a zone).

    Raises `Problem` 422 about the parameter `name`.
    """
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise Problem(
            "invalid-input",
            f"query.{name}: {text[:40]!r} is no time; write a duration like 10m, or a time like 2026-11-29T12:00:00Z",
        ) from None
