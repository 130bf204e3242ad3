"""Manages the brokers that functions.yaml declares: a consumer for each, started and stopped as the file changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from gateway.brokers.broker import Broker
from gateway.brokers.consumer import Consumer
from pool.clock import Clock
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor
from scheduler.definitions.brokers import BrokerDefinition, JetStream, MqttTopic, RedisStream
from scheduler.triggers.event import Publish


class BrokerManager:
    """Starts and stops the consumers of one gateway.

    `publish_to` returns where a broker's events go. Brokers know us by `gateway_id`, which a restart keeps.
    """

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
        self.running: dict[str, Consumer] = {}
        """Consumers by the name of their definition."""

    def declare(self, definitions: Mapping[str, BrokerDefinition]) -> None:
        """Have a consumer for each of these and no others. Changes happen soon; no server is waited for."""
        self._declared = dict(definitions)
        task = self._supervisor.supervise("sources", self._apply)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Take nothing more, and finish the messages in hand."""
        self._closed = True
        await self._apply()  # a change under way comes first: cancelled, it would cancel messages in hand
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _apply(self) -> None:
        async with self._lock:
            wanted = {} if self._closed else self._declared
            changed = [
                consumer for name, consumer in self.running.items() if wanted.get(name) != consumer.definition
            ]
            await asyncio.gather(*(consumer.stop() for consumer in changed))
            for consumer in changed:
                del self.running[consumer.name]
            for name, definition in wanted.items():
                if name not in self.running:
                    self.running[name] = self._make(definition)
                    self.running[name].start(self._supervisor)

    def _make(self, definition: BrokerDefinition) -> Consumer:
        def dropped() -> None:
            consumer.count("dropped")

        broker = self._broker(definition, dropped)
        consumer = Consumer(definition, broker, self._publish_to(definition), self._clock, self._metrics)
        return consumer

    def _broker(self, definition: BrokerDefinition, dropped: Callable[[], None]) -> Broker:
        """Return a broker of this kind. Its library is an extra and takes memory, so it is imported only here."""
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
