"""What a source needs of each message broker, on the real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import nats
import paho.mqtt.client as mqtt
import pytest
from brokers import Mosquitto, NatsServer, RedisServer
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.brokers import mqtt as mqtt_source
from gateway.brokers import nats as nats_source
from gateway.brokers.broker import ANSWER_SECONDS, Broker, Message
from gateway.brokers.mqtt import MqttBroker
from gateway.brokers.nats import NatsBroker
from gateway.brokers.redis import RedisBroker
from pool.clock import LoopClock
from scheduler.definitions.brokers import JetStream, MqttTopic, RedisStream


async def taken(broker: Broker, count: int) -> list[Message]:
    """So many messages, however many calls they take."""
    messages: list[Message] = []
    async with asyncio.timeout(30):
        while len(messages) < count:
            messages += await broker.take(count - len(messages))
    return messages


def data_of(messages: Sequence[Message]) -> list[bytes]:
    return [message.data for message in messages]


# -- Redis ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[tuple[RedisServer, Any]]:
    with RedisServer(tmp_path) as server:
        client = Redis.from_url(server.url)
        yield server, client
        await client.aclose()


def redis_broker(server: RedisServer, consumer: str = "us", **keys: object) -> RedisBroker:
    definition = RedisStream.model_validate({"url": server.url, "stream": "orders", **keys})
    return RedisBroker(definition, consumer, LoopClock())


async def test_redis_gives_again_what_was_not_acknowledged(redis: tuple[RedisServer, Any]) -> None:
    server, client = redis
    broker = redis_broker(server, field="body")
    await client.xadd("orders", {"body": b"old"})
    await broker.open()
    for text in (b"\xff", b"2", b"3"):
        await client.xadd("orders", {"body": text})
    first = await taken(broker, 3)
    assert data_of(first) == [b"old", b"\xff", b"2"] and await broker.lag() == 1
    await broker.acknowledge(first[1:2])
    await broker.close()
    await broker.open()
    again = await taken(broker, 3)
    assert [m.id for m in again[:2]] == [first[0].id, first[2].id] and again[2].data == b"3"
    await broker.acknowledge(again)
    assert (await client.xpending("orders", "hearth"))["pending"] == 0
    await broker.close()


async def test_redis_can_begin_with_what_is_new(redis: tuple[RedisServer, Any]) -> None:
    server, client = redis
    await client.xadd("orders", {"body": "old"})
    broker = redis_broker(server, begin="newest", field="body")
    await broker.open()
    await client.xadd("orders", {"body": "new"})
    assert data_of(await taken(broker, 1)) == [b"new"]
    await broker.close()


async def test_redis_takes_over_what_a_dead_consumer_holds(redis: tuple[RedisServer, Any]) -> None:
    server, client = redis
    dead, broker = redis_broker(server, "dead"), redis_broker(server, claim_after="1s")
    await dead.open()
    for n in range(3):
        await client.xadd("orders", {"n": n})
    held = await taken(dead, 3)
    await dead.close()
    await client.xclaim("orders", "hearth", "dead", 0, [held[1].receipt, held[2].receipt], idle=60_000)
    await broker.open()
    assert [m.id for m in await taken(broker, 1)] == [held[1].id]
    assert [m.id for m in await taken(broker, 2)] == [held[2].id, held[0].id], (
        "the first is held for 1 s by then"
    )
    await broker.close()


async def test_redis_forgets_entries_that_were_deleted_meanwhile(redis: tuple[RedisServer, Any]) -> None:
    server, client = redis
    broker = redis_broker(server)
    await broker.open()
    gone, there = await client.xadd("orders", {"n": 1}), await client.xadd("orders", {"n": 2})
    await taken(broker, 2)
    await broker.close()
    await client.xdel("orders", gone)
    await broker.open()
    assert [m.receipt for m in await taken(broker, 1)] == [there]
    assert (await client.xpending("orders", "hearth"))["pending"] == 1
    await broker.close()


async def test_fields_of_redis_are_a_json_object_or_one_of_them_the_data(
    redis: tuple[RedisServer, Any],
) -> None:
    server, client = redis
    whole, part = redis_broker(server), redis_broker(server, group="other", field="a")
    await whole.open()
    await part.open()
    await client.xadd("orders", {"a": "ä", "b": b"\xff"})
    await client.xadd("orders", {"b": "2"}, id="99999999999999999-7")
    one, two = await taken(whole, 2)
    assert json.loads(one.data) == {"a": "ä", "b_base64": "/w=="} and one.content_type == "application/json"
    assert one.time is not None and one.time.startswith("20") and two.time is None
    one, two = await taken(part, 2)
    assert (one.data, one.content_type, one.fault) == ("ä".encode(), None, None)
    assert two.fault == "has no field 'a'"
    await whole.close()
    await part.close()


async def test_a_redis_that_refuses_us_or_has_gone_is_an_error(redis: tuple[RedisServer, Any]) -> None:
    server, client = redis
    stranger = redis_broker(server, url=server.url.replace("secret", "wrong"))
    with pytest.raises(RedisError):
        await stranger.open()
    await stranger.close()
    broker = redis_broker(server)
    await broker.open()
    await client.delete("orders")
    with pytest.raises(RedisError):
        await broker.take(1)
    server.kill()
    with pytest.raises(RedisError):
        await broker.take(1)
    await broker.close()
    await broker.close()


# -- NATS -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def stream(tmp_path: Path) -> AsyncIterator[tuple[NatsServer, JetStreamContext]]:
    async def ignore(_: Exception) -> None:
        """The test kills the server on purpose."""

    with NatsServer(tmp_path) as server:
        client = await nats.connect(server.url, error_cb=ignore, allow_reconnect=False)
        context = client.jetstream()
        await context.add_stream(name="ORDERS", subjects=["orders.>"])
        yield server, context
        await client.close()


def nats_broker(server: NatsServer, **keys: object) -> NatsBroker:
    definition = JetStream.model_validate({"url": server.url, "stream": "ORDERS", "ack_wait": "1s", **keys})
    return NatsBroker(definition, in_hand=2, clock=LoopClock())


async def test_nats_gives_again_what_was_not_acknowledged(
    stream: tuple[NatsServer, JetStreamContext],
) -> None:
    server, context = stream
    broker = nats_broker(server, subject="orders.paid")
    await context.publish("orders.paid", b"1", headers={"Content-Type": "text/plain"})
    await context.publish("orders.lost", b"not wanted")
    await context.publish("orders.paid", b"2", headers={"ce-type": "t", "CE-ID": "7"})
    await context.publish("orders.paid", b"3")
    await broker.open()
    first = await taken(broker, 2)
    assert data_of(first) == [b"1", b"2"] and first[0].subject == "orders.paid"
    assert (first[0].content_type, first[0].attributes) == ("text/plain", {})
    assert first[1].attributes == {"type": "t", "id": "7"}
    (same,) = await taken(broker, 1)
    assert same.id in {message.id for message in first}, "no more than two are in hand"
    await broker.acknowledge(first[:1])
    assert await broker.lag() == 1
    await broker.close()
    await broker.open()
    again = await taken(broker, 2)
    assert sorted(data_of(again)) == [b"2", b"3"] and first[1].id in {message.id for message in again}
    await broker.acknowledge(again)
    assert (await context.consumer_info("ORDERS", "hearth")).num_ack_pending == 0
    await broker.close()


async def test_nats_can_begin_with_what_is_new(stream: tuple[NatsServer, JetStreamContext]) -> None:
    server, context = stream
    await context.publish("orders.paid", b"old")
    broker = nats_broker(server, begin="newest")
    await broker.open()
    await context.publish("orders.paid", b"new")
    assert data_of(await taken(broker, 1)) == [b"new"]
    await broker.close()


async def test_what_is_wrong_with_stream_or_consumer_is_told(
    stream: tuple[NatsServer, JetStreamContext],
) -> None:
    server, context = stream
    await context.add_consumer("ORDERS", ConsumerConfig(durable_name="none", ack_policy=AckPolicy.NONE))
    for broker, told in (
        (nats_broker(server, stream="NONE"), "has no stream NONE"),
        (nats_broker(server, durable="none"), "name another with `durable`"),
        (nats_broker(server, url=server.url.replace("secret", "wrong")), "Authorization"),
    ):
        with pytest.raises(Exception, match=told):
            await broker.open()
        await broker.close()


async def test_a_nats_server_that_goes_is_noticed_at_once(
    stream: tuple[NatsServer, JetStreamContext],
) -> None:
    server, _ = stream
    broker = nats_broker(server)
    await broker.open()
    waiting = asyncio.ensure_future(broker.take(1))
    await asyncio.sleep(0)
    server.kill()
    with pytest.raises(nats_source.LostConnection):
        await waiting
    await broker.close()
    with pytest.raises(nats_source.LostConnection):
        await broker.open()
    await broker.close()


# -- MQTT -----------------------------------------------------------------------------------------------------


@pytest.fixture
def mosquitto(tmp_path: Path) -> Any:
    with Mosquitto(tmp_path) as server:
        yield server


def mqtt_broker(server: Mosquitto, in_hand: int = 2, **keys: object) -> MqttBroker:
    definition = MqttTopic.model_validate({"url": server.url, "topic": "orders/#", **keys})
    return MqttBroker(definition, "us", in_hand, LoopClock(), lambda: None)


async def published(server: Mosquitto, *datas: bytes, retain: bool = False, **properties: object) -> None:
    """Publish with QoS 1; the server has them when this returns."""

    def publish() -> None:
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        client.username_pw_set("user", "secret")
        client.connect("127.0.0.1", server.port)
        client.loop_start()
        told = Properties(PacketTypes.PUBLISH)
        for name, value in properties.items():
            setattr(told, name, value)
        for data in datas:
            client.publish("orders/paid", data, qos=1, retain=retain, properties=told).wait_for_publish(20)
        client.disconnect()
        client.loop_stop()

    await asyncio.to_thread(publish)


async def test_mqtt_gives_again_what_was_not_acknowledged(mosquitto: Mosquitto) -> None:
    broker = mqtt_broker(mosquitto)
    await broker.open()
    await published(mosquitto, b"1", b"2", b"3")
    first = await taken(broker, 2)
    assert data_of(first) == [b"1", b"2"] and first[0].subject == "orders/paid"
    assert await broker.take(1) == [], "no more than two are in hand"
    await broker.acknowledge(first[:1])
    (third,) = await taken(broker, 1)
    await broker.close()
    await published(mosquitto, b"while we were away")
    await broker.open()
    again = await taken(broker, 2)
    assert [m.id for m in again] == [first[1].id, third.id], "the same messages have the same ids"
    await broker.acknowledge(again)
    last = await taken(broker, 1)
    assert data_of(last) == [b"while we were away"]
    await broker.acknowledge(last)
    await broker.close()


async def test_mqtt_gives_nothing_again_that_was_acknowledged_just_before_leaving(
    mosquitto: Mosquitto,
) -> None:
    broker = mqtt_broker(mosquitto, in_hand=32)
    await broker.open()
    await broker.close()
    sent = [b"%d" % number for number in range(300)]
    await published(mosquitto, *sent)
    seen: list[bytes] = []
    while len(set(seen)) < len(sent):
        await broker.open()
        messages = await broker.take(5)  # more come meanwhile, so that the server is writing when we leave
        seen += data_of(messages)
        await broker.acknowledge(messages)
        await broker.close()
    assert seen == sent


async def test_mqtt_is_left_in_time_where_the_server_does_not_answer(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_source, "FAREWELL_SECONDS", 0.1)
    broker = mqtt_broker(mosquitto)
    await broker.open()
    await published(mosquitto, b"1")
    messages = await taken(broker, 1)
    mosquitto.freeze()
    await broker.acknowledge(messages)
    async with asyncio.timeout(ANSWER_SECONDS):
        await broker.close()


async def test_mqtt_gives_equal_messages_ids_of_their_own(mosquitto: Mosquitto) -> None:
    broker = mqtt_broker(mosquitto)
    await broker.open()
    await published(mosquitto, b"21.5", b"21.5")
    messages = await taken(broker, 2)
    assert messages[0].id != messages[1].id
    await broker.close()


async def test_what_is_retained_comes_once_and_not_at_each_connection(mosquitto: Mosquitto) -> None:
    await published(mosquitto, b"state", retain=True)
    broker = mqtt_broker(mosquitto)
    await broker.open()
    retained = await taken(broker, 1)
    await broker.acknowledge(retained)
    await broker.close()
    await broker.open()
    await published(mosquitto, b"next")
    assert data_of(await taken(broker, 1)) == [b"next"]
    await broker.close()


async def test_properties_of_mqtt_5_are_content_type_and_attributes(mosquitto: Mosquitto) -> None:
    broker = mqtt_broker(mosquitto)
    await broker.open()
    attributes = [("specversion", "1.0"), ("id", "7"), ("source", "/s"), ("type", "t")]
    await published(mosquitto, b"{}", ContentType="application/json", UserProperty=attributes)
    await published(mosquitto, b"{}", UserProperty=[("id", "no event")])
    event, plain = await taken(broker, 2)
    assert (event.content_type, event.attributes) == ("application/json", dict(attributes))
    assert (plain.content_type, plain.attributes) == (None, {})
    await broker.close()


@pytest.mark.parametrize(
    ("keys", "told"),
    [({"url": "mqtt://user:wrong@127.0.0.1:{port}"}, "Not authorized"), ({"topic": "a/#/b"}, "Invalid")],
)
async def test_an_mqtt_server_that_refuses_says_why(
    mosquitto: Mosquitto, keys: dict[str, str], told: str
) -> None:
    broker = mqtt_broker(mosquitto, **{key: value.format(port=mosquitto.port) for key, value in keys.items()})
    with pytest.raises(mqtt_source.LostConnection, match=told):
        await broker.open()
    await broker.close()


async def test_an_mqtt_server_that_goes_is_noticed_at_once(mosquitto: Mosquitto) -> None:
    broker = mqtt_broker(mosquitto)
    await broker.open()
    await published(mosquitto, b"1")
    messages = await taken(broker, 1)
    waiting = asyncio.ensure_future(broker.take(1))
    mosquitto.kill()
    with pytest.raises(mqtt_source.LostConnection):
        await waiting
    with pytest.raises(mqtt_source.LostConnection):
        await broker.acknowledge(messages)
    await broker.close()
    with pytest.raises(OSError):
        await broker.open()
    await broker.close()
