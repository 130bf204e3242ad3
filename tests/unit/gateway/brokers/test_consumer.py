"""A source on virtual time, over a queue in memory: what is acknowledged, and when; pauses; stopping."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import pytest

from gateway.brokers.broker import Message, without_credentials
from gateway.brokers.consumer import LAG_SECONDS, RETRY, STOP_SECONDS, Consumer
from gateway.brokers.manager import BrokerManager
from pool.clock import VirtualClock
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor
from scheduler.calls.store import StoreError
from scheduler.definitions.brokers import BrokerDefinition, RedisStream
from scheduler.triggers.event import Event


class MemoryQueue:
    """A broker in this process: gives again what was not acknowledged when it is opened again."""

    address = "redis://memory/orders"

    def __init__(self) -> None:
        self.waiting: deque[Message] = deque()
        self.given: dict[str, Message] = {}
        self.acknowledged: list[str] = []
        self.opened = 0
        self.is_open = False
        self.away = False
        self.acknowledges = True
        self._news = asyncio.Event()

    def send(self, *ids: str, data: bytes = b"{}") -> None:
        self.waiting.extend(Message(id, data) for id in ids)
        self._news.set()

    def lose(self) -> None:
        """The connection ends."""
        self.away = True
        self._news.set()

    async def open(self) -> None:
        self.opened += 1
        if self.away:
            raise ConnectionError("nobody answers")
        self.is_open = True
        self.waiting.extendleft(reversed(self.given.values()))
        self.given.clear()

    async def take(self, most: int) -> Sequence[Message]:
        while not self.waiting and not self.away:
            self._news.clear()
            await self._news.wait()
        if self.away:
            raise ConnectionError("the connection was lost")
        taken = [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]
        self.given |= {message.id: message for message in taken}
        return taken

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        if not self.acknowledges:
            raise ConnectionError("the connection was lost")
        for message in messages:
            del self.given[message.id]
            self.acknowledged.append(message.id)

    async def lag(self) -> int | None:
        return len(self.waiting)

    async def close(self) -> None:
        self.is_open = False


class Kept:
    """What was published, and whether it can be kept."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.tries = 0
        self.fails = False
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, event: Event) -> int:
        self.tries += 1
        await self.open.wait()
        if self.fails:
            raise StoreError("the disk is full")
        self.ids.append(event.id)
        return 0 if event.id.startswith("unwanted") else 1


class World:
    def __init__(self, in_hand: int = 4) -> None:
        self.clock = VirtualClock()
        self.queue = MemoryQueue()
        self.kept = Kept()
        self.metrics = Metrics()
        definition = BrokerDefinition(
            name="orders", broker=RedisStream(url="redis://h", stream="orders"), in_hand=in_hand
        )
        self.source = Consumer(definition, self.queue, self.kept, self.clock, self.metrics)

    def gauge(self, name: str) -> float | None:
        """Return a gauge of the source, or None if there is none."""
        return self.metrics.registry.get_sample_value(name, {"source": "orders"})

    async def run(self, seconds: float = 0.0) -> None:
        await self.clock.advance(seconds)


@pytest.fixture
async def world() -> World:
    made = World()
    made.source.start(Supervisor(made.clock, made.metrics))
    await made.run()
    assert made.source.state == "connected"
    return made


@pytest.mark.parametrize(
    ("url", "path", "shown"),
    [
        ("redis://user:secret@h:6379/0?x=secret", "orders", "redis://h:6379/0/orders"),
        ("redis://:p@h", "s", "redis://h/s"),
        ("unix:///run/redis.sock?password=secret", "s", "unix:///run/redis.sock/s"),
        ("mqtt://u:p@[::1]:1883", "", "mqtt://[::1]:1883"),
    ],
)
def test_an_address_is_shown_without_credentials(url: str, path: str, shown: str) -> None:
    assert without_credentials(url, path) == shown


async def test_messages_are_acknowledged_once_they_are_kept(world: World) -> None:
    world.kept.open.clear()
    world.queue.send("1", "2", "unwanted")
    await world.run()
    assert (world.source.in_hand, world.queue.acknowledged, world.source.last_at) == (3, [], None)
    world.kept.open.set()
    await world.run()
    assert world.queue.acknowledged == world.kept.ids == ["1", "2", "unwanted"]
    assert world.source.counts == {"started": 2, "unmatched": 1} and world.source.in_hand == 0
    assert world.source.last_at == world.clock.wall()
    await world.source.stop()


async def test_no_more_are_in_hand_than_may_be(world: World) -> None:
    world.kept.open.clear()
    world.queue.send(*(str(n) for n in range(9)))
    await world.run()
    assert world.source.in_hand == len(world.queue.given) == 4
    world.kept.open.set()
    await world.run()
    assert world.queue.acknowledged == [str(n) for n in range(9)]
    await world.source.stop()


