"""Decisions are functions of what they are given: examples, and what holds for every example."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pool.contracts.handler import HANDLER
from pool.engine.base import ContainerSpec
from pool.instance import Instance
from pool.reaper import expired
from pool.states import LIVE, Reason, State
from pool.workload import Workload
from scheduler.dispatch.decisions import FUNCTION_BACKOFF, Demand, pick, smooth, smooth_low, wanted_starts
from tests.support.virtual_pool import FakeLink

NOTHING = Demand(
    waiters=0,
    live_slots=0,
    pending=0,
    room=100,
    concurrency=1,
    single_use=False,
    exec_seconds=None,
    start_seconds=0.15,
    oldest_wait=0.0,
    cores=2,
)


@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        (0, {}),
        (0, {"waiters": 5, "room": 0}),
        # unmeasured: one a waiter, no more than cores
        (1, {"waiters": 1}),
        (2, {"waiters": 16}),
        (1, {"waiters": 16, "pending": 1}),
        (0, {"waiters": 16, "pending": 2}),
        (0, {"waiters": 16, "live_slots": 2}),
        (1, {"waiters": 16, "live_slots": 1}),
        (2, {"waiters": 16, "live_slots": 2, "oldest_wait": 0.2}),
        (1, {"waiters": 16, "live_slots": 2, "pending": 1, "oldest_wait": 0.2}),
        (1, {"waiters": 8, "concurrency": 8}),
        (2, {"waiters": 9, "concurrency": 8}),
        # measured: short calls need no second instance, long ones need one each
        (1, {"waiters": 16, "exec_seconds": 0.0002}),
        (0, {"waiters": 15, "live_slots": 1, "exec_seconds": 0.0002}),
        (0, {"waiters": 16, "pending": 1, "exec_seconds": 0.0002}),
        (16, {"waiters": 16, "exec_seconds": 1.0}),
        (15, {"waiters": 15, "live_slots": 1, "exec_seconds": 1.0}),
        (7, {"waiters": 15, "live_slots": 1, "exec_seconds": 1.0, "room": 7}),
        (5, {"waiters": 15, "live_slots": 1, "pending": 10, "exec_seconds": 1.0}),
        (2, {"waiters": 16, "concurrency": 8, "exec_seconds": 1.0}),
        (2, {"waiters": 9, "live_slots": 1, "exec_seconds": 0.05}),  # 3 slots serve 9 calls in 0.15 s
        # the estimate was wrong: the first waiter waits longer than a start takes
        (1, {"waiters": 3, "live_slots": 1, "exec_seconds": 0.0002, "oldest_wait": 0.2}),
        (2, {"waiters": 3, "live_slots": 1, "exec_seconds": 0.0002, "oldest_wait": 0.45}),
        (0, {"waiters": 3, "live_slots": 1, "exec_seconds": 0.0002, "oldest_wait": 0.15}),
        (0, {"waiters": 3, "live_slots": 1, "exec_seconds": 0.0002, "oldest_wait": 9.0, "pending": 1}),
        # single use: one each, whatever was measured
        (16, {"waiters": 16, "single_use": True}),
        (16, {"waiters": 16, "single_use": True, "exec_seconds": 0.0002, "live_slots": 9}),
        (12, {"waiters": 16, "single_use": True, "pending": 4}),
        (3, {"waiters": 16, "single_use": True, "room": 3}),
    ],
)
def test_wanted_starts(wanted: int, keys: dict[str, object]) -> None:
    assert wanted_starts(replace(NOTHING, **keys)) == wanted


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    concurrency = draw(st.sampled_from([1, 1, 2, 8, 100]))
    single_use = concurrency == 1 and draw(st.booleans())
    return Demand(
        waiters=draw(st.integers(0, 1000)),
        live_slots=concurrency * draw(st.integers(0, 64)),
        pending=draw(st.integers(0, 8)),
        room=draw(st.integers(-5, 64)),
        concurrency=concurrency,
        single_use=single_use,
        exec_seconds=draw(st.none() | st.floats(0.0, 100.0)),
        start_seconds=draw(st.floats(0.02, 10.0)),
        oldest_wait=draw(st.floats(0.0, 100.0)),
        cores=draw(st.integers(1, 64)),
    )


@given(demands())
def test_never_more_than_there_is_room_for_and_than_waiters_can_use(demand: Demand) -> None:
    wanted = wanted_starts(demand)
    assert 0 <= wanted <= max(0, demand.room)
    assert wanted <= math.ceil(demand.waiters / demand.concurrency)
    assert (
        wanted * demand.concurrency
        < demand.waiters - demand.pending * demand.concurrency + demand.concurrency
        or (wanted == 0)
    )


@example(
    Demand(
        waiters=3,
        live_slots=18,
        pending=0,
        room=2,
        concurrency=2,
        single_use=False,
        exec_seconds=1.0,
        start_seconds=1.0,
        oldest_wait=2.0,
        cores=1,
    ),
    16,
)
@given(demands(), st.integers(0, 1000))
def test_more_waiters_never_want_fewer_starts(demand: Demand, more: int) -> None:
    assert wanted_starts(replace(demand, waiters=demand.waiters + more)) >= wanted_starts(demand)


@given(demands(), st.floats(0.0, 100.0))
def test_a_longer_wait_never_wants_fewer_starts(demand: Demand, longer: float) -> None:
    assert wanted_starts(replace(demand, oldest_wait=demand.oldest_wait + longer)) >= wanted_starts(demand)


@given(demands())
def test_who_has_nobody_to_wait_for_gets_a_start(demand: Demand) -> None:
    alone = replace(demand, waiters=max(1, demand.waiters), live_slots=0, pending=0, room=max(1, demand.room))
    assert wanted_starts(alone) >= 1


@given(demands())
def test_unmeasured_at_most_cores_at_once(demand: Demand) -> None:
    unmeasured = replace(demand, exec_seconds=None, single_use=False)
    assert wanted_starts(unmeasured) + unmeasured.pending <= max(unmeasured.cores, unmeasured.pending)


@given(demands())
def test_what_is_wanted_is_wanted_only_once(demand: Demand) -> None:
    """When the wanted ones are pending, the same waiters want nothing more."""
    wanted = wanted_starts(demand)
    after = replace(demand, pending=demand.pending + wanted, room=demand.room - wanted)
    assert wanted_starts(after) == 0 or wanted == 0 or demand.oldest_wait > demand.start_seconds
    if demand.exec_seconds is not None and demand.live_slots:
        assert wanted_starts(after) == 0 or wanted == 0


def workload(version: str = "1", **keys: object) -> Workload:
    container = ContainerSpec(name="", image="i")
    return Workload(function="f", version=version, contract=HANDLER, container=container, **keys)  # type: ignore[arg-type]


def instance(name: str, in_use: int = 0, slots: int = 1, last_used: float = 0.0, **keys: object) -> Instance:
    """A live instance with so many slots, some in use."""
    made = Instance(name, "i", int(str(keys.pop("memory", 1))), workload(concurrency=slots, **keys), 0.0)
    link = FakeLink(lambda: None)
    link.open(slots)
    for _ in range(in_use):
        link.take()
    made.link, made.in_use, made.last_used = link, in_use, last_used
    made.state = State.BUSY if in_use else State.IDLE
    return made


def test_pick_takes_the_fullest_then_the_most_recently_used() -> None:
    full = instance("full", 4, 4, 9.0)
    half = instance("half", 2, 4, 1.0)
    emptier = instance("emptier", 1, 4, 8.0)
    recent = instance("recent", 0, 4, 7.0)
    old = instance("old", 0, 4, 6.0)
    everyone = [old, emptier, full, half, recent]
    order = []
    while (picked := pick(everyone, "1")) is not None:
        order.append(picked.id)
        everyone.remove(picked)
    assert order == ["half", "emptier", "recent", "old"]


@pytest.mark.parametrize("state", [s for s in State if s not in LIVE])
def test_pick_takes_only_what_serves(state: State) -> None:
    one = instance("one", 0, 2)
    one.state = state
    assert pick([one], "1") is None


def test_pick_takes_only_the_version() -> None:
    assert pick([instance("one")], "2") is None
    generic = Instance("generic", "i", 1, None, 0.0)
    assert pick([generic], "1") is None


def test_pick_takes_no_single_use_instance_twice() -> None:
    used = instance("used", reuse=False)
    assert pick([used], "1") is used
    used.served = 1
    assert pick([used], "1") is None


def test_pick_takes_nothing_without_a_connection() -> None:
    one = instance("one")
    link = one.link
    assert isinstance(link, FakeLink)
    link.lose()
    assert pick([one], "1") is None
    one.link = None
    assert pick([one], "1") is None


@pytest.mark.parametrize(
    ("reason", "state", "idle_for", "age", "protected"),
    [
        (None, State.IDLE, 9.9, 50, False),
        (Reason.IDLE, State.IDLE, 10, 50, False),
        (None, State.IDLE, 10, 50, True),
        (None, State.BUSY, 10, 50, False),
        (Reason.MAX_AGE, State.IDLE, 0, 100, True),
        (Reason.MAX_AGE, State.BUSY, 0, 100, False),
        (None, State.BUSY, 0, 99.9, False),
    ],
)
def test_expired(reason: Reason | None, state: State, idle_for: float, age: float, protected: bool) -> None:
    one = instance("one", keep_alive=10.0, max_age=100.0)
    one.state, one.created_at, one.last_used = state, 1000 - age, 1000 - idle_for
    assert expired(one, 1000.0, protected) is reason


def test_a_prewarmed_instance_does_not_expire() -> None:
    generic = Instance("generic", "i", 1, None, 0.0)
    generic.state = State.PREWARMED
    assert expired(generic, 1e9, protected=False) is None


def test_back_off_doubles_up_to_a_minute() -> None:
    assert [FUNCTION_BACKOFF.pause(n) for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert FUNCTION_BACKOFF.pause(100) == 60


@settings(max_examples=50)
@given(st.floats(0, 100), st.floats(0, 100))
def test_averages_lie_between(average: float, sample: float) -> None:
    low, high = sorted((average, sample))
    for smoothed in (smooth(average, sample), smooth_low(average, sample)):
        assert low - 1e-9 <= smoothed <= high + 1e-9
    assert smooth(None, sample) == smooth_low(None, sample) == sample


def test_smooth_low_falls_fast_and_rises_slowly() -> None:
    assert smooth_low(1.0, 0.0) == 0.5
    assert smooth_low(1.0, 2.0) == 1.05
