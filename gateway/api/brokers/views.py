"""Answers about message brokers and their queues."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from gateway.api.views import moment
from gateway.brokers.consumer import Source, State


class SourceView(BaseModel):
    """A queue whose messages are events."""

    name: str = Field(examples=["orders"])
    kind: Literal["redis", "nats", "mqtt"]
    address: str = Field(
        description="Where the messages come from, without credentials",
        examples=["redis://127.0.0.1:6379/0/orders"],
    )
    function: str | None = Field(description="What is called with each event; null: the triggers are asked")
    state: State = Field(
        description="`paused`: the store does not take what is in hand, and nothing more is taken"
    )
    in_hand: int = Field(description="Messages that are taken and not yet acknowledged")
    lag: int | None = Field(
        description="Messages that the server has for us, as it said a few seconds ago; null: it does not say"
    )
    counts: dict[str, int] = Field(
        description="Messages since the source was started, by what became of them",
        examples=[{"started": 17, "unmatched": 2}],
    )
    last: datetime | None = Field(description="When a message was dealt with last, since then")
    error: str | None = Field(description="What went wrong last, also if it is over")
    error_at: datetime | None


def source_view(source: Source) -> SourceView:
    """Return a queue as the API shows it."""
    definition = source.definition
    return SourceView(
        name=source.name,
        kind=definition.kind,  # type: ignore[arg-type]
        address=source.broker.address,
        function=definition.function,
        state=source.state,
        in_hand=source.in_hand,
        lag=source.lag,
        counts=dict(source.counts),
        last=None if source.last_at is None else moment(source.last_at),
        error=source.error,
        error_at=None if source.error_at is None else moment(source.error_at),
    )
