"""A loop that fails is logged once, starts again after growing pauses, and shows in metrics and in readiness."""

from __future__ import annotations

import asyncio
import logging

import pytest

from pool.clock import VirtualClock
from pool.observe.metrics import Metrics
from pool.supervise import RESTART, STEADY_SECONDS, UNREADY_SECONDS, Supervisor


class Loops:
    """A supervisor on virtual time, and a loop whose failures a test decides."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.metrics = Metrics()
        self.supervisor = Supervisor(self.clock, self.metrics)
        self.starts: list[float] = []
        self.faults: list[BaseException] = []
        """Raised by the next starts, one each, at once."""
        self.kick = asyncio.Event()

    async def work(self) -> None:
        """Fail at once while there are faults, then wait to be kicked, which is another."""
        self.starts.append(self.clock.now())
        if self.faults:
            raise self.faults.pop(0)
        await self.kick.wait()
        self.kick.clear()
        raise RuntimeError("kicked")

    def up(self, name: str = "tidying") -> float | None:
        """Return the loop's gauge, or None if there is none."""
        return dict(self.metrics.loop_up.read()).get((name,))


@pytest.fixture
async def loops() -> Loops:
    return Loops()


async def test_a_loop_that_fails_starts_again_after_a_pause(
    loops: Loops, caplog: pytest.LogCaptureFixture
) -> None:
    task = loops.supervisor.supervise("tidying", loops.work)
    await loops.clock.advance(100.0)
    loops.kick.set()
    await loops.clock.advance(RESTART.first)
    assert len(loops.starts) == 2 and 100.0 < loops.starts[1] <= 100.0 + RESTART.first
    assert loops.metrics.loop_restarts.value_of("tidying") == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "background loop tidying failed" in caplog.text and "RuntimeError: kicked" in caplog.text
    task.cancel()


async def test_pauses_grow_while_it_fails_at_once_and_the_fault_is_logged_once(
    loops: Loops, caplog: pytest.LogCaptureFixture
) -> None:
    loops.faults = [OSError("full") for _ in range(8)]
    task = loops.supervisor.supervise("tidying", loops.work)
    await loops.clock.advance(200.0)
    pauses = [after - before for before, after in zip(loops.starts, loops.starts[1:], strict=False)]
    assert len(pauses) == 8
    for number, pause in enumerate(pauses, 1):
        assert 0.75 * RESTART.pause(number) <= pause <= RESTART.pause(number)
    assert caplog.text.count("Traceback") == 1
    assert "tidying runs again" in caplog.text
    task.cancel()


async def test_another_fault_is_logged_too(loops: Loops, caplog: pytest.LogCaptureFixture) -> None:
    loops.faults = [OSError("full"), OSError("full"), ValueError("odd")]
    task = loops.supervisor.supervise("tidying", loops.work)
    await loops.clock.advance(3.0)
    assert caplog.text.count("Traceback") == 2
    task.cancel()


async def test_metrics_say_that_it_is_down_until_it_runs_steadily(loops: Loops) -> None:
    task = loops.supervisor.supervise("tidying", loops.work)
    await loops.clock.settle()
    assert loops.up() == 1.0
    assert 'hearth_loop_restarts_total{loop="tidying"} 0.0\n' in list(loops.metrics.loop_restarts.lines())
    loops.kick.set()
    await loops.clock.advance(RESTART.first + STEADY_SECONDS - 0.1)
    assert loops.up() == 0.0
    await loops.clock.advance(0.2)
    assert loops.up() == 1.0
    task.cancel()
    await loops.clock.settle()
    assert loops.up() is None


async def test_a_loop_that_is_down_for_long_makes_the_gateway_not_ready(loops: Loops) -> None:
    loops.faults = [OSError("full") for _ in range(8)]
    tasks = [
        loops.supervisor.supervise("tidying", loops.work),
        loops.supervisor.supervise("resting", asyncio.Event().wait),  # type: ignore[arg-type]
    ]
    await loops.clock.advance(UNREADY_SECONDS)
    assert loops.supervisor.why_not_ready() is None
    await loops.clock.advance(0.1)
    assert loops.supervisor.why_not_ready() == "background loops keep failing: tidying; the log says why"
    await loops.clock.advance(200.0)
    assert loops.supervisor.why_not_ready() is None
    for task in tasks:
        task.cancel()


async def test_one_failure_never_makes_the_gateway_not_ready(loops: Loops) -> None:
    loops.faults = [OSError("full")]
    task = loops.supervisor.supervise("tidying", loops.work)
    for _ in range(100):
        await loops.clock.advance(0.1)
        assert loops.supervisor.why_not_ready() is None
    task.cancel()


async def test_a_loop_whose_cleaning_up_fails_ends_all_the_same(
    loops: Loops, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever closes it waits for its end: started again, it would hold up the end of the gateway for ever."""
    faults = [OSError("connection lost")]

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            if faults:
                raise faults.pop()

    task = loops.supervisor.supervise("tidying", work)
    await loops.clock.settle()
    task.cancel()
    await loops.clock.advance(60.0)
    assert task.cancelled()
    assert "background loop tidying failed while it ended" in caplog.text and "connection lost" in caplog.text
    assert loops.up() is None


async def test_a_loop_that_fails_at_each_of_its_looks_is_down(
    loops: Loops, caplog: pytest.LogCaptureFixture
) -> None:
    """It looks less often than a restarted loop must run for, as the one that sets functions up again."""

    async def look() -> None:
        await loops.clock.sleep(STEADY_SECONDS + 2.0)
        raise OSError("full")

    task = loops.supervisor.supervise("looking", look)
    await loops.clock.advance(20.0)
    for _ in range(60):
        await loops.clock.advance(1.0)
        assert loops.up("looking") == 0.0
        assert loops.supervisor.why_not_ready() is not None
    assert caplog.text.count("Traceback") == 2
    task.cancel()


async def test_cancelling_ends_a_loop_also_during_its_pause(loops: Loops) -> None:
    loops.faults = [OSError("full")]
    task = loops.supervisor.supervise("tidying", loops.work)
    await loops.clock.settle()
    assert len(loops.starts) == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await loops.clock.advance(100.0)
    assert task.cancelled() and len(loops.starts) == 1


async def test_a_cancellation_of_something_else_does_not_end_a_loop(loops: Loops) -> None:
    loops.faults = [asyncio.CancelledError()]
    task = loops.supervisor.supervise("tidying", loops.work)
    await loops.clock.advance(RESTART.first)
    assert len(loops.starts) == 2 and not task.done()
    task.cancel()


async def test_a_loop_that_returns_is_done(loops: Loops) -> None:
    async def once() -> None:
        loops.starts.append(loops.clock.now())

    await loops.clock.run(loops.supervisor.supervise("once", once))
    await loops.clock.advance(100.0)
    assert loops.starts == [0.0] and loops.up("once") is None
