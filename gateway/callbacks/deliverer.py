"""Delivers callbacks from the store, and tries failed ones again.

Callbacks that are being delivered when the process ends are delivered again by the next process. So each is delivered
at least once, always with the same id.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from gateway.callbacks.sender import SendResult
from pool.backoff import Retries, jitter
from pool.clock import Clock, Timer
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor
from scheduler.calls.callback_store import CallbackAttempt, CallbackStore
from scheduler.calls.callbacks import CALLBACK_RETRY, MAX_ATTEMPTS, CallbackStatus, Delivery
from scheduler.calls.leases import LeaseOwner
from scheduler.calls.running.lease_keeper import LeaseKeeper
from scheduler.calls.store import STORE_RETRY, LeaseLost, StoreError
from scheduler.work import NewCallback, Work

log = logging.getLogger("hearth.callbacks")

MAX_PER_HOST = 4
"""Most callbacks to one host at once. So a host that hangs leaves most of `MAX_AT_ONCE` to others."""
MAX_AT_ONCE = 32
"""Most callbacks at once. Each uses a connection, and some KiB of memory for TLS."""

Send = Callable[[Delivery], Awaitable[SendResult]]


class Deliverer:
    """Delivers the callbacks of one gateway. Call `start`, then `close`. `send` may raise only on cancellation."""

    def __init__(
        self, store: CallbackStore, clock: Clock, metrics: Metrics, send: Send, leases: LeaseKeeper
    ) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._send = send
        self._leases = leases
        leases.holders.append(lambda: bool(self._under_way))
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._hosts: Counter[str] = Counter()
        """Callbacks under way, by host."""
        self._wake = asyncio.Event()
        self._timer: Timer | None = None
        self._loop: asyncio.Task[None] | None = None

    def start(self, supervisor: Supervisor) -> None:
        """Begin to deliver, with the callbacks that an earlier process has left."""
        self._loop = supervisor.supervise("callbacks", self._run)

    async def close(self) -> None:
        """Stop. The next start delivers again what is under way."""
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._under_way.values(), *([self._loop] if self._loop else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def begun(self, works: Sequence[Work]) -> None:
        """Deliver the callbacks among work that was just stored."""
        if any(isinstance(work, NewCallback) for work in works):
            self._wake.set()

    async def _run(self) -> None:
        await self._leases.take_over()
        self._wake.set()
        retries = Retries(STORE_RETRY)
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._store.exists:
                continue
            owner = self._leases.owner
            try:
                due, next_due = await self._store.due(owner, self._clock.wall(), MAX_PER_HOST)
                begun = await self._lease(owner, due)
            except LeaseLost:
                self._leases.renew(owner)
                self._wake.set()
                continue
            except StoreError:
                self._wake_in(retries.failed())
                continue
            retries.succeeded()
            for delivery in begun:
                task = asyncio.ensure_future(self._deliver(owner, delivery))
                self._under_way[delivery.message] = task
                self._hosts[delivery.host] += 1
            if next_due is not None:
                self._wake_in(max(0.0, next_due - self._clock.wall()))

    async def _lease(self, owner: LeaseOwner, due: Sequence[Delivery]) -> list[Delivery]:
        """Lease as many due callbacks as there is room for, and return them. Raises `StoreError`."""
        # Hosts with the fewest deliveries come first, so that even many hosts that hang delay no other.
        waiting = sorted(due, key=lambda one: self._hosts[one.host])
        room = MAX_AT_ONCE - len(self._under_way)
        wanted = [one for one in waiting if one.message not in self._under_way][:room]
        if not wanted:
            return []
        leased = await self._store.lease(owner, [one.message for one in wanted], self._clock.wall())
        return [one for one in wanted if one.message in leased]

    def _wake_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_later(seconds, self._wake.set)

    async def _try_to_send(self, delivery: Delivery) -> SendResult:
        try:
            return await self._send(delivery)
        except Exception as error:  # else the callback would stay due, and be tried without a pause
            log.exception(
                "callback %s: an attempt failed because of a fault of the gateway", delivery.message
            )
            return SendResult(f"{type(error).__name__}: {error}")

    async def _deliver(self, owner: LeaseOwner, delivery: Delivery) -> None:
        try:
            attempt = await self._try_to_send(delivery)
            attempts, due, status = delivery.attempts + 1, 0.0, CallbackStatus.DELIVERED
            if attempt.fault is not None and not attempt.final and attempts < MAX_ATTEMPTS:
                due = self._clock.wall() + CALLBACK_RETRY.pause(attempts, jitter())
                status = CallbackStatus.PENDING
            elif attempt.fault is not None:
                status = CallbackStatus.GIVEN_UP
                log.warning(
                    "Giving up callback %s to %s after %d attempts: %s",
                    delivery.message,
                    delivery.host,
                    attempts,
                    attempt.fault,
                )
            record = CallbackAttempt(status, attempts, due, attempt.fault)
            if await self._record(owner, delivery.message, record):
                outcome = "failed" if status is CallbackStatus.PENDING else status.value
                self._metrics.callbacks.labels(outcome).inc()
        finally:
            del self._under_way[delivery.message]
            self._hosts[delivery.host] -= 1
            if not self._hosts[delivery.host]:
                del self._hosts[delivery.host]
            self._wake.set()

    async def _record(self, owner: LeaseOwner, message: str, attempt: CallbackAttempt) -> bool:
        """Record an attempt, however long the store takes. Return False if the lease was lost meanwhile."""
        retries = Retries(STORE_RETRY)
        while True:
            try:
                return await self._store.record(owner, message, attempt)
            except StoreError:
                await self._clock.sleep(retries.failed())
