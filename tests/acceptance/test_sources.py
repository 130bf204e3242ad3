"""Redis Streams, NATS JetStream and MQTT as sources of events: each with its real server, and a real gateway."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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
    told = {name: value for name, value in context.headers.items() if name.startswith("ce-")}
    return {"event": event, "attributes": told}
"""


class Queue:
    """A queue on a server of one kind, and how a publisher sees it."""

    kind: str
    server: Server
    keeps_ids = True
    """Whether a message that comes again is known by its id also after a restart of the gateway."""

    def declared(self, **keys: object) -> dict[str, object]:
        """The keys of a source that takes its messages and calls `tell`."""
        raise NotImplementedError

    def send(self, *texts: str) -> None:
        """Publish messages; they are kept by the server when this returns."""
        raise NotImplementedError

    def break_off(self) -> None:
        """Have nothing reach the server that the gateway still sends on its connection."""
        self.server.freeze()

    def mend(self) -> None:
        """Have the server as if nothing had reached it."""
        self.server.kill()
        self.server.start()


class RedisQueue(Queue):
    kind = "redis"

    def __init__(self, folder: Path) -> None:
        self.server: RedisServer = RedisServer(folder)

    def declared(self, **keys: object) -> dict[str, object]:
        broker = {"url": self.server.url, "stream": "orders", "field": "body"}
        return {"redis": broker, "function": "tell", **keys}

    def send(self, *texts: str) -> None:
        with Redis.from_url(self.server.url) as client:
            for text in texts:
                client.xadd("orders", {"body": text})


class NatsQueue(Queue):
    kind = "nats"

    def __init__(self, folder: Path) -> None:
        self.server: NatsServer = NatsServer(folder)

    def declared(self, **keys: object) -> dict[str, object]:
        broker = {"url": self.server.url, "stream": "ORDERS", "subject": "orders.*", "ack_wait": "2s"}
        return {"nats": broker, "function": "tell", **keys}

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
    keeps_ids = False

    def __init__(self, folder: Path) -> None:
        self.server: Mosquitto = Mosquitto(folder)

    def declared(self, **keys: object) -> dict[str, object]:
        return {
            "mqtt": {"url": self.server.url, "topic": "orders/#", "client_id": "gw"},
            "function": "tell",
            **keys,
        }

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


@pytest.fixture(params=[RedisQueue, NatsQueue, MqttQueue], ids=lambda made: str(made.kind))
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queue]:
    made: Queue = request.param(tmp_path)
    with made.server:
        made.send()
        yield made


@pytest.fixture
def gateway(tmp_path: Path, queue: Queue) -> Iterator[Gateway]:
    with gateway_with(tmp_path, queue) as running:
        connected(running)
        yield running


def gateway_with(folder: Path, queue: Queue, **keys: object) -> Gateway:
    made = Gateway(folder, {"tell": handler(TELL)})
    declare(made, queue, **keys)
    return made


def declare(gateway: Gateway, queue: Queue | None, **keys: object) -> None:
    """Write functions.yaml with one source, or none; `triggers` beside it."""
    content = json.loads(gateway.file.read_text())
    content["triggers"] = keys.pop("triggers", {})
    source = {key: value for key, value in queue.declared(**keys).items() if value} if queue else {}
    content["sources"] = {"orders": source} if queue else {}
    gateway.write("functions.yaml", json.dumps(content))


def shown(gateway: Gateway) -> dict[str, Any]:
    return dict(gateway.http.get("/sources/orders").json())


def connected(gateway: Gateway) -> None:
    eventually(lambda: shown(gateway)["state"] == "connected", 60)


def runs(gateway: Gateway) -> list[dict[str, Any]]:
    """What every ended call of `tell` has answered; each must have succeeded."""
    calls = gateway.http.get("/invocations", params={"function": "tell", "limit": 1000}).json()["invocations"]
    assert {call["status"] for call in calls} <= {"queued", "running", "succeeded"}
    ended = [call for call in calls if call["ended"]]
    return [gateway.http.get(call["result"]).json() for call in ended]


def events(gateway: Gateway, count: int) -> list[Any]:
    """The data of so many runs, when there are so many; sorted."""
    found = eventually(lambda: len(r := runs(gateway)) >= count and r, 60)
    return sorted(run["event"]["n"] for run in found)


def message(n: int) -> str:
    return json.dumps({"n": n})


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


def test_a_message_is_run_once_with_its_data_and_attributes(gateway: Gateway, queue: Queue) -> None:
    queue.send(message(1), message(2))
    assert events(gateway, 2) == [1, 2]
    attributes = runs(gateway)[0]["attributes"]
    assert attributes["ce-type"] == f"hearth.{queue.kind}.message"
    assert attributes["ce-specversion"] == "1.0"
    assert attributes["ce-source"] == shown(gateway)["address"]
    assert "secret" not in attributes["ce-source"] and str(queue.server.port) in attributes["ce-source"]
    eventually(lambda: shown(gateway)["counts"] == {"started": 2} and shown(gateway)["in_hand"] == 0)
    assert gateway.metric("hearth_source_messages_total", source="orders", outcome="started") == 2
    assert gateway.metric("hearth_source_connected", source="orders") == 1
    assert len(runs(gateway)) == 2 and "secret" not in gateway.log


