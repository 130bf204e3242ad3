"""NATS JetStream: pulls messages as a durable consumer of a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NothingCame
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy
from nats.js.errors import NotFoundError

from gateway.brokers.broker import ANSWER_SECONDS, QUIET_SECONDS, LostConnection, Message, without_credentials
from pool.clock import Clock
from scheduler.definitions.brokers import JetStream

ATTRIBUTE_PREFIX = "ce-"
"""Begins the names of headers that are attributes of a CloudEvent (its protocol binding for NATS)."""


class NatsBroker:
    """A `Broker` that pulls one stream. Messages that are not acknowledged within `ack_wait` come again."""

    def __init__(self, definition: JetStream, in_hand: int, clock: Clock) -> None:
        self._clock = clock
        self._definition = definition
        self._url = definition.address
        self._in_hand = in_hand
        self._client: Client | None = None
        self._stream: JetStreamContext | None = None
        self._subscription: JetStreamContext.PullSubscription | None = None
        self._lost: asyncio.Future[None] | None = None
        self._why = ""
        self.address = without_credentials(self._url, definition.stream)

    async def open(self) -> None:
        self._lost, self._why = asyncio.get_running_loop().create_future(), ""
        self._client = Client()
        try:
            async with self._clock.timeout(ANSWER_SECONDS):
                await self._client.connect(
                    self._url,
                    name="hearth",
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=int(ANSWER_SECONDS) // 2,
                    ping_interval=int(ANSWER_SECONDS),
                    max_outstanding_pings=1,
                    error_cb=self._on_error,
                    closed_cb=self._on_closed,
                )
        except nats.errors.NoServersError:
            raise LostConnection(self._why or "no server answers") from None
        self._stream = self._client.jetstream(timeout=ANSWER_SECONDS)
        consumer = await self._consumer(self._stream)
        policy = consumer.config.ack_policy
        if consumer.config.deliver_subject or policy != AckPolicy.EXPLICIT:
            raise ValueError(
                f"the consumer {self._definition.durable} is not one that pulls and acknowledges each message; "
                "name another with `durable`"
            )
        self._subscription = await self._stream.pull_subscribe_bind(
            self._definition.durable, self._definition.stream
        )

    async def _consumer(self, stream: JetStreamContext) -> ConsumerInfo:
        """Return the durable consumer, and make it if it is not there. The settings of an existing one stay."""
        definition = self._definition
        with suppress(NotFoundError):
            known: ConsumerInfo = await stream.consumer_info(definition.stream, definition.durable)
            return known
        try:
            return await stream.add_consumer(
                definition.stream,
                ConsumerConfig(
                    durable_name=definition.durable,
                    filter_subject=definition.subject,
                    ack_policy=AckPolicy.EXPLICIT,
                    deliver_policy=DeliverPolicy.ALL if definition.begin == "oldest" else DeliverPolicy.NEW,
                    max_ack_pending=self._in_hand,
                    ack_wait=definition.ack_wait,
                ),
            )
        except NotFoundError:
            raise ValueError(f"the server has no stream {definition.stream}; create it first") from None

    async def _on_error(self, error: Exception) -> None:
        self._why = str(error) or type(error).__name__

    async def _on_closed(self) -> None:
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)

    async def take(self, most: int) -> Sequence[Message]:
        assert self._subscription is not None and self._lost is not None
        fetching = asyncio.ensure_future(self._subscription.fetch(most, QUIET_SECONDS))
        try:
            await asyncio.wait((fetching, self._lost), return_when=asyncio.FIRST_COMPLETED)
            if self._lost.done():
                raise LostConnection(self._why or "the server has closed the connection")
            return [message_of(message) for message in fetching.result()]
        except NothingCame:
            return []
        finally:
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        await asyncio.gather(*(message.receipt.ack_sync(ANSWER_SECONDS) for message in messages))

    async def lag(self) -> int | None:
        assert self._stream is not None
        definition = self._definition
        info: ConsumerInfo = await self._stream.consumer_info(definition.stream, definition.durable)
        return info.num_pending

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()


def message_of(message: Msg) -> Message:
    """Return a message of a stream. Its id has the time: sequence numbers begin anew with a new stream."""
    metadata = message.metadata
    time = metadata.timestamp.astimezone(UTC)
    headers = {name.lower(): value for name, value in (message.headers or {}).items()}
    return Message(
        id=f"{metadata.sequence.stream}-{int(time.timestamp() * 1_000_000)}",
        data=message.data,
        content_type=headers.get("content-type"),
        attributes={
            name.removeprefix(ATTRIBUTE_PREFIX): value
            for name, value in headers.items()
            if name.startswith(ATTRIBUTE_PREFIX)
        },
        subject=message.subject,
        time=time.isoformat(timespec="milliseconds"),
        receipt=message,
    )
