"""The circuit breaker around the engine: its states as a table, and what it lets through on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.clock import VirtualClock
from pool.engine.base import (
    ContainerSpec,
    EngineDown,
    EngineError,
    EngineFault,
    EngineUnreachable,
    NotFound,
)
from pool.engine.breaker import FAILURES, PAUSE, TRUSTED_AFTER_SECONDS, Breaker, BreakerState
from pool.engine.guarded import PROBE_TIMEOUT, SUSPICIOUS, VERB_TIMEOUT, GuardedEngine
from pool.engine.memory import MemoryEngine
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        breaker.failed(now)
    assert breaker.state is BreakerState.OPEN
    return breaker


def test_failures_in_a_row_open_it_and_an_answer_between_them_does_not() -> None:
    breaker = Breaker()
    for _ in range(5):
        assert not any(breaker.failed(0.0) for _ in range(FAILURES - 1))
        breaker.answered(0.0)
    assert [breaker.failed(0.0) for _ in range(FAILURES)] == [False] * (FAILURES - 1) + [True]


def test_only_its_own_attempt_closes_it() -> None:
    breaker = opened()
    assert not breaker.answered(0.0), "an answer that comes late says nothing about now"
    breaker.try_again()
    assert breaker.answered(1.0)
    assert breaker.state is BreakerState.CLOSED


def test_pauses_double_up_to_the_longest_and_begin_anew_when_it_is_trusted_again() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(5):
        pauses.append(breaker.retry_in(now))
        now += pauses[-1]
        breaker.try_again()
        assert breaker.failed(now)
    assert pauses == [0.25, 0.5, 1.0, 1.0, 1.0]
    for trusted, pause in ((TRUSTED_AFTER_SECONDS / 2, PAUSE.longest), (TRUSTED_AFTER_SECONDS, PAUSE.first)):
        breaker.try_again()
        breaker.answered(now)
        now += trusted
        assert breaker.trip(now)
        assert breaker.retry_in(now) == pause


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["answered", "failed", "trip", "probe"]), st.sampled_from([0.0, 0.1, 1.0, 20.0])
    ),
    max_size=60,
)


@given(STEPS)
def test_however_it_goes_an_open_one_stays_so_until_its_own_attempt(steps: list[tuple[str, float]]) -> None:
    breaker, now = Breaker(), 0.0
    for step, passed in steps:
        now += passed
        before = breaker.state
        if step == "probe":
            if before is BreakerState.OPEN and breaker.retry_in(now) == 0:
                breaker.try_again()
        elif step == "answered":
            assert breaker.answered(now) == (before is BreakerState.HALF_OPEN)
        else:
            changed = breaker.failed(now, 0.75) if step == "failed" else breaker.trip(now, 0.75)
            assert changed == (before is not breaker.state)
        if before is BreakerState.OPEN:
            assert breaker.state in (BreakerState.OPEN, BreakerState.HALF_OPEN)
        assert breaker.retry_in(now) <= PAUSE.longest
        assert (breaker.failures == 0) <= (breaker.state is BreakerState.CLOSED)


class Bench:
    """A guarded engine in memory, whose verbs can hang."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.metrics = Metrics()
        self.inner = MemoryEngine(self.clock, metrics=self.metrics)
        self.image = self.inner.add_image("i").id
        self.supervisor = Supervisor(self.clock, self.metrics)
        self.engine = GuardedEngine(self.inner, self.clock, self.metrics, self.supervisor)

    def spec(self, name: str) -> ContainerSpec:
        return ContainerSpec(name=name, image=self.image)

    def hang(self, *verbs: str) -> None:
        """These verbs are accepted and never answered, as by an engine under SIGSTOP."""
        for verb in verbs:
            setattr(self.inner, verb, self._never)

    async def _never(self, *_: object) -> Any:
        await asyncio.get_running_loop().create_future()

    def recover(self, *verbs: str) -> None:
        """Undo `hang`."""
        for verb in verbs:
            delattr(self.inner, verb)

    async def fail(self, times: int) -> None:
        for _ in range(times):
            with pytest.raises(EngineUnreachable):
                await self.engine.inspect("c")

    @property
    def gauge(self) -> float | None:
        return self.metrics.registry.get_sample_value("hearth_engine_breaker_open")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.engine.close()
    await made.clock.settle()


async def test_an_engine_that_is_down_is_asked_little_and_refused_at_once(bench: Bench) -> None:
    assert bench.gauge == 0
    bench.inner.stop()
    await bench.fail(FAILURES)
    assert bench.gauge == 1
    asked = bench.inner.calls.total()
    for _ in range(600):
        with pytest.raises(
            EngineDown, match=r"has not answered for \d+ s: The engine in memory was stopped"
        ) as down:
            await bench.engine.create(bench.spec("c"))
        assert down.value.retry_after >= 1
        with pytest.raises(EngineDown):
            await anext(aiter(bench.engine.events({})))
        await bench.clock.advance(0.1)
    assert bench.inner.calls["create"] == 0
    assert bench.inner.calls.total() - asked <= 60 / (0.75 * PAUSE.longest) + 2, "a storm"
    bench.inner.resume()
    await bench.clock.advance(PAUSE.longest)
    assert bench.gauge == 0
    await bench.clock.run(bench.engine.create(bench.spec("c")))