def test_a_message_that_is_a_cloudevent_is_that_event(gateway: Gateway, queue: Queue) -> None:
    event = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "order.paid", "data": {"n": 1}}
    queue.send(json.dumps(event), json.dumps(event))
    assert events(gateway, 1) == [1]
    attributes = runs(gateway)[0]["attributes"]
    assert (attributes["ce-type"], attributes["ce-source"], attributes["ce-id"]) == (
        "order.paid",
        "/shop",
        "7",
    )
    eventually(lambda: shown(gateway)["counts"] == {"started": 2})
    assert len(runs(gateway)) == 1, "the same event is started once"


def test_without_a_function_the_triggers_decide(tmp_path: Path, queue: Queue) -> None:
    paid = {"events": {"filters": [{"exact": {"type": "com.example.paid"}}]}, "function": "tell"}
    with gateway_with(tmp_path, queue, function=None, triggers={"paid": paid}) as gateway:
        connected(gateway)
        lost = {
            "specversion": "1.0",
            "id": "7",
            "source": "/shop",
            "type": "com.example.lost",
            "data": {"n": 1},
        }
        queue.send(json.dumps(lost), json.dumps({**lost, "type": "com.example.paid", "id": "8"}))
        assert events(gateway, 1) == [1]
        assert runs(gateway)[0]["attributes"]["ce-type"] == "com.example.paid"
        eventually(lambda: shown(gateway)["counts"] == {"started": 1, "unmatched": 1})
        assert len(runs(gateway)) == 1


def test_a_killed_gateway_gets_again_what_it_had_not_acknowledged(gateway: Gateway, queue: Queue) -> None:
    queue.send(message(1))
    assert events(gateway, 1) == [1]
    with failing_store(gateway):
        queue.send(message(2))
        eventually(lambda: shown(gateway)["in_hand"] == 1)
        gateway.stop(signal.SIGKILL)
    gateway.launch()
    gateway.wait_until_ready()
    assert events(gateway, 2) == [1, 2]
    connected(gateway)
    queue.send(message(3))
    assert events(gateway, 3) == [1, 2, 3]


def test_an_acknowledgement_that_is_lost_runs_nothing_twice(gateway: Gateway, queue: Queue) -> None:
    queue.send(message(1))
    assert events(gateway, 1) == [1]
    with failing_store(gateway):
        queue.send(message(2))
        eventually(lambda: shown(gateway)["in_hand"] == 1)
        queue.break_off()
    assert events(gateway, 2) == [1, 2]
    count = 3
    if queue.keeps_ids:
        gateway.stop(signal.SIGKILL)
        queue.mend()
        gateway.launch()
        gateway.wait_until_ready()
        count = 1
    eventually(lambda: shown(gateway)["counts"].get("started") == count, 30)  # it has come again
    queue.send(message(3))
    assert events(gateway, 3) == [1, 2, 3]


def test_a_server_that_comes_back_is_found(tmp_path: Path, queue: Queue) -> None:
    queue.server.kill()
    with gateway_with(tmp_path, queue) as gateway:
        eventually(lambda: shown(gateway)["error"])
        assert shown(gateway)["state"] == "connecting" and "secret" not in gateway.log
        assert gateway.metric("hearth_source_connected", source="orders") == 0
        queue.server.start()
        connected(gateway)
        queue.send(message(1))
        assert events(gateway, 1) == [1]
        queue.server.kill()
        eventually(lambda: shown(gateway)["state"] == "connecting")
        assert gateway.http.get("/readyz").status_code == 200
        queue.server.start()
        connected(gateway)
        queue.send(message(2))
        assert events(gateway, 2) == [1, 2]


def test_nothing_is_taken_or_acknowledged_while_the_store_fails(tmp_path: Path, queue: Queue) -> None:
    with gateway_with(tmp_path, queue, in_hand=2) as gateway:
        connected(gateway)
        queue.send(message(0))
        assert events(gateway, 1) == [0]
        with failing_store(gateway):
            queue.send(*(message(n) for n in range(1, 6)))
            eventually(lambda: shown(gateway)["state"] == "paused", 30)
            assert shown(gateway)["in_hand"] <= 2 and "store" in shown(gateway)["error"]
            assert shown(gateway)["counts"] == {"started": 1}
        assert events(gateway, 6) == [0, 1, 2, 3, 4, 5]
        eventually(lambda: shown(gateway)["state"] == "connected" and shown(gateway)["in_hand"] == 0)
        assert len(runs(gateway)) == 6


def test_a_source_comes_and_goes_with_functions_yaml(tmp_path: Path, queue: Queue) -> None:
    with gateway_with(tmp_path, queue) as gateway:
        connected(gateway)
        declare(gateway, queue, type="com.example.order")
        queue.send(message(1))
        eventually(lambda: shown(gateway)["counts"], 30)
        declare(gateway, None)
        eventually(lambda: gateway.http.get("/sources").json() == [])
        assert gateway.http.get("/sources/orders").status_code == 404
        queue.send(message(2))
        declare(gateway, queue)
        assert events(gateway, 2) == [1, 2]


def test_a_gateway_that_stops_finishes_what_is_in_hand(gateway: Gateway, queue: Queue) -> None:
    queue.send(*(message(n) for n in range(50)))
    eventually(lambda: shown(gateway)["counts"])
    assert gateway.stop() == 0
    gateway.launch()
    gateway.wait_until_ready()
    assert events(gateway, 50) == list(range(50))
    eventually(lambda: shown(gateway)["in_hand"] == 0)
    assert len(runs(gateway)) == 50
