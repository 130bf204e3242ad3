"""Traces of calls, simulated on virtual time: with spares, calls wait less, and none waits for a spare."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from scheduler.dispatch.errors import NoCapacity
from scheduler.dispatch.function import Limits, Revision
from scheduler.dispatch.spares.plan import SpareSettings
from tests.support.virtual_pool import COLD, MIB, REMOVE, World

SECONDS = 60.0
PATIENT = Limits(queue_timeout=30.0)


@dataclass(frozen=True)
class Traffic:
    """A function, and calls of it that come independently of each other."""

    rate: float
    """Calls a second."""
    seconds: float
    """Of a call."""
    keys: dict[str, Any]


@dataclass
class Seen:
    """What the callers of one function saw."""

    waits: list[float] = field(default_factory=list)
    """Seconds that each call waited for its instance."""
    kinds: list[str] = field(default_factory=list)
    refused: int = 0

    @property
    def mean(self) -> float:
        """Mean wait in seconds."""
        return sum(self.waits) / max(1, len(self.waits))


async def _call(world: World, function: Revision, seconds: float, seen: Seen) -> None:
    arrived = world.clock.now()
    caller = world.arrive(function)
    try:
        lease = caller.lease or await world.result_of(caller)
    except NoCapacity:
        seen.refused += 1
        return
    seen.waits.append(world.clock.now() - arrived)
    seen.kinds.append(str(lease.kind))
    await world.clock.sleep(seconds)
    world.dispatcher.release(lease)


async def simulate(traffic: list[Traffic], share: float, slots: int, seed: int) -> list[Seen]:
    """Return what the callers of each function saw. The same seed is the same trace."""
    world, dice = World(budget=slots * 128 * MIB, spares=SpareSettings(share)), random.Random(seed)
    functions = [world.deploy(f"f{n}", limits=PATIENT, **each.keys) for n, each in enumerate(traffic)]
    seen = [Seen() for _ in traffic]
    arrivals = []
    for number, each in enumerate(traffic):
        at = 5.0
        while (at := at + dice.expovariate(each.rate)) < SECONDS:
            arrivals.append((at, number))
    calls: list[asyncio.Task[None]] = []
    for at, number in sorted(arrivals):
        while (left := at - world.clock.now()) > 1e-9:
            await world.pass_time(min(left, 0.25))
        calls.append(
            asyncio.ensure_future(_call(world, functions[number], traffic[number].seconds, seen[number]))
        )
        await world.clock.settle()
    if calls:
        await world.clock.run(asyncio.wait(calls))
    world.check()
    await world.close()
    return seen


@pytest.mark.parametrize(("rate", "least"), [(0.2, 0.8), (1.0, 0.9), (3.0, 0.9)])
async def test_nearly_all_calls_of_a_single_use_function_find_a_spare(rate: float, least: float) -> None:
    traffic = [Traffic(rate, 0.01, {"reuse": False})]
    [seen] = await simulate(traffic, 0.25, slots=64, seed=5)
    [without] = await simulate(traffic, 0.0, slots=64, seed=5)
    assert seen.kinds.count("prewarmed") >= least * (len(seen.kinds) - 1)
    assert without.mean >= COLD * 0.9
    assert seen.mean < without.mean / 4


async def test_first_calls_of_many_functions_with_packages_find_one() -> None:
    traffic = [Traffic(0.05, 0.01, {"own_image": True}) for _ in range(12)]
    seen = await simulate(traffic, 0.25, slots=64, seed=1)
    kinds = [kind for each in seen for kind in each.kinds]
    assert "cold" not in kinds
    assert kinds.count("prewarmed") == sum(bool(each.kinds) for each in seen)


traffics = st.lists(
    st.builds(
        Traffic,
        st.sampled_from([0.05, 0.5, 3.0]),
        st.sampled_from([0.01, 0.3]),
        st.sampled_from([{"reuse": False}, {"own_image": True}, {}, {"reuse": False, "max_instances": 2}]),
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.timeout(300)
@settings(
    max_examples=25,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(traffics, st.sampled_from([4, 8, 64]), st.integers(0, 1000))
def test_nobody_waits_longer_for_the_spares_of_others(traffic: list[Traffic], slots: int, seed: int) -> None:
    """By the same trace without spares. One that has to go first costs a removal, and its start a share of the
    cores."""
    with_spares = asyncio.run(simulate(traffic, 0.25, slots, seed))
    without = asyncio.run(simulate(traffic, 0.0, slots, seed))
    for spared, plain in zip(with_spares, without, strict=True):
        assert spared.refused <= plain.refused
        assert spared.mean <= plain.mean + REMOVE + COLD / 2
    total = [sum(sum(seen.waits) for seen in side) for side in (with_spares, without)]
    calls = sum(len(seen.waits) for seen in without)
    assert total[0] <= total[1] + 0.02 * calls
