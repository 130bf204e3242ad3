"""Answers about message brokers and their queues."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from gateway.api.views import moment
from gateway.brokers.consumer import Consumer, ConsumerState


class SourceView(BaseModel):
    """A queue whose messages are events."""

    name: str = Field(examples=["orders"])
    kind: Literal["redis", "nats", "mqtt"]
    address: str = Field(
        description="Where the messages come from, without credentials",
        examples=["redis://127.0.0.1:6379/0/orders"],
    )
    function: str | None = Field(description="What is called with each event; null: the triggers are asked")
    state: ConsumerState = Field(
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


def source_view(consumer: Consumer) -> SourceView:
    """Return a queue as the API shows it."""
    definition = consumer.definition
    return SourceView(
        name=consumer.name,
        kind=definition.kind,  # type: ignore[arg-type]
        address=consumer.broker.address,
        function=definition.function,
        state=consumer.state,
        in_hand=consumer.in_hand,
        lag=consumer.lag,
        counts=dict(consumer.counts),
        last=None if consumer.last_at is None else moment(consumer.last_at),
        error=consumer.error,
        error_at=None if consumer.error_at is None else moment(consumer.error_at),
    )