async def test_what_the_engine_refuses_is_an_answer(bench: Bench) -> None:
    for _ in range(2 * FAILURES):
        with pytest.raises(NotFound):
            await bench.engine.inspect("nobody")
        bench.inner.fail_next("inspect", EngineError("409"))
        with pytest.raises(EngineError):
            await bench.engine.inspect("nobody")
    assert bench.engine.down() is None


async def test_faults_of_its_own_open_it_unless_it_answers_between_them(bench: Bench) -> None:
    for _ in range(2 * FAILURES):
        bench.inner.fail_next("images", EngineFault("500"))
        with pytest.raises(EngineFault):
            await bench.engine.images({})
        await bench.engine.networks({})
    assert bench.engine.down() is None, "one function's containers must not take the engine from all others"
    for _ in range(FAILURES):
        bench.inner.fail_next("images", EngineFault("500"))
        with pytest.raises(EngineFault):
            await bench.engine.images({})
    assert bench.engine.down() is not None
    await bench.clock.advance(PAUSE.first)
    assert bench.engine.down() is None, "its ping is well"


async def test_a_hanging_engine_is_found_by_a_ping_and_whoever_waits_for_it_is_told(bench: Bench) -> None:
    bench.hang("create", "ping", "wait")
    waiting = [
        asyncio.ensure_future(bench.engine.create(bench.spec("a"))),
        asyncio.ensure_future(bench.engine.wait("b")),
    ]
    await bench.clock.advance(SUSPICIOUS + PROBE_TIMEOUT - 0.01)
    assert not any(task.done() for task in waiting)
    await bench.clock.advance(0.01)
    for task in waiting:
        with pytest.raises(EngineDown):
            task.result()
    await bench.clock.advance(60)
    assert bench.gauge == 1
    bench.recover("ping")
    await bench.clock.advance(PROBE_TIMEOUT + PAUSE.longest)
    assert bench.gauge == 0


async def test_a_slow_engine_is_waited_for(bench: Bench) -> None:
    ping, networks = bench.inner.ping, bench.inner.networks

    async def slow_ping() -> None:
        await bench.clock.sleep(5)
        await ping()

    async def slow_networks(labels: dict[str, str]) -> Any:
        await bench.clock.sleep(5)
        return await networks(labels)

    bench.inner.ping, bench.inner.networks = slow_ping, slow_networks  # type: ignore[method-assign, assignment]
    for _ in range(2 * FAILURES):
        assert await bench.clock.run(bench.engine.networks({})) == []
    assert bench.engine.down() is None


async def test_a_verb_that_hangs_alone_times_out_and_opens_it_for_a_moment(bench: Bench) -> None:
    bench.hang("resize")
    for _ in range(FAILURES):
        began = bench.clock.now()
        with pytest.raises(EngineUnreachable, match="did not answer within 30 s"):
            await bench.clock.run(bench.engine.resize("c", 1, 1.0))
        assert bench.clock.now() - began == VERB_TIMEOUT
    assert bench.engine.down() is not None
    await bench.clock.advance(PAUSE.first)
    assert bench.engine.down() is None


async def test_a_caller_that_goes_away_says_nothing_about_the_engine(bench: Bench) -> None:
    bench.hang("wait")
    for _ in range(2 * FAILURES):
        task = asyncio.ensure_future(bench.engine.wait("c"))
        await bench.clock.advance(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert bench.engine.breaker.failures == 0


async def test_a_failed_ping_opens_it_at_once(bench: Bench) -> None:
    bench.inner.stop()
    with pytest.raises(EngineUnreachable):
        await bench.engine.ping()
    assert bench.gauge == 1
    with pytest.raises(EngineDown):
        await bench.engine.ping()


async def test_a_stream_of_events_that_breaks_counts(bench: Bench) -> None:
    for _ in range(FAILURES):
        events = aiter(bench.engine.events({}))
        following = asyncio.ensure_future(anext(events))
        await bench.clock.settle()
        bench.inner.stop()
        with pytest.raises(EngineUnreachable):
            await following
        bench.inner.resume()
    assert bench.engine.down() is not None


async def test_a_stream_that_breaks_during_an_attempt_leaves_one_recovery(bench: Bench) -> None:
    """An engine that hangs is killed: its stream of events, which was open all the time, breaks only then."""
    following = asyncio.ensure_future(anext(aiter(bench.engine.events({}))))
    await bench.clock.settle()
    bench.hang("ping")
    for _ in range(FAILURES):
        bench.inner.fail_next("inspect", EngineUnreachable("reset"))
    await bench.fail(FAILURES)
    await bench.clock.advance(2.0)
    assert bench.engine.breaker.state is BreakerState.HALF_OPEN
    bench.inner.stop()
    with pytest.raises(EngineUnreachable):
        await following
    bench.recover("ping")
    await bench.engine.close()
    asked = bench.inner.calls.total()
    await bench.clock.advance(60)
    assert bench.inner.calls.total() == asked


async def test_closing_it_ends_its_attempts(bench: Bench) -> None:
    bench.inner.stop()
    await bench.fail(FAILURES)
    await bench.engine.close()
    asked = bench.inner.calls.total()
    await bench.clock.advance(60)
    assert bench.inner.calls.total() == asked
