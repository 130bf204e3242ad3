"""Redis Streams, NATS JetStream and MQTT as sources of events: the real servers, and a gateway that has all three."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import nats
import paho.mqtt.client as mqtt
import pytest
from brokers import Mosquitto, NatsServer, RedisServer, Server
from harness import Gateway, eventually, handler
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from redis import Redis

pytestmark = pytest.mark.engine

TELL = """
def handle(event, context):
    names = ("ce-id", "ce-type", "ce-source", "ce-subject")
    told = {name: context.headers.get(name) for name in names}
    return {"event": event, "attributes": told, "source": context.headers.get("x-hearth-source")}
"""


class Queue:
    """A queue on a server of one kind, and how a publisher sees it."""

    kind: str
    server: Server

    def declared(self) -> dict[str, object]:
        """What a source says of it."""
        raise NotImplementedError

    def send(self, *texts: str) -> None:
        """Publish messages; they are kept by the server when this returns."""
        raise NotImplementedError

    def break_off(self) -> None:
        """Have nothing reach the server that the gateway still sends on its connection."""
        self.server.freeze()


class RedisQueue(Queue):
    kind = "redis"

    def __init__(self, folder: Path) -> None:
        self.server: RedisServer = RedisServer(folder)

    def declared(self) -> dict[str, object]:
        return {"url": self.server.url, "stream": "orders", "field": "body"}

    def send(self, *texts: str) -> None:
        with Redis.from_url(self.server.url) as client:
            for text in texts:
                client.xadd("orders", {"body": text})


class NatsQueue(Queue):
    kind = "nats"

    def __init__(self, folder: Path) -> None:
        self.server: NatsServer = NatsServer(folder)

    def declared(self) -> dict[str, object]:
        return {"url": self.server.url, "stream": "ORDERS", "subject": "orders.*", "ack_wait": "2s"}

    def send(self, *texts: str) -> None:
        async def publish() -> None:
            async with await nats.connect(self.server.url) as client:
                stream = client.jetstream()
                await stream.add_stream(name="ORDERS", subjects=["orders.>"])
                for text in texts:
                    await stream.publish("orders.paid", text.encode())

        asyncio.run(publish())


class MqttQueue(Queue):
    kind = "mqtt"

    def __init__(self, folder: Path) -> None:
        self.server: Mosquitto = Mosquitto(folder)

    def declared(self) -> dict[str, object]:
        return {"url": self.server.url, "topic": "orders/#", "client_id": "gw"}

    def send(self, *texts: str) -> None:
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        client.username_pw_set("user", "secret")
        client.connect("127.0.0.1", self.server.port)
        client.loop_start()
        try:
            for text in texts:
                client.publish("orders/paid", text, qos=1).wait_for_publish(20)
        finally:
            client.disconnect()
            client.loop_stop()

    def break_off(self) -> None:
        """Somebody else takes the session over, and goes away without having acknowledged anything."""
        other = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, "gw", protocol=mqtt.MQTTv5, reconnect_on_failure=False
        )
        other.username_pw_set("user", "secret")
        kept = Properties(PacketTypes.CONNECT)
        kept.SessionExpiryInterval = 600
        connected = threading.Event()
        other.on_connect = lambda *_: connected.set()
        other.connect("127.0.0.1", self.server.port, clean_start=False, properties=kept)
        while not connected.is_set():
            other.loop_read()
        other.disconnect()


@pytest.fixture
def queues(tmp_path: Path) -> Iterator[list[Queue]]:
    made: list[Queue] = [RedisQueue(tmp_path), NatsQueue(tmp_path), MqttQueue(tmp_path)]
    with ExitStack() as servers:
        for queue in made:
            servers.enter_context(queue.server)
            queue.send()
        yield made


@pytest.fixture
def gateway(tmp_path: Path, queues: list[Queue]) -> Iterator[Gateway]:
    """All three are connected, and have had a first message each."""
    with gateway_with(tmp_path, queues, in_hand=2) as running:
        connected(running, queues)
        send(queues, 0)
        assert ran(running, 3) == each(0)
        eventually(lambda: all(source["in_hand"] == 0 for source in sources(running)))
        yield running


def gateway_with(folder: Path, queues: list[Queue], **keys: object) -> Gateway:
    made = Gateway(folder, {"tell": handler(TELL)})
    declare(made, queues, **keys)
    return made


def declare(gateway: Gateway, queues: list[Queue], triggers: object = None, **keys: object) -> None:
    """Write functions.yaml with a source for each queue, named after its kind."""
    content = json.loads(gateway.file.read_text())
    content["triggers"] = triggers or {}
    function = {} if triggers else {"function": "tell"}
    content["sources"] = {queue.kind: {queue.kind: queue.declared(), **function, **keys} for queue in queues}
    gateway.write("functions.yaml", json.dumps(content))


def send(queues: list[Queue], *numbers: int) -> None:
    """The same messages to each queue."""
    for queue in queues:
        queue.send(*(json.dumps({"n": n}) for n in numbers))


def sources(gateway: Gateway) -> list[dict[str, Any]]:
    return list(gateway.http.get("/sources").json())


def counts(gateway: Gateway) -> dict[str, dict[str, int]]:
    return {source["name"]: source["counts"] for source in sources(gateway)}


def connected(gateway: Gateway, queues: list[Queue]) -> None:
    eventually(lambda: [source["state"] for source in sources(gateway)] == ["connected"] * len(queues), 60)


def runs(gateway: Gateway) -> list[dict[str, Any]]:
    """What every ended call of `tell` has answered; each must have succeeded."""
    calls = gateway.http.get("/invocations", params={"function": "tell", "limit": 1000}).json()["invocations"]
    assert {call["status"] for call in calls} <= {"queued", "running", "succeeded"}
    return [gateway.http.get(call["result"]).json() for call in calls if call["ended"]]


def ran(gateway: Gateway, count: int) -> list[tuple[str, int]]:
    """Type and number of every event that was run, when there are so many of them or more; sorted."""
    found = eventually(lambda: len(r := runs(gateway)) >= count and r, 60)
    return sorted((run["attributes"]["ce-type"], run["event"]["n"]) for run in found)


def each(*numbers: int) -> list[tuple[str, int]]:
    """What `ran` gives for these messages to each queue."""
    return sorted((f"hearth.{kind}.message", n) for kind in ("redis", "nats", "mqtt") for n in numbers)


@contextmanager
def failing_store(gateway: Gateway) -> Iterator[None]:
    """Another process holds the store's file locked: nothing can be written to it."""
    other = sqlite3.connect(gateway.data / "calls.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
    finally:
        other.close()


def test_a_message_is_run_once_with_its_data_and_attributes(gateway: Gateway, queues: list[Queue]) -> None:
    send(queues, 1, 2, 3)
    assert ran(gateway, 12) == each(0, 1, 2, 3)
    addresses = {source["kind"]: source["address"] for source in sources(gateway)}
    subjects = {"nats": "orders.paid", "mqtt": "orders/paid", "redis": None}
    for run in runs(gateway):
        attributes, kind = run["attributes"], run["source"]
        assert attributes["ce-type"] == f"hearth.{kind}.message"
        assert (attributes["ce-source"], attributes["ce-subject"]) == (addresses[kind], subjects[kind])
    assert len({run["attributes"]["ce-id"] for run in runs(gateway)}) == 12
    eventually(lambda: all(count == {"started": 4} for count in counts(gateway).values()))
    for queue in queues:
        assert str(queue.server.port) in addresses[queue.kind] and "secret" not in addresses[queue.kind]
        outcome = {"source": queue.kind, "outcome": "started"}
        assert gateway.metric("hearth_source_messages_total", **outcome) == 4
        assert gateway.metric("hearth_source_connected", source=queue.kind) == 1
    assert len(runs(gateway)) == 12 and "secret" not in gateway.log


def test_without_a_function_the_triggers_decide_about_cloudevents(
    tmp_path: Path, queues: list[Queue]
) -> None:
    paid = {"events": {"filters": [{"exact": {"type": "paid"}}]}, "function": "tell"}
    event = {"specversion": "1.0", "id": "7", "type": "paid", "data": {"n": 1}}
    with gateway_with(tmp_path, queues, triggers={"paid": paid}) as gateway:
        connected(gateway, queues)
        for queue in queues:
            paid = {**event, "source": f"/{queue.kind}"}
            queue.send(*map(json.dumps, ({**paid, "type": "lost"}, paid, paid)))
        assert ran(gateway, 3) == [("paid", 1)] * 3
        eventually(lambda: all(c == {"started": 2, "unmatched": 1} for c in counts(gateway).values()))
        found = [(run["attributes"]["ce-source"], run["attributes"]["ce-id"]) for run in runs(gateway)]
        assert sorted(found) == [("/mqtt", "7"), ("/nats", "7"), ("/redis", "7")], (
            "the same event starts once"
        )


def test_nothing_is_taken_or_acknowledged_while_the_store_fails(
    gateway: Gateway, queues: list[Queue]
) -> None:
    with failing_store(gateway):
        send(queues, 1, 2, 3, 4, 5)
        eventually(lambda: all(source["state"] == "paused" for source in sources(gateway)), 60)
        for shown in sources(gateway):
            assert 1 <= shown["in_hand"] <= 2 and "store" in shown["error"]
            assert shown["counts"] == {"started": 1}
    assert ran(gateway, 18) == each(0, 1, 2, 3, 4, 5)
    connected(gateway, queues)
    eventually(lambda: all(source["in_hand"] == 0 for source in sources(gateway)))
    assert len(runs(gateway)) == 18


def test_a_killed_gateway_gets_again_what_it_had_not_acknowledged(
    gateway: Gateway, queues: list[Queue]
) -> None:
    with failing_store(gateway):
        send(queues, 1)
        eventually(lambda: all(source["in_hand"] == 1 for source in sources(gateway)))
        gateway.stop(signal.SIGKILL)
    gateway.launch()
    gateway.wait_until_ready()
    assert ran(gateway, 6) == each(0, 1)
    send(queues, 2)
    assert ran(gateway, 9) == each(0, 1, 2)


def test_an_acknowledgement_that_is_lost_runs_nothing_twice(gateway: Gateway, queues: list[Queue]) -> None:
    *others, by_number = queues
    with failing_store(gateway):
        send(queues, 1)
        eventually(lambda: all(source["in_hand"] == 1 for source in sources(gateway)))
        for queue in queues:
            queue.break_off()
    assert ran(gateway, 6) == each(0, 1)
    # MQTT gives it again while the gateway lives, and the others also after it was killed.
    eventually(lambda: counts(gateway)[by_number.kind] == {"started": 3}, 30)
    mqtt_source = f"/sources/{by_number.kind}"
    eventually(lambda: gateway.http.get(mqtt_source).json()["in_hand"] == 0)  # and is acknowledged this time
    gateway.stop(signal.SIGKILL)
    for queue in others:
        queue.server.kill()
        queue.server.start()
    gateway.launch()
    gateway.wait_until_ready()
    eventually(lambda: all(counts(gateway)[queue.kind] == {"started": 1} for queue in others), 30)
    send(queues, 2)
    assert ran(gateway, 9) == each(0, 1, 2)


def test_servers_that_come_back_are_found(tmp_path: Path, queues: list[Queue]) -> None:
    for queue in queues:
        queue.server.kill()
    with gateway_with(tmp_path, queues) as gateway:
        eventually(lambda: all(source["error"] for source in sources(gateway)))
        assert {source["state"] for source in sources(gateway)} == {"connecting"}
        assert gateway.metric("hearth_source_connected") == 0 and "secret" not in gateway.log
        for queue in queues:
            queue.server.start()
        connected(gateway, queues)
        send(queues, 1)
        assert ran(gateway, 3) == each(1)
        for queue in queues:
            queue.server.kill()
        eventually(lambda: {source["state"] for source in sources(gateway)} == {"connecting"})
        assert gateway.http.get("/readyz").status_code == 200
        for queue in queues:
            queue.server.start()
        connected(gateway, queues)
        send(queues, 2)
        assert ran(gateway, 6) == each(1, 2)


def test_sources_come_and_go_with_functions_yaml(gateway: Gateway, queues: list[Queue]) -> None:
    declare(gateway, [])
    eventually(lambda: sources(gateway) == [])
    assert gateway.http.get("/sources/redis").status_code == 404
    send(queues, 1)
    declare(gateway, queues, type="com.example.order")
    assert ran(gateway, 6) == sorted([*each(0), *[("com.example.order", 1)] * 3])


def test_a_gateway_that_stops_finishes_what_is_in_hand(gateway: Gateway, queues: list[Queue]) -> None:
    send(queues, *range(1, 30))
    assert gateway.stop() == 0
    gateway.launch()
    gateway.wait_until_ready()
    assert ran(gateway, 90) == each(*range(30))
    connected(gateway, queues)
    eventually(lambda: all(source["in_hand"] == 0 for source in sources(gateway)))
    assert len(runs(gateway)) == 90