async def test_a_store_that_fails_is_asked_seldom_and_nothing_is_taken_meanwhile(world: World) -> None:
    world.kept.fails = True
    world.queue.send(*(str(n) for n in range(9)))
    await world.run()
    assert (world.source.state, world.source.error, world.kept.tries) == ("paused", "the disk is full", 4)
    await world.run(600)
    assert world.kept.tries < 4 + 7 + 600 / (RETRY.longest * 0.75) + 1
    assert len(world.queue.given) == 4 and world.queue.acknowledged == [] and world.queue.opened == 1
    assert world.gauge("hearth_source_connected") == 1
    world.kept.fails = False
    await world.run(RETRY.longest)
    assert world.source.state == "connected"
    assert sorted(world.queue.acknowledged) == sorted(world.kept.ids) == [str(n) for n in range(9)]
    await world.source.stop()


async def test_what_can_never_be_an_event_is_acknowledged_and_counted(world: World) -> None:
    world.queue.send("1", data=b'{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"tomorrow"}')
    world.queue.send("2")
    await world.run()
    assert world.queue.acknowledged == ["1", "2"] and world.kept.ids == ["2"]
    assert world.source.counts == {"refused": 1, "started": 1}
    await world.source.stop()


async def test_a_lost_connection_is_opened_again_after_growing_pauses(world: World) -> None:
    world.queue.lose()
    await world.run()
    assert (world.source.state, world.source.error) == ("connecting", "the connection was lost")
    assert not world.queue.is_open
    await world.run(600)
    assert 20 < world.queue.opened < 40 and world.source.error == "nobody answers"
    world.queue.away = False
    world.queue.send("1")
    await world.run(RETRY.longest)
    assert world.source.state == "connected" and world.queue.acknowledged == ["1"]
    tries = world.queue.opened
    world.queue.lose()
    await world.run(0.25)
    assert world.queue.opened > tries, "the pauses begin anew"
    await world.source.stop()


async def test_what_could_not_be_acknowledged_comes_again_with_its_id(world: World) -> None:
    world.queue.acknowledges = False
    world.queue.send("1")
    await world.run(0.1)
    assert world.kept.ids == ["1"] and world.queue.acknowledged == []
    await world.run(600)
    assert 20 < world.queue.opened < 40, "the pauses grow"
    world.queue.acknowledges = True
    await world.run(RETRY.longest)
    assert set(world.kept.ids) == {"1"} and world.queue.acknowledged == ["1"]
    await world.source.stop()


async def test_the_lag_is_asked_for_now_and_then(world: World) -> None:
    world.queue.send("1")
    await world.run()
    assert world.source.lag == 0
    world.kept.open.clear()
    await world.run(LAG_SECONDS)
    world.queue.send(*"23456789")
    await world.run()
    world.kept.open.set()
    await world.run()
    assert world.source.lag == 4
    assert world.gauge("hearth_source_lag") == 4
    await world.source.stop()


async def test_one_that_waits_is_stopped_at_once(world: World) -> None:
    await world.source.stop()
    assert (world.source.state, world.queue.is_open) == ("stopped", False)
    assert 'source="orders"' not in str(world.metrics.source_connected.collect())


async def test_what_is_in_hand_is_finished_before_it_stops(world: World) -> None:
    world.kept.open.clear()
    world.queue.send("1", "2", "3", "4", "5")
    await world.run()
    stopping = asyncio.ensure_future(world.source.stop())
    await world.run(1)
    assert not stopping.done()
    world.kept.open.set()
    await world.clock.run(stopping)
    assert world.queue.acknowledged == ["1", "2", "3", "4"] and not world.queue.is_open


async def test_a_store_that_hangs_does_not_hold_the_stop_up_for_ever(world: World) -> None:
    world.kept.open.clear()
    world.queue.send("1")
    await world.run()
    before = world.clock.now()
    await world.clock.run(world.source.stop())
    assert world.clock.now() - before == STOP_SECONDS
    assert world.queue.acknowledged == [] and not world.queue.is_open


async def test_one_that_is_paused_is_stopped_at_once_and_acknowledges_nothing(world: World) -> None:
    world.kept.fails = True
    world.queue.send("1")
    await world.run(100)
    assert world.source.state == "paused"
    await world.source.stop()
    assert world.queue.acknowledged == [] and list(world.queue.given) == ["1"]


async def test_a_message_in_hand_is_acknowledged_though_its_source_was_removed_just_before_the_end(
    world: World,
) -> None:
    manager = BrokerManager(
        lambda _: world.kept, "0" * 32, world.clock, world.metrics, Supervisor(world.clock, world.metrics)
    )
    manager.running["orders"] = world.source
    world.kept.open.clear()
    world.queue.send("1")
    await world.run()
    manager.declare({})
    await world.run()
    closing = asyncio.ensure_future(manager.close())
    await world.run()
    world.kept.open.set()
    await world.clock.run(closing)
    assert (world.kept.ids, world.queue.acknowledged) == (["1"], ["1"])
    assert manager.running == {}
