"""Which sources run, as definitions change; and events that are for one function."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.api.brokers.views import source_view
from gateway.brokers.direct import DirectPublish
from gateway.brokers.manager import BrokerManager
from pool.clock import LoopClock
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor
from scheduler.calls.model import Query
from scheduler.calls.store import StoreFull
from scheduler.calls.targets import FunctionTarget
from scheduler.definitions.brokers import BrokerDefinition, JetStream, MqttTopic, RedisStream
from scheduler.store.sqlite.calls import SqliteCallStore
from scheduler.store.sqlite.writer import Writer
from scheduler.triggers.event import Event
from tests.support.lease_owners import ME

NOBODY = "127.0.0.1:1"
"""Nothing listens there."""


def definition(name: str, **keys: object) -> BrokerDefinition:
    broker = {
        "redis": RedisStream(url=f"redis://:secret@{NOBODY}", stream="orders"),
        "nats": JetStream(url=f"nats://u:secret@{NOBODY}", stream="ORDERS"),
        "mqtt": MqttTopic(url=f"mqtt://u:secret@{NOBODY}", topic="orders/#"),
    }[name]
    return BrokerDefinition.model_validate({"name": name, "broker": broker, **keys})


@pytest.fixture
async def sources() -> AsyncIterator[BrokerManager]:
    async def publish(_: Event) -> int:
        raise AssertionError("there are no messages")

    clock, metrics = LoopClock(), Metrics()
    made = BrokerManager(lambda _: publish, "0" * 32, clock, metrics, Supervisor(clock, metrics))
    yield made
    await made.close()
    assert made.running == {}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_server_that_is_away_is_no_fault_but_shown(sources: BrokerManager) -> None:
    sources.declare({name: definition(name) for name in ("redis", "nats", "mqtt")})
    await until(lambda: len([s for s in sources.running.values() if s.error]) == 3)
    shown = [source_view(source) for source in sources.running.values()]
    assert {view.state for view in shown} == {"connecting"}
    assert all("111" in str(view.error) for view in shown), "connection refused"
    assert [view.address for view in shown] == [
        f"redis://{NOBODY}/orders",
        f"nats://{NOBODY}/ORDERS",
        f"mqtt://{NOBODY}",
    ]
    assert "secret" not in str(shown)


async def test_only_what_has_changed_is_made_anew(sources: BrokerManager) -> None:
    running = sources.running
    sources.declare({name: definition(name) for name in ("redis", "nats", "mqtt")})
    await until(lambda: len(running) == 3)
    before = dict(running)
    sources.declare({"redis": definition("redis"), "nats": definition("nats", in_hand=1)})
    await until(lambda: len(running) == 2 and running["nats"] is not before["nats"])
    assert running["redis"] is before["redis"]
    assert (before["nats"].state, before["mqtt"].state) == ("stopped", "stopped")


async def test_what_is_declared_after_the_end_is_not_started(sources: BrokerManager) -> None:
    await sources.close()
    sources.declare({"redis": definition("redis")})
    await sources.close()
    assert sources.running == {}


# -- one function ---------------------------------------------------------------------------------------------


def event(id: str, size: int = 2) -> Event:
    attributes = {
        "specversion": "1.0",
        "id": id,
        "source": "/s",
        "type": "t",
        "datacontenttype": "text/plain",
    }
    return Event(attributes, b"x" * size)


async def test_the_same_event_is_one_call_and_a_full_store_says_so(tmp_path: Path) -> None:
    store = SqliteCallStore(Writer(tmp_path / "calls.db"), 2**20)
    notified: list[None] = []
    target = FunctionTarget(lambda: ["f"], lambda: notified.append(None), store)
    publish = DirectPublish("orders", "f", target, store, LoopClock())
    try:
        assert [await publish(event("1")), await publish(event("1")), await publish(event("2"))] == [1, 1, 1]
        calls = (await store.page(Query())).records
        assert [call.function for call in calls] == ["f", "f"] and len(notified) == 3
        claims = await store.claim(ME, dict.fromkeys(await store.backlogs(2**40), 1), 2**40)
        call = claims[0].call
        assert call.body == b"xx" and call.overrides.context == (("Source", "orders"),)
        assert (b"ce-id", b"1") in call.request.headers and (
            b"content-type",
            b"text/plain",
        ) in call.request.headers
        with pytest.raises(StoreFull):
            for number in range(3, 9):
                await publish(event(str(number), 2**19))
    finally:
        await store.close()
