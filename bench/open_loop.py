"""An open loop: requests are sent at a steady rate, whether or not the earlier ones are answered.

Latency counts from the time at which a request was due, not from when it could be sent: while the gateway stalls, a
closed loop sends nothing, and so sees one slow answer where everybody who came in that time waited.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections import deque

from bench.client import Connection, Greeting, Reply, fault_of
from bench.closed_loop import ANSWER_TIMEOUT, Bounds, Connect, Measured

CLOCK_MONOTONIC, TIMER_ABSOLUTE = 1, 1
"""The clock of `time.perf_counter_ns`, and that a time is on it and no duration: <linux/timerfd.h>."""


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Timer(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("first", _Timespec))


def ticker(first: int, interval: int) -> int:
    """File descriptor of a timer that is due at `first` and every `interval` after, both in nanoseconds.

    An event loop's own timers are good to a millisecond, which is more than a call takes. Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = int(libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))
    times = _Timer(_Timespec(*divmod(interval, 10**9)), _Timespec(*divmod(first, 10**9)))
    if descriptor < 0 or libc.timerfd_settime(descriptor, TIMER_ABSOLUTE, ctypes.byref(times), None) < 0:
        raise OSError(ctypes.get_errno(), "no timer")
    return descriptor


class OpenLoop:
    """`rate` requests a second over as many connections as there are greetings. Runs once.

    Requests that find every connection busy wait for one, and their time counts.
    """

    def __init__(self, connect: Connect, greetings: list[Greeting], bounds: Bounds, rate: float) -> None:
        self._connect = connect
        self._greetings = greetings
        self._bounds = bounds
        self._interval = round(1e9 / rate)
        self._measured = Measured()
        self._due: deque[int] = deque()
        self._idle: list[tuple[Connection, Greeting]] = []
        self._carried = 0
        self._next = self._counts_from = self._ends = self._last = 0
        self._done = asyncio.Event()

    async def run(self) -> Measured:
        """Run to the end of its bounds. Raises `CallFailed` if the connections cannot be opened."""
        self._idle = [(await self._connect(), greeting) for greeting in self._greetings]
        connections = [connection for connection, _ in self._idle]
        loop = asyncio.get_running_loop()
        self._next = time.perf_counter_ns() + 10**7
        self._counts_from = self._next + int(self._bounds.warm_up * 1e9)
        self._ends = self._counts_from + int(self._bounds.seconds * 1e9)
        timer = ticker(self._next, self._interval)
        loop.add_reader(timer, self._tick, timer)
        try:
            async with asyncio.timeout(self._bounds.warm_up + self._bounds.seconds + ANSWER_TIMEOUT):
                await self._done.wait()
        except TimeoutError:
            self._measured.faults["no answer in time"] += self._carried + len(self._due)
        finally:
            loop.remove_reader(timer)
            os.close(timer)
            for connection in connections:
                connection.close()
        self._measured.seconds = max(0.0, (self._last - self._counts_from) / 1e9)
        return self._measured

    def _tick(self, timer: int) -> None:
        """Put down what has become due. The timer tells how often it has expired: nothing is left out."""
        for _ in range(int.from_bytes(os.read(timer, 8), "little")):
            if self._next < self._ends:
                self._due.append(self._next)
                self._next += self._interval
        self._send()

    def _send(self) -> None:
        while self._due and self._idle:
            connection, greeting = self._idle.pop()
            if not connection.is_open:
                self._measured.faults["connection lost"] += 1
                continue
            due, (request, expected) = self._due.popleft(), greeting.next()
            self._carried += 1
            self._measured.requests += 1

            def replied(
                reply: Reply,
                due: int = due,
                expected: bytes = expected,
                free: tuple[Connection, Greeting] = (connection, greeting),
            ) -> None:
                self._note(reply, expected, due)
                self._carried -= 1
                self._idle.append(free)
                self._send()

            connection.on_reply, connection.on_lost = replied, self._lost
            connection.send(request)
        if self._next >= self._ends and not self._carried and (not self._due or not self._idle):
            if self._due:
                self._measured.faults["no connection left"] += len(self._due)
            self._done.set()

    def _note(self, reply: Reply, expected: bytes, due: int) -> None:
        fault, now = fault_of(reply, expected), time.perf_counter_ns()
        if fault is not None:
            self._measured.faults[fault] += 1
        elif due >= self._counts_from:
            self._measured.latencies.append(now - due)
            self._measured.starts[reply.start] += 1
            self._last = now

    def _lost(self, why: str) -> None:
        self._measured.faults[why] += 1
        self._carried -= 1
        self._send()
