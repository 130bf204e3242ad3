"""The one source of time. Live code runs on `LoopClock`, tests and the simulator on `VirtualClock`.

Nothing else asks the event loop or the system for the time; `tests/unit/project/test_one_clock.py` lists exceptions.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

ROUNDS_BEFORE_LIVELOCK = 10_000


class Timer(Protocol):
    """A callback that is due later."""

    def cancel(self) -> None:
        """Do not call it any more; safe to call twice, and after it ran."""


class Clock(Protocol):
    """Tells the time, and wakes whoever waits for it."""

    def now(self) -> float:
        """Return seconds that only ever grow; the zero point means nothing."""

    def wall(self) -> float:
        """Return seconds since 1970 (UTC), for people and files; may jump."""

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds; with 0 or less, after the other tasks had their turn."""

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call `callback(*args)` after so many seconds."""

    def timeout(self, seconds: float | None) -> Timeout:
        """Return a bound for an `async with` block: `TimeoutError` ends it after so many seconds. None: never."""


class Timeout:
    """Bounds how long its `async with` block may take: then the block is cancelled and raises `TimeoutError`."""

    __slots__ = ("_clock", "_scope", "_seconds", "_timer")

    def __init__(self, clock: Clock, seconds: float | None) -> None:
        self._clock = clock
        self._seconds = seconds
        self._scope = asyncio.timeout(None)  # it knows how to cancel; the time is the clock's
        self._timer: Timer | None = None

    def expire(self) -> None:
        """End the block, which has begun, now. Harmless when it has ended."""
        with contextlib.suppress(RuntimeError):  # it has ended, or expired already
            self._scope.reschedule(0.0)

    async def __aenter__(self) -> Timeout:
        await self._scope.__aenter__()
        if self._seconds is not None:
            self._timer = self._clock.call_later(self._seconds, self.expire)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._scope.__aexit__(kind, error, traceback)


class LoopClock:
    """Real time, on the running asyncio loop."""

    now = staticmethod(time.monotonic)
    # Not loop.time(): uvloop's counts whole milliseconds, too coarse for a warm call.

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0.0))

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Timer:
        return asyncio.get_running_loop().call_later(max(seconds, 0.0), callback, *args)

    def timeout(self, seconds: float | None) -> Timeout:
        return Timeout(self, seconds)


class LazyTimer:
    """A timer for events that are put off far more often than they happen.

    Each new time only writes an attribute, where a timer of the loop is set and cancelled each time. It rings as late
    as the clock's own timers do, and no later."""

    __slots__ = ("_callback", "_clock", "_due", "_rings_at", "_timer")

    def __init__(self, clock: Clock, callback: Callable[[], object]) -> None:
        self._clock = clock
        self._callback = callback
        self._due: float | None = None
        self._rings_at = 0.0
        self._timer: Timer | None = None

    def set(self, due: float) -> None:
        """Call back at `due` (of the clock) instead of any earlier setting."""
        self._due = due
        if self._timer is None or due < self._rings_at:
            if self._timer is not None:
                self._timer.cancel()
            self._wait_for(due)

    def _wait_for(self, due: float) -> None:
        self._rings_at = due
        self._timer = self._clock.call_later(due - self._clock.now(), self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._due is not None and self._due > self._clock.now():
            self._wait_for(self._due)
        elif self._due is not None:
            self._due = None
            self._callback()

    def stop(self) -> None:
        """Do not call back before the next `set`."""
        self._due = None

    def close(self) -> None:
        """Leave nothing behind in the clock."""
        self._due = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class VirtualTimer:
    """A timer of a `VirtualClock`."""

    __slots__ = ("args", "callback", "cancelled", "when")

    def __init__(self, when: float, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.when = when
        self.callback = callback
        self.args = args
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class VirtualClock:
    """Time that passes only when told to.

    Deterministic: timers run by time, those of one time in the order in which they were set. Every task that
    a timer woke runs until it waits again before the next timer runs."""

    def __init__(self, start: float = 0.0, epoch: float = 1_700_000_000.0) -> None:
        self._now = start
        self._epoch = epoch - start
        self._timers: list[tuple[float, int, VirtualTimer]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._epoch + self._now

    def shift_wall(self, seconds: float) -> None:
        """Move the wall clock, as a machine's owner does. `now` and all timers stay as they are."""
        self._epoch += seconds

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, wake, woken)
        try:
            await woken
        finally:
            timer.cancel()

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> VirtualTimer:
        timer = VirtualTimer(self._now + max(seconds, 0.0), callback, args)
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        return timer

    def timeout(self, seconds: float | None) -> Timeout:
        return Timeout(self, seconds)

    def next_due(self) -> float | None:
        """Return when the next timer is due, in the seconds of `now`, or None if there is none."""
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    async def advance(self, seconds: float) -> None:
        """Let so many seconds pass: run what is due, in order, and the tasks that it wakes."""
        end = self._now + seconds
        await self.settle()
        while (due := self.next_due()) is not None and due <= end:
            timer = heapq.heappop(self._timers)[2]
            self._now = max(self._now, due)
            timer.callback(*timer.args)
            await self.settle()
        self._now = max(self._now, end)

    async def run(self, work: Awaitable[T]) -> T:
        """Let as much time pass as `work` needs, and return its result.

        Raises `RuntimeError` when it waits for something that no timer will bring."""
        task = asyncio.ensure_future(work)
        await self.settle()
        while not task.done():
            due = self.next_due()
            if due is None:
                task.cancel()
                raise RuntimeError("stuck: the work is not done and no timer is set")
            await self.advance(due - self._now)
        return task.result()

    async def settle(self) -> None:
        """Return when every task waits for a timer or for nothing (I/O does not count). Time stands still."""
        loop = asyncio.get_running_loop()
        ready = getattr(loop, "_ready", None)  # asyncio's own loop; uvloop does not show its queue
        for turn in range(ROUNDS_BEFORE_LIVELOCK):
            await asyncio.sleep(0)
            if (turn >= 100) if ready is None else not ready:
                return
        raise RuntimeError("tasks keep each other awake without any time passing")


async def next_turn() -> None:
    """Return when the other tasks had their turn. Takes no time of any clock."""
    await asyncio.sleep(0)


def wake(future: asyncio.Future[None]) -> None:
    """Let whoever waits for the future go on; a second time is harmless."""
    if not future.done():
        future.set_result(None)
