"""MQTT 5: subscribes with QoS 1 in a session that the server keeps. The client has a thread of its own."""

from __future__ import annotations

import asyncio
import ssl
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import SplitResult, unquote

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from gateway.brokers.broker import ANSWER_SECONDS, QUIET_SECONDS, LostConnection, Message, without_credentials
from pool.clock import Clock, wake
from scheduler.definitions.brokers import MqttTopic, split_url

KEEP_ALIVE_SECONDS = 20
"""Time without a packet until the server is asked whether it is still there."""
FAREWELL_SECONDS = 2.0
"""Time that the server gets to read our last acknowledgements when we leave."""
NO_TOPIC = "hearth/none"
"""A topic that we never subscribed to. We unsubscribe from it, because we need the answer."""
MOST_UNPROMISED = 1000
"""Messages of QoS 0 that may wait: the server does not hold them back, and nobody has promised them."""


class MqttBroker:
    """A `Broker` with one subscription. Messages that were not acknowledged come again when we connect again."""

    def __init__(
        self, definition: MqttTopic, client_id: str, in_hand: int, clock: Clock, on_drop: Callable[[], None]
    ) -> None:
        self._definition = definition
        self._url = definition.address
        self._client_id = definition.client_id or client_id
        self._in_hand = in_hand
        self._clock = clock
        self._client: Client | None = None
        self._arrived: deque[Message] = deque()
        self._news: asyncio.Future[None] | None = None
        """Done when a message has come or the connection has ended; None if nobody waits for it."""
        self._lost: str | None = None
        self._unread = False
        """True if the server may not have read all acknowledgements yet."""
        self._answer: asyncio.Future[None] | None = None
        """Done when the server has read them; None if nobody waits for it."""
        self._ids: dict[int, tuple[bytes, str]] = {}
        """Messages that are not acknowledged, by the server's number: the message's digest, and its id from us."""
        self._on_drop = on_drop
        self.address = without_credentials(self._url)

    async def open(self) -> None:
        self._arrived.clear()
        self._lost = None
        self._unread = False
        parts = split_url(self._url, self._definition.SCHEMES)
        secure = parts.scheme == "mqtts"
        client = self._client = self._new_client(parts, secure)
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._have_told(client, answered)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = int(self._definition.session)
        properties.ReceiveMaximum = self._in_hand
        await asyncio.to_thread(
            client.connect,
            str(parts.hostname),
            parts.port or (8883 if secure else 1883),
            KEEP_ALIVE_SECONDS,
            clean_start=False,
            properties=properties,
        )
        client.loop_start()
        timer = self._clock.call_later(
            ANSWER_SECONDS, self._disconnected, client, "no answer in time", answered
        )
        try:
            await answered
        finally:
            timer.cancel()
        if self._lost is not None:
            raise LostConnection(self._lost)

    def _new_client(self, parts: SplitResult, secure: bool) -> Client:
        """Return a client that is not connected yet, with the credentials of the URL."""
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        if parts.username is not None:
            client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        if secure:
            client.tls_set_context(ssl.create_default_context())
        return client

    def _have_told(self, client: Client, answered: asyncio.Future[None]) -> None:
        """Have the client's thread tell the event loop what happens. `answered` is done when we are subscribed."""
        loop = asyncio.get_running_loop()

        def told(callback: Callable[..., None], *args: Any) -> None:
            loop.call_soon_threadsafe(callback, *args)

        def on_connect(_: object, __: object, flags: Any, reason: Any, ___: object) -> None:
            told(self._connected, bool(flags.session_present), reason.is_failure, str(reason), answered)

        def on_subscribe(_: object, __: object, ___: int, reasons: Any, ____: object) -> None:
            refused = next((str(reason) for reason in reasons if reason.is_failure), None)
            told(self._subscribed, refused, answered)

        def on_message(_: object, __: object, message: MQTTMessage) -> None:
            told(self._take_in, client, message)

        def on_disconnect(_: object, __: object, ___: object, reason: Any, ____: object) -> None:
            why = "the connection was lost" if reason == "Unspecified error" else str(reason)
            told(self._disconnected, client, why, answered)

        def on_unsubscribe(_: object, __: object, ___: int, ____: object, _____: object) -> None:
            told(self._answered)

        client.on_connect = on_connect
        client.on_subscribe = on_subscribe
        client.on_unsubscribe = on_unsubscribe
        client.on_message = on_message
        client.on_disconnect = on_disconnect

    # -- told by the client's thread ---------------------------------------------------------------------

    def _connected(self, resumed: bool, refused: bool, reason: str, answered: asyncio.Future[None]) -> None:
        if refused or self._client is None:
            self._lost = reason
            wake(answered)
            return
        if not resumed:
            self._ids.clear()  # a new session uses the same numbers for other messages
        # Without this, the server would send its retained messages again on each connection.
        options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        try:
            self._client.subscribe(self._definition.topic, options=options)
        except ValueError as error:
            self._subscribed(str(error), answered)

    def _subscribed(self, refused: str | None, answered: asyncio.Future[None]) -> None:
        if refused is not None:
            self._lost = f"{self._definition.topic}: {refused}"
        wake(answered)

    def _disconnected(self, client: Client, reason: str, answered: asyncio.Future[None]) -> None:
        if client is not self._client:
            return
        self._lost = self._lost or reason
        wake(answered)
        self._tell()
        self._answered()

    def _answered(self) -> None:
        if self._answer is not None:
            wake(self._answer)

    def _take_in(self, client: Client, message: MQTTMessage) -> None:
        if client is not self._client:
            return
        if message.qos == 0 and len(self._arrived) >= MOST_UNPROMISED:
            self._on_drop()
            return
        self._arrived.append(message_of(message, self._id_of(message)))
        self._tell()

    def _tell(self) -> None:
        if self._news is not None:
            wake(self._news)

    def _id_of(self, message: MQTTMessage) -> str:
        """Return an id of our own for a message, because MQTT uses its numbers again and again.

        A message that comes again while we remember it keeps its id.
        """
        if message.qos == 0:
            return uuid.uuid4().hex
        digest = sha256(message.topic.encode() + b"\0" + message.payload).digest()
        known = self._ids.get(message.mid)
        if known is None or not message.dup or known[0] != digest:
            known = self._ids[message.mid] = (digest, uuid.uuid4().hex)
        return known[1]

    # -- asked for by the consumer ---------------------------------------------------------------------------

    async def take(self, most: int) -> Sequence[Message]:
        if not self._arrived and self._lost is None:
            self._news = asyncio.get_running_loop().create_future()
            timer = self._clock.call_later(QUIET_SECONDS, self._tell)
            try:
                await self._news
            finally:
                timer.cancel()
                self._news = None
        if self._lost is not None:
            raise LostConnection(self._lost)
        return [self._arrived.popleft() for _ in range(min(most, len(self._arrived)))]

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        if self._lost is not None or self._client is None:
            raise LostConnection(self._lost or "not connected")  # a number means another message after that
        for number in (message.receipt for message in messages if message.receipt is not None):
            self._client.ack(number, 1)
            self._ids.pop(number, None)
            self._unread = True

    async def lag(self) -> int | None:
        return None  # the protocol has no question for it

    async def close(self) -> None:
        if self._client is None:
            return
        try:
            if self._unread and self._lost is None:
                await self._be_read(self._client)
        finally:
            client, self._client = self._client, None
            client.disconnect()
            await asyncio.to_thread(client.loop_stop)

    async def _be_read(self, client: Client) -> None:
        """Return when the server has read all acknowledgements: it answers in order.

        A server that is just sending would else notice first that we have gone, and give those messages again.
        """
        self._answer = asyncio.get_running_loop().create_future()
        timer = self._clock.call_later(FAREWELL_SECONDS, self._answered)
        try:
            client.unsubscribe(NO_TOPIC)
            await self._answer
        finally:
            timer.cancel()
            self._answer = None


def message_of(message: MQTTMessage, id: str) -> Message:
    """Return a message with its topic as the subject.

    User properties are attributes of a CloudEvent if one of them is `specversion` (the protocol binding for MQTT).
    """
    properties = message.properties
    pairs: list[tuple[str, str]] = getattr(properties, "UserProperty", [])
    return Message(
        id=id,
        data=bytes(message.payload),
        content_type=getattr(properties, "ContentType", None),
        # Publishers add properties of their own. One that cannot name an attribute is left out.
        attributes={name: value for name, value in pairs if name.isascii() and name.isalnum()}
        if any(name == "specversion" for name, _ in pairs)
        else {},
        subject=message.topic,
        receipt=message.mid if message.qos else None,
    )
