"""Every source of a gateway: what functions.yaml declares now, and what of it is connected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from gateway.brokers.broker import Broker
from gateway.brokers.consumer import Source
from pool.clock import Clock
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor
from scheduler.definitions.brokers import BrokerDefinition, JetStream, MqttTopic, RedisStream
from scheduler.triggers.event import Publish


class Sources:
    """Starts and stops sources. `publish_to` says who is told of a source's events; `gateway_id`, the same after a
    restart, is what brokers know us by."""

    def __init__(
        self,
        publish_to: Callable[[BrokerDefinition], Publish],
        gateway_id: str,
        clock: Clock,
        metrics: Metrics,
        supervisor: Supervisor,
    ) -> None:
        self._publish_to = publish_to
        self._gateway_id = gateway_id
        self._clock = clock
        self._metrics = metrics
        self._supervisor = supervisor
        self._declared: dict[str, BrokerDefinition] = {}
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()
        self.running: dict[str, Source] = {}

    def declare(self, definitions: Mapping[str, BrokerDefinition]) -> None:
        """Have these sources and no others. What has changed is stopped and started soon; no server is waited for."""
        self._declared = dict(definitions)
        task = self._supervisor.supervise("sources", self._apply)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Take nothing more, and finish what is in hand."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._apply()

    async def _apply(self) -> None:
        async with self._lock:
            wanted = {} if self._closed else self._declared
            changed = [
                source for name, source in self.running.items() if wanted.get(name) != source.definition
            ]
            await asyncio.gather(*(source.stop() for source in changed))
            for source in changed:
                del self.running[source.name]
            for name, definition in wanted.items():
                if name not in self.running:
                    self.running[name] = self._make(definition)
                    self.running[name].start(self._supervisor)

    def _make(self, definition: BrokerDefinition) -> Source:
        def dropped() -> None:
            source.count("dropped")

        broker = self._broker(definition, dropped)
        source = Source(definition, broker, self._publish_to(definition), self._clock, self._metrics)
        return source

    def _broker(self, definition: BrokerDefinition, dropped: Callable[[], None]) -> Broker:
        """The library of a kind is an extra, and takes memory: it is imported when the first source needs it."""
        match definition.broker:
            case RedisStream() as stream:
                from gateway.brokers.redis import RedisBroker

                return RedisBroker(stream, f"hearth-{self._gateway_id}", self._clock)
            case JetStream() as stream:
                from gateway.brokers.nats import NatsBroker

                return NatsBroker(stream, definition.in_hand, self._clock)
            case MqttTopic() as topic:
                from gateway.brokers.mqtt import MqttBroker

                id = f"hearth-{self._gateway_id[:8]}-{definition.name}"
                return MqttBroker(topic, id, definition.in_hand, self._clock, dropped)
