"""Who is evicted first: examples worked out by hand, what holds for all, and a trace on virtual time.

The examples follow the description of Greedy-Dual keep-alive in FaaSCache (Fuerst and Sharma, ASPLOS 2021): priority
= clock + frequency x cost / size; the lowest is terminated first; the clock becomes the priority of what was
terminated, the highest where several had to go; a container takes the clock over when it is used.
The numbers are ours.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.contracts.handler import HANDLER
from pool.engine.base import ContainerSpec
from pool.instance import Instance
from pool.workload import Workload
from scheduler.dispatch.eviction import (
    Candidate,
    KeepAlivePolicy,
    advance_clock,
    choose_victims,
    eviction_order,
    limit_to_surplus,
)
from scheduler.dispatch.function import Revision
from tests.support.virtual_pool import COLD, MIB, World

GDSF, LRU, TTL = KeepAlivePolicy.GDSF, KeepAlivePolicy.LRU, KeepAlivePolicy.TTL


def candidate(
    name: str,
    frequency: int = 1,
    cost: float = 1.0,
    size: float = 1.0,
    clock: float = 0.0,
    used: float = 0.0,
    keep_alive: float = 600.0,
    memory: int | None = None,
) -> Candidate:
    """An idle instance of a function of its own: measured `size` and declared `memory` in MiB."""
    declared = round(size if memory is None else memory) * MIB
    container = ContainerSpec(name="", image="i", memory=declared)
    workload = Workload(
        function=name, version="1", contract=HANDLER, container=container, keep_alive=keep_alive
    )
    instance = Instance(name, "i", declared, workload, 0.0)
    instance.measured, instance.clock, instance.last_used = round(size * MIB), clock, used
    return Candidate(instance, frequency, cost)


def names(candidates: list[Candidate]) -> list[str]:
    return [c.instance.id for c in candidates]


# -- worked examples ------------------------------------------------------------------------------------------


def test_frequency_times_cost_by_size() -> None:
    """A: 10 x 0.3 / 100 = 0.03. B: 2 x 2 / 50 = 0.08. C: 1 x 0.5 / 400 = 0.00125."""
    a = candidate("a", frequency=10, cost=0.3, size=100)
    b = candidate("b", frequency=2, cost=2.0, size=50)
    c = candidate("c", frequency=1, cost=0.5, size=400)
    assert (a.priority, b.priority, c.priority) == pytest.approx((0.03, 0.08, 0.00125))
    assert names(eviction_order([a, b, c], GDSF)) == ["c", "a", "b"]


def test_the_clock_ages_what_is_not_used() -> None:
    """Room for three, of 1 MiB each. A was called 5 times at a cost of 1 (5), B twice at 2 (4), C once at 3 (3).

    D comes: C goes, the clock is 3. D is used (3 + 1 x 1 = 4). B is used a third time (3 + 3 x 2 = 9).
    E comes: D (4) goes before A (5), the clock is 4. E is used (4 + 1 x 1.5 = 5.5).
    F comes: A, called most often of all, has sunk to the bottom (5): it goes, and the clock is 5.
    """
    a = candidate("a", frequency=5, cost=1.0)
    b = candidate("b", frequency=2, cost=2.0)
    c = candidate("c", frequency=1, cost=3.0)
    clock, gone = 0.0, []

    def evict(candidates: list[Candidate]) -> None:
        nonlocal clock
        victims = choose_victims(MIB, eviction_order(candidates, GDSF), [])
        assert victims is not None
        clock = advance_clock(clock, candidates, victims)
        gone.extend((victim.id, clock) for victim in victims)

    evict([a, b, c])
    d = candidate("d", frequency=1, cost=1.0, clock=clock)
    b = candidate("b", frequency=3, cost=2.0, clock=clock)
    assert (d.priority, b.priority) == (4.0, 9.0)
    evict([a, b, d])
    e = candidate("e", frequency=1, cost=1.5, clock=clock)
    assert e.priority == 5.5
    evict([a, b, e])
    assert gone == [("c", 3.0), ("d", 4.0), ("a", 5.0)]


def test_when_several_go_the_clock_is_the_highest_of_them() -> None:
    """C: 5 x 1 / 5 = 1. A: 3 x 2 / 2 = 3. B: 1 x 4 / 1 = 4. To have 7 MiB, C (5) and A (2) go: the clock is 3."""
    a = candidate("a", frequency=3, cost=2.0, size=2)
    b = candidate("b", frequency=1, cost=4.0, size=1)
    c = candidate("c", frequency=5, cost=1.0, size=5)
    everyone = [a, b, c]
    victims = choose_victims(7 * MIB, eviction_order(everyone, GDSF), [])
    assert victims == [c.instance, a.instance]
    assert advance_clock(0.0, everyone, victims) == 3.0
    assert advance_clock(3.5, everyone, victims) == 3.5, "the clock never falls"
    assert advance_clock(2.0, everyone, []) == 2.0


def test_the_size_is_the_measured_one_else_the_declared() -> None:
    measured = candidate("m", cost=6.0, size=12, memory=128)
    assert measured.priority == 0.5
    measured.instance.measured = None
    assert measured.priority == 6.0 / 128
    measured.instance.measured = 10
    assert measured.priority == 6.0, "no instance is smaller than a MiB"


def test_lru_and_ttl() -> None:
    a = candidate("a", frequency=99, used=1.0, keep_alive=600.0)
    b = candidate("b", used=2.0, keep_alive=60.0)
    c = candidate("c", used=3.0, keep_alive=61.0)
    assert names(eviction_order([c, b, a], LRU)) == ["a", "b", "c"]
    assert names(eviction_order([c, b, a], TTL)) == ["b", "c", "a"]
    assert names(eviction_order([c, b, a], GDSF)) == ["b", "c", "a"]


def test_of_each_function_only_what_it_has_to_spare() -> None:
    ones = [candidate("a", used=float(n)) for n in range(3)]
    other = candidate("b", used=9.0)
    assert limit_to_surplus([*ones, other], {"a": 2}) == ones[:2]
    assert limit_to_surplus([*ones, other], {"a": 0, "b": 1}) == [other]
    assert limit_to_surplus(ones, {"a": -1}) == []


# -- what holds for all ---------------------------------------------------------------------------------------

small = st.integers(1, 50)
candidates = st.lists(
    st.builds(
        lambda frequency, cost, size, clock, used, memory: (frequency, cost, size, clock, used, memory),
        small,
        small,
        small,
        st.integers(0, 50),
        st.integers(0, 50),
        small,
    ),
    max_size=8,
).map(
    lambda rows: [
        candidate(f"c{n}", f, float(c), float(s), float(k), float(u), memory=m)
        for n, (f, c, s, k, u, m) in enumerate(rows)
    ]
)


@given(small, small, small, st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), candidates)
def test_more_frequent_costlier_or_smaller_never_goes_first(
    frequency: int, cost: int, size: int, better: tuple[int, int, int], others: list[Candidate]
) -> None:
    more, dearer, smaller = better
    worth = candidate("worth", frequency + more, float(cost + dearer), float(max(1, size - smaller)))
    less = candidate("less", frequency, float(cost), float(size))
    order = names(eviction_order([worth, *others, less], GDSF))
    if worth.priority > less.priority:
        assert order.index("less") < order.index("worth")
    else:
        assert (more, dearer) == (0, 0) and (smaller == 0 or size == 1)


@given(candidates, st.sampled_from(KeepAlivePolicy), st.lists(st.integers(1, 300), max_size=6))
def test_the_clock_never_falls_and_who_stays_is_worth_no_less_than_who_went(
    everyone: list[Candidate], policy: KeepAlivePolicy, wants: list[int]
) -> None:
    clock = 0.0
    for wanted in wants:
        victims = choose_victims(wanted * MIB, eviction_order(everyone, policy), []) or []
        after = advance_clock(clock, everyone, victims)
        assert after >= clock
        went = [c for c in everyone if c.instance in victims]
        everyone = [c for c in everyone if c.instance not in victims]
        assert all(c.priority <= after for c in went)
        if policy is GDSF:
            assert all(stays.priority >= c.priority for c in went for stays in everyone)
        clock = after


@given(st.integers(-3, 400), candidates, candidates, st.sampled_from(KeepAlivePolicy))
def test_enough_is_evicted_and_not_one_more_idle_before_prewarmed(
    needed: int, idle: list[Candidate], generic: list[Candidate], policy: KeepAlivePolicy
) -> None:
    prewarmed = [c.instance for c in generic]
    ordered = eviction_order(idle, policy)
    line = [c.instance for c in ordered] + sorted(prewarmed, key=lambda i: i.last_used)
    victims = choose_victims(needed * MIB, ordered, prewarmed)
    if victims is None:
        assert sum(i.memory for i in line) < needed * MIB
        return
    assert list(victims) == line[: len(victims)]
    freed = sum(i.memory for i in victims)
    assert freed >= needed * MIB
    assert not victims or freed - victims[-1].memory < needed * MIB, "one more than was needed"


# -- in the dispatcher ----------------------------------------------------------------------------------------


@pytest.fixture(params=[GDSF, LRU])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    made = World(budget=256 * MIB, policy=request.param)
    yield made
    await made.close()


async def test_what_is_called_often_outlives_a_scan_that_lru_lets_wash_it_out(world: World) -> None:
    """Room for two. `often` is called again and again, and between two of its calls two others are, once each."""
    often = world.deploy("often")
    once = [world.deploy(f"once{n}") for n in range(20)]
    for _ in range(3):
        await world.clock.run(world.call(often, 0.01))
    kinds = []
    for n in range(10):
        for other in once[2 * n : 2 * n + 2]:
            await world.clock.run(world.call(other, 0.01))
        kinds.append((await world.clock.run(world.call(often, 0.01))).kind)
        world.check()
    lru = world.policy is LRU
    assert kinds == ["cold" if lru else "warm"] * 10
    cold = sum(instance.function == "often" for instance in world.launcher.launched)
    assert cold == (11 if lru else 1)
    assert world.pool.ledger.removals == {"evicted": 29 if lru else 19}


async def test_what_is_called_no_more_goes_in_the_end(world: World) -> None:
    """However often it was called: the clock rises past it."""
    often = world.deploy("often")
    for _ in range(5):
        await world.clock.run(world.call(often, 0.01))
    for n in range(12):
        await world.clock.run(world.call(world.deploy(f"once{n}"), 0.01))
    assert world.pool.ledger.count("often") == 0
    assert world.policy is LRU or world.dispatcher.eviction_clock > 5 * COLD / 128


async def test_frequency_begins_anew_when_nothing_of_a_function_was_kept(world: World) -> None:
    function: Revision = world.deploy()
    for _ in range(3):
        await world.clock.run(world.call(function, 0.01))
    assert function.function.calls == 3
    for other in ("a", "b"):
        await world.clock.run(world.call(world.deploy(other), 0.01))
        await world.clock.run(world.call(world.deploy(other), 0.01))
        await world.clock.run(world.call(world.deploy(other), 0.01))
        await world.clock.run(world.call(world.deploy(other), 0.01))
    assert world.pool.ledger.count("f") == 0
    await world.clock.run(world.call(function, 0.01))
    assert function.function.calls == 1


async def test_nothing_is_evicted_while_there_is_room(world: World) -> None:
    for name in ("a", "b"):
        await world.clock.run(world.call(world.deploy(name), 0.01))
    await world.clock.advance(300.0)
    assert not world.pool.ledger.removals
