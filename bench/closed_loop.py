"""A closed loop: each client sends its next request when the answer to the last one is here.

Driven by callbacks and not by tasks: on a machine with few cores, what the client takes the gateway does not have.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench.client import CallFailed, Connection, Greeting, Reply, fault_of

ANSWER_TIMEOUT = 30.0
"""Seconds after a loop's end that its last answers may take."""
MOST_FAULTS = 100
"""Lost connections after which a client gives up."""

Connect = Callable[[], Awaitable[Connection]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a loop runs: `warm_up` seconds that do not count, then `seconds` that do, and never more than
    `requests` requests in all."""

    warm_up: float
    seconds: float
    requests: int = 10_000_000


@dataclass(slots=True)
class Measured:
    """What a loop has seen. Latencies in nanoseconds, of right answers within the time that counts; `faults` of
    all answers, those of the warm-up too."""

    latencies: array[int] = field(default_factory=lambda: array("Q"))
    seconds: float = 0.0
    """From the beginning of the time that counts to the last answer of it."""
    requests: int = 0
    """Sent, those of the warm-up too."""
    faults: Counter[str] = field(default_factory=Counter)
    starts: Counter[str] = field(default_factory=Counter)
    """Right answers that count, by the kind of their start."""

    @property
    def rate(self) -> float:
        """Right answers a second."""
        return len(self.latencies) / self.seconds if self.seconds > 0 else 0.0


class _Client:
    """One client with its connection."""

    def __init__(self, loop: ClosedLoop, connection: Connection, greeting: Greeting) -> None:
        self._loop = loop
        self._greeting = greeting
        self._began = 0
        self._expected = b""
        self._losses = 0
        self._reconnecting: asyncio.Task[None] | None = None
        self.done = asyncio.Event()
        self._use(connection)

    def _use(self, connection: Connection) -> None:
        self.connection = connection
        connection.on_reply, connection.on_lost = self._replied, self._lost

    def send(self) -> None:
        """Send the next request, if the loop still runs."""
        loop = self._loop
        now = time.perf_counter_ns()
        if now >= loop.ends or loop.measured.requests >= loop.bounds.requests:
            self.done.set()
            return
        if not self.connection.is_open:  # the other side has said that it closes: nobody's fault
            self.connection.close()
            self._reconnect()
            return
        loop.measured.requests += 1
        request, self._expected = self._greeting.next()
        self._began = time.perf_counter_ns()
        self.connection.send(request)

    def _replied(self, reply: Reply) -> None:
        self._loop.note(reply, self._expected, self._began, time.perf_counter_ns())
        self.send()

    def _lost(self, why: str) -> None:
        if self.done.is_set():
            return
        self._fault(why)

    def _fault(self, why: str) -> None:
        self._loop.measured.faults[why] += 1
        self._losses += 1
        if self._losses >= MOST_FAULTS:
            self.done.set()
        else:
            self._reconnect()

    def _reconnect(self) -> None:
        if self._reconnecting is None or self._reconnecting.done():
            self._reconnecting = asyncio.ensure_future(self._connect_again())

    async def _connect_again(self) -> None:
        while not self.done.is_set():
            await asyncio.sleep(0.01 * min(self._losses, 10))
            try:
                self._use(await self._loop.connect())
            except CallFailed as error:
                self._loop.measured.faults[str(error)] += 1
                self._losses += 1
                if self._losses >= MOST_FAULTS or time.perf_counter_ns() >= self._loop.ends:
                    self.done.set()
                continue
            self._reconnecting = None
            self.send()
            return

    def stop(self) -> None:
        """Whatever is still open is too late."""
        if not self.done.is_set():
            self._loop.measured.faults["no answer in time"] += 1
        self.done.set()
        if self._reconnecting is not None:
            self._reconnecting.cancel()


class ClosedLoop:
    """Clients that call as fast as they are answered, each over its own connection. Runs once."""

    def __init__(self, connect: Connect, greetings: list[Greeting], bounds: Bounds) -> None:
        self.connect = connect
        self.bounds = bounds
        self.measured = Measured()
        self.ends = 0
        self._counts_from = 0
        self._last = 0
        self._greetings = greetings

    def note(self, reply: Reply, expected: bytes, began: int, ended: int) -> None:
        """Count an answer."""
        fault = fault_of(reply, expected)
        if fault is not None:
            self.measured.faults[fault] += 1
        elif began >= self._counts_from:
            self.measured.latencies.append(ended - began)
            self.measured.starts[reply.start] += 1
            self._last = ended

    async def run(self, keep_open: bool = False) -> Measured:
        """Run to the end of its bounds; `keep_open` leaves the connections to whoever made them.

        Raises `CallFailed` if the first connections cannot be opened.
        """
        connections = [await self.connect() for _ in self._greetings]
        began = time.perf_counter_ns()
        self._counts_from = began + int(self.bounds.warm_up * 1e9)
        self.ends = self._counts_from + int(self.bounds.seconds * 1e9)
        clients = [_Client(self, c, g) for c, g in zip(connections, self._greetings, strict=True)]
        for client in clients:
            client.send()
        try:
            async with asyncio.timeout(self.bounds.warm_up + self.bounds.seconds + ANSWER_TIMEOUT):
                await asyncio.gather(*(client.done.wait() for client in clients))
        except TimeoutError:
            pass
        finally:
            for client in clients:
                client.stop()
                if not keep_open:
                    client.connection.close()
        self.measured.seconds = max(0.0, (self._last - self._counts_from) / 1e9)
        return self.measured
