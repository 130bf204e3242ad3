"""Keeps the background loops of a gateway running: a loop that fails is logged, and started again after a pause."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from pool.backoff import Backoff, Retries
from pool.clock import Clock
from pool.observe.metrics import Metrics

log = logging.getLogger("hearth.loops")

RESTART = Backoff(0.25, 15.0)
"""Pauses before a loop is started again. The longest bounds how late a loop notices that its fault has passed."""
STEADY_SECONDS = 3.0
"""Time that a restarted loop must run to count as up: one that fails at once, again and again, never does."""
RELAPSE_SECONDS = 6.0
"""A restarted loop that fails sooner than this must run for twice as long next time: it may fail at each look."""
UNREADY_SECONDS = 5.0
"""Time for which a loop may be down before the gateway is not ready. One failure takes less than this."""

Work = Callable[[], Coroutine[Any, Any, None]]
"""Starts a loop from its beginning. A loop that is done returns."""


class Supervisor:
    """Runs the background loops of one gateway, and knows which of them are down."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._loops: set[_Loop] = set()
        metrics.loop_up.read = self._up

    def supervise(self, name: str, work: Work) -> asyncio.Task[None]:
        """Run `work` in a task until it returns or the task is cancelled. Start it again whenever it raises.

        `name` is the loop's label in metrics and its name in the log.
        """
        self._metrics.loop_restarts.labels(name)  # a series from the start, so that its first increase shows
        loop = _Loop(name, work, self._clock, self._metrics)
        self._loops.add(loop)
        task = asyncio.ensure_future(loop.run())
        task.add_done_callback(lambda _: self._loops.discard(loop))
        return task

    def why_not_ready(self) -> str | None:
        """Return which loops have been down for over `UNREADY_SECONDS`, or None if there are none."""
        now = self._clock.now()
        names = sorted({loop.name for loop in self._loops if loop.down_seconds(now) > UNREADY_SECONDS})
        if not names:
            return None
        return f"background loops keep failing: {', '.join(names)}; the log says why"

    def _up(self) -> Iterator[tuple[tuple[str, ...], float]]:
        up = {loop.name: 1.0 for loop in self._loops}
        up |= {loop.name: 0.0 for loop in self._loops if loop.down_since is not None}
        return (((name,), number) for name, number in up.items())


class _Loop:
    """One supervised loop."""

    def __init__(self, name: str, work: Work, clock: Clock, metrics: Metrics) -> None:
        self.name = name
        self.down_since: float | None = None
        """Time of the first failure since it was up, or None if it is up."""
        self._work = work
        self._clock = clock
        self._metrics = metrics
        self._retries = Retries(RESTART)
        self._restarted = False
        self._logged = ""
        self._steady_seconds = STEADY_SECONDS

    def down_seconds(self, now: float) -> float:
        """Return how long it has been down; 0 if it is up."""
        return 0.0 if self.down_since is None else now - self.down_since

    async def run(self) -> None:
        """Run the loop until it returns or is cancelled."""
        while (pause := await self._run_once()) is not None:
            await self._clock.sleep(pause)
            self._metrics.loop_restarts.labels(self.name).value += 1

    async def _run_once(self) -> float | None:
        """Return the seconds until it is to be started again, or None if it is done."""
        steady = None
        if self.down_since is not None:
            steady = self._clock.call_later(self._steady_seconds, self._recovered)
        began = self._clock.now()
        try:
            await self._work()
        except asyncio.CancelledError as error:
            if _is_to_end():
                raise
            return self._failed(error, began)  # somebody cancelled what the loop waited for, and not the loop
        except Exception as error:
            if _is_to_end():  # started again, it would hold up whoever waits for its end
                log.warning("background loop %s failed while it ended", self.name, exc_info=error)
                raise asyncio.CancelledError from error
            return self._failed(error, began)
        finally:
            if steady is not None:
                steady.cancel()
        self._recovered()
        return None

    def _failed(self, error: BaseException, began: float) -> float:
        now = self._clock.now()
        relapse = self._restarted and now - began < RELAPSE_SECONDS
        self._steady_seconds = max(STEADY_SECONDS, 2 * (now - began) if relapse else 0.0)
        self._restarted = True
        pause = self._retries.failed()
        if self.down_since is None:
            self.down_since = now
        fault = f"{type(error).__name__}: {error}"
        if fault != self._logged:  # a loop that fails at once would fill the log with one traceback
            log.error(
                "background loop %s failed and will start again in %.1f s: %s",
                self.name,
                pause,
                fault,
                exc_info=error,
            )
        self._logged = fault
        return pause

    def _recovered(self) -> None:
        if self.down_since is not None:
            log.warning(
                "background loop %s runs again, after %.1f s", self.name, self._clock.now() - self.down_since
            )
        self.down_since, self._logged = None, ""
        self._retries.succeeded()


def _is_to_end() -> bool:
    """Return whether somebody has cancelled the running task."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
