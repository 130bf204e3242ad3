"""Consumes the messages of one broker: takes them, has their events kept, acknowledges them, and starts again."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from gateway.brokers.broker import Broker, Message
from gateway.brokers.messages import events_of
from pool.backoff import Backoff, Retries
from pool.clock import Clock
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor
from scheduler.calls.store import StoreError
from scheduler.definitions.brokers import BrokerDefinition
from scheduler.triggers.cloud_events import EventFault
from scheduler.triggers.event import Publish

log = logging.getLogger("hearth.sources")

RETRY = Backoff(0.25, 30.0)
"""Pauses until a broker is connected to again, and until the store is offered the messages in hand again."""
LAG_SECONDS = 5.0
"""Time between two questions how many messages wait on the server: each is a round trip."""
STOP_SECONDS = 10.0
"""Time that messages in hand get when the consumer stops. After that they come again from the server."""

ConsumerState = Literal["connecting", "connected", "paused", "stopped"]
MessageOutcome = Literal["started", "unmatched", "refused", "dropped"]


class Consumer:
    """The consumer of one declared broker. A message is acknowledged when `publish` has its events on disk.

    While the store fails, nothing more is taken. Messages in hand are offered to it again after pauses.
    """

    def __init__(
        self,
        definition: BrokerDefinition,
        broker: Broker,
        publish: Publish,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.definition = definition
        self.broker = broker
        self._publish = publish
        self._clock = clock
        self._metrics = metrics
        self.state: ConsumerState = "connecting"
        self.in_hand = 0
        self.lag: int | None = None
        self.counts: Counter[str] = Counter()
        """Messages by their outcome."""
        self.last_at: float | None = None
        """Wall time at which a message was handled last."""
        self.error: str | None = None
        """The latest fault, also if it is over."""
        self.error_at: float | None = None
        """Wall time of that fault."""
        self._lag_at = 0.0
        self._busy = False
        """Set between taking and acknowledging messages, where a cancellation would have them run twice."""
        self._logged: str | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self.definition.name

    # -- its life -------------------------------------------------------------------------------------------

    def start(self, supervisor: Supervisor) -> None:
        """Begin to take messages. Return at once, also where the broker is away."""
        self._metrics.source_connected.labels(self.name).set(0)
        self._task = supervisor.supervise(f"source:{self.name}", self._run)

    async def stop(self) -> None:
        """Take nothing more, finish the messages in hand, and disconnect."""
        self._stopping.set()
        if self._task is None:
            return
        if not self._busy:
            self._task.cancel()
        timer = self._clock.call_later(STOP_SECONDS, self._task.cancel)
        await asyncio.gather(self._task, return_exceptions=True)
        timer.cancel()
        self._enter("stopped")
        for gauge in (self._metrics.source_connected, self._metrics.source_lag):
            with suppress(KeyError):
                gauge.remove(self.name)

    def count(self, outcome: MessageOutcome) -> None:
        """Count a message."""
        self.counts[outcome] += 1
        self.last_at = self._clock.wall()
        self._metrics.source_messages.labels(self.name, outcome).inc()

    async def _run(self) -> None:
        retries = Retries(RETRY)
        while not self._stopping.is_set():
            try:
                await self.broker.open()
                self._enter("connected")
                self._logged = None
                log.info("source %s: connected to %s", self.name, self.broker.address)
                while not self._stopping.is_set():
                    messages = await self.broker.take(self.definition.in_hand)
                    await self._hand_over(messages)
                    retries.succeeded()
                    await self._look_at_lag()
            except Exception as error:  # each library has its own errors, and we treat all alike
                self._note(error)
            finally:
                if self.state != "stopped":
                    self._enter("connecting")
                with suppress(Exception):
                    await self.broker.close()
            if not self._stopping.is_set():
                await self._clock.sleep(retries.failed())

    def _enter(self, state: ConsumerState) -> None:
        self.state = state
        self._metrics.source_connected.labels(self.name).set(state in ("connected", "paused"))

    def _note(self, error: Exception) -> None:
        told = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        if told != self._logged:  # once, not at each try
            log.warning("source %s: %s", self.name, told)
        self._logged = told
        self.error, self.error_at = told, self._clock.wall()

    async def _look_at_lag(self) -> None:
        if self._clock.now() < self._lag_at:
            return
        self._lag_at = self._clock.now() + LAG_SECONDS
        try:
            self.lag = await self.broker.lag()
        except Exception as error:  # we may not be allowed to ask; if the connection is lost, `take` tells
            log.debug("source %s: its lag is not known: %s", self.name, error)
            self.lag = None
        if self.lag is not None:
            self._metrics.source_lag.labels(self.name).set(self.lag)

    # -- messages in hand ------------------------------------------------------------------------------------

    async def _hand_over(self, messages: Sequence[Message]) -> None:
        """Have the events of messages kept, and acknowledge each message with all its events kept."""
        waiting = list(messages)
        retries, at_once = Retries(RETRY), len(waiting)
        try:
            while waiting:
                self.in_hand = len(waiting)
                self._busy = True
                batch, waiting = waiting[:at_once], waiting[at_once:]
                kept = await asyncio.gather(*(self._keep(message) for message in batch))
                done = [message for message, is_kept in zip(batch, kept, strict=True) if is_kept]
                if done:
                    await self.broker.acknowledge(done)
                self._busy = False
                if len(done) == len(batch):
                    retries.succeeded()
                    at_once = len(waiting)
                    continue
                if self._stopping.is_set():
                    return  # messages that are not acknowledged come again
                waiting = [m for m, is_kept in zip(batch, kept, strict=True) if not is_kept] + waiting
                # One of them is enough to find out whether the store works again.
                at_once = 1
                self._enter("paused")
                await self._clock.sleep(retries.failed())
            self._enter("connected")
        finally:
            self._busy, self.in_hand = False, 0

    async def _keep(self, message: Message) -> bool:
        """Return whether a message may be acknowledged: its events are on disk, or it can never start anything."""
        try:
            events = events_of(message, self.definition, self.broker.address)
        except EventFault as fault:
            log.warning("source %s: refusing message %s: %s", self.name, message.id, fault)
            self.count("refused")
            return True
        try:
            started = sum(await asyncio.gather(*map(self._publish, events)))
        except StoreError as error:
            self._note(error)
            return False
        self.count("started" if started else "unmatched")
        return True
