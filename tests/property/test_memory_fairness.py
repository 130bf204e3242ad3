"""Whatever floods the memory budget, nobody waits for memory for longer than the bound, and nobody is robbed.

On virtual time, with the in-memory engine. Shares are found by bisection here, by a sweep in the code that is tested.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pool.instance import Instance
from pool.states import Reason
from scheduler.dispatch.fair_share import (
    CLAIM_AFTER_SECONDS,
    TURN_AFTER_SECONDS,
    TURN_SECONDS,
    Party,
    Snapshot,
    shares,
)
from scheduler.dispatch.spares.plan import SpareSettings
from tests.support.flood import Floods
from tests.support.virtual_pool import COLD, MIB, REMOVE, World

SLOT = 128 * MIB
STEP = 0.05
CORES = 4


def by_bisection(budget: float, parties: list[Party]) -> dict[str, float]:
    """Shares of the budget: the water rises until it is full."""

    def at(level: float) -> dict[str, float]:
        return {p.name: max(p.promised, min(p.held + p.wanted, level * p.weight)) for p in parties}

    low, high = 0.0, float(budget) * 1000
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at(middle).values()) <= budget else (low, middle)
    return at(low)


amounts = st.integers(0, 20)
party_lists = st.lists(
    st.tuples(amounts, amounts, st.integers(0, 5), st.sampled_from([0.5, 1.0, 2.0])), max_size=7
).map(
    lambda rows: [
        Party(f"p{n}", 1, held, promised, wanted, weight=weight)
        for n, (held, wanted, promised, weight) in enumerate(rows)
    ]
)


@given(st.integers(1, 60), party_lists)
def test_shares_are_max_min_fair_and_fill_the_budget(budget: int, parties: list[Party]) -> None:
    found, expected = shares(budget, parties), by_bisection(budget, parties)
    assert found == pytest.approx(expected, abs=1e-6)
    promised = sum(p.promised for p in parties)
    most = sum(max(p.promised, p.held + p.wanted) for p in parties)
    assert sum(found.values()) == pytest.approx(max(promised, min(budget, most)))


# -- a pool under floods --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """A function and who calls it."""

    clients: int
    seconds: float
    """At most, of a call."""
    pause: float
    keys: dict[str, Any]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    concurrency = draw(st.sampled_from([1, 1, 1, 4]))
    keys = {
        "memory": draw(st.sampled_from([128, 128, 256])),
        "min_instances": draw(st.sampled_from([0, 0, 0, 1, 2])),
        "max_instances": draw(st.sampled_from([2, 16])),
        "concurrency": concurrency,
        "own_image": draw(st.booleans()),
        "reuse": concurrency > 1 or draw(st.sampled_from([True, True, False])),
    }
    clients = draw(st.sampled_from([1, 2, 30]))
    return Plan(
        clients, draw(st.sampled_from([0.01, 0.2, 1.5])), draw(st.sampled_from([0.0, 0.3, 3.0])), keys
    )


@dataclass
class Witness:
    """Looks at a world from outside, step by step."""

    world: World
    longest_call: float
    entitled: dict[str, tuple[float, int]] = field(default_factory=dict)
    """By function that waits and should be given memory: since when, and how much it had then."""
    faults: list[str] = field(default_factory=list)

    def watch(self) -> None:
        drain = self.world.pool.drain

        def drained(instance: Instance, reason: Reason) -> None:
            if reason is Reason.FAIR_SHARE:
                self.judge(instance)
            drain(instance, reason)

        self.world.pool.drain = drained  # type: ignore[method-assign]

    @property
    def snapshot(self) -> Snapshot:
        return self.world.dispatcher.memory_snapshot()

    def judge(self, instance: Instance) -> None:
        """Who gives up an instance keeps what it was promised, has more than its share, and gives it to somebody who
        then has no more than it, or whose turn it is."""
        seen = self.snapshot
        giver = next(p for p in seen.parties if p.name == instance.function)
        left = giver.held - instance.memory
        if left < giver.promised:
            self.faults.append(f"{giver} had to give up what it was promised")
        equal = by_bisection(seen.budget, list(seen.parties))
        for party in seen.parties:
            if party is giver or not party.may_claim:
                continue
            if giver.held > equal[giver.name] - 1 and left >= party.held + party.instance:
                return
            if not party.held and party.waited >= TURN_AFTER_SECONDS - 1e-6:
                alone = Party(
                    party.name, party.instance, 0, max(party.promised, party.instance), party.wanted
                )
                turn = by_bisection(seen.budget, [alone if p is party else p for p in seen.parties])
                if giver.held > turn[giver.name] - 1:
                    return
        self.faults.append(f"{instance} was given up for nobody: {seen}, shares {equal}")

    def look(self) -> None:
        """Nobody waits for longer than the bound while another could give."""
        seen, now = self.snapshot, self.world.clock.now()
        share = by_bisection(seen.budget, list(seen.parties))
        large = [
            p for p in seen.parties if p.wanted and p.held + p.instance > share[p.name] + 1 and not p.held
        ]
        bound = CLAIM_AFTER_SECONDS + self.longest_call + REMOVE + 2 * COLD + 2 * STEP
        if large:  # it may be in line, and has its turn first
            bound += TURN_AFTER_SECONDS + TURN_SECONDS + self.longest_call + REMOVE + COLD
        for party in seen.parties:
            need = party.held + party.instance
            given = sum(
                could_give(p, max(need, p.promised), share[p.name]) for p in seen.parties if p is not party
            )
            if not (party.may_claim and need <= share[party.name] + 1 and given >= party.instance):
                self.entitled.pop(party.name, None)
                continue
            since, had = self.entitled.get(party.name, (now, party.held))
            self.entitled[party.name] = (since, had) if had == party.held else (now, party.held)
            if now - self.entitled[party.name][0] > bound:
                self.faults.append(f"{party} waits since {since}, while others hold more: {seen}")
        for name in set(self.entitled) - {p.name for p in seen.parties}:
            del self.entitled[name]


def could_give(party: Party, least: int, share: float) -> int:
    """Bytes that a function with more than its share can give up and still hold as much as `least`."""
    left = party.held
    for holding in party.holdings:
        if left > share + 1 and left - holding.memory >= least:
            left -= holding.memory
    return party.held - left


async def run(slots: int, functions: list[Plan], seed: int) -> None:
    world = World(budget=slots * SLOT, cores=CORES, spares=SpareSettings(share=0.5))
    floods, dice = Floods(world), random.Random(seed)
    witness = Witness(world, max(plan.seconds for plan in functions))
    witness.watch()
    for number, plan in enumerate(functions):
        floods.of(
            f"f{number}",
            lambda plan=plan: dice.uniform(0.5, 1.0) * plan.seconds,
            plan.clients,
            plan.pause,
            **plan.keys,
        )
        for _ in range(round(dice.choice([0.0, 2.0, 6.0]) / STEP)):
            await world.clock.advance(STEP)
            witness.look()
    for _ in range(round(15.0 / STEP)):
        await world.clock.advance(STEP)
        witness.look()
        world.check()
    assert not witness.faults, witness.faults[0]
    await floods.stop()
    world.check()
    await world.close()


@settings(
    max_examples=25,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking takes minutes: by hand
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
@given(st.integers(3, 8), st.lists(plans(), min_size=2, max_size=5), st.integers(0, 2**16))
@pytest.mark.timeout(900)
def test_nobody_waits_for_memory_beyond_the_bound_and_nobody_is_robbed(
    slots: int, functions: list[Plan], seed: int
) -> None:
    asyncio.run(run(slots, functions, seed))
