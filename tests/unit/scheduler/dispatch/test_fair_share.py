"""Who gives up memory for whom: examples worked out by hand. What holds for all is in `test_memory_fairness.py`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler.dispatch.fair_share import (
    CLAIM_AFTER_SECONDS,
    MAX_CLAIMERS,
    STAY_SECONDS,
    TURN_AFTER_SECONDS,
    TURN_SECONDS,
    Holding,
    Party,
    ReclaimPlan,
    Snapshot,
    Unused,
    may_evict,
    plan,
    shares,
)


def holder(name: str, count: int, wanted: int = 0, served: float = 60.0, **more: object) -> Party:
    """A function with so many instances of one unit that serve a call each."""
    holdings = [Holding(f"{name}{n}", 1, 1, served, at_once=False) for n in range(count)]
    party = Party(name, instance=1, held=count, wanted=wanted, holdings=holdings, may_claim=wanted > 0)
    return replace(party, **more)  # type: ignore[arg-type]


def claimer(name: str, waited: float = CLAIM_AFTER_SECONDS, need: int = 1, held: int = 0) -> Party:
    return Party(name, instance=need, held=held, wanted=need, waited=waited, may_claim=True)


def full(*parties: Party, budget: int = 8, coming: int = 0, unused: tuple[Unused, ...] = ()) -> Snapshot:
    return Snapshot(budget, 0, coming, unused, parties)


def ids(name: str, count: int) -> frozenset[str]:
    return frozenset(f"{name}{n}" for n in range(count))


# -- shares -----------------------------------------------------------------------------------------------------


def test_what_one_does_not_want_the_others_share() -> None:
    parties = [holder("a", 8, wanted=8), claimer("b"), claimer("c", need=2)]
    assert shares(9, parties) == {"a": 6, "b": 1, "c": 2}


def test_all_that_is_wanted_where_there_is_enough() -> None:
    assert shares(100, [holder("a", 8, wanted=8), claimer("b")]) == {"a": 16, "b": 1}


def test_nobody_gets_less_than_it_was_promised() -> None:
    parties = [holder("a", 6, promised=6), holder("b", 2, wanted=9), holder("c", 0, wanted=9)]
    assert shares(8, parties) == {"a": 6, "b": 1, "c": 1}
    assert shares(5, parties) == {"a": 6, "b": 0, "c": 0}, "promises alone are more than there is"


def test_shares_are_by_weight() -> None:
    assert shares(9, [holder("a", 9, wanted=9, weight=2.0), holder("b", 0, wanted=9)]) == {"a": 6, "b": 3}


# -- who gives --------------------------------------------------------------------------------------------------


def test_the_largest_holder_owes_one_instance_whichever_call_ends_first() -> None:
    made = plan(full(holder("a", 5, wanted=3), holder("b", 3, wanted=3), claimer("c")))
    assert made == ReclaimPlan(["c"], [], {"a": ids("a", 5)})


def test_nobody_owes_before_the_patience_has_ended() -> None:
    assert plan(full(holder("a", 8, wanted=8), claimer("c", waited=0.2))) == ReclaimPlan([], [], {})


def test_after_twice_the_patience_any_that_holds_too_much_may_pay() -> None:
    """Shares are 3.5, 3.5 and 2."""
    parties = (holder("a", 5, wanted=3), holder("b", 4, wanted=3))
    one = replace(claimer("c"), wanted=2)
    assert plan(full(*parties, one, budget=9)).owed == {"a": ids("a", 5)}
    late = replace(one, waited=2 * CLAIM_AFTER_SECONDS)
    assert plan(full(*parties, late, budget=9)).owed == {"a": ids("a", 5), "b": ids("b", 4)}


def test_memory_that_is_coming_is_not_asked_for_again() -> None:
    crowd = (holder("a", 7, wanted=8), claimer("c"))
    assert plan(full(*crowd, coming=1)) == ReclaimPlan(["c"], [], {})
    made = plan(full(*crowd, claimer("d", waited=0.3), coming=1))
    assert made.claimers == ["d", "c"] and made.owed == {"a": ids("a", 7)}


def test_what_can_be_evicted_goes_first() -> None:
    idle = Unused("b", 1, seconds=60.0)
    assert plan(full(holder("a", 7, wanted=8), claimer("c"), unused=(idle,))) == ReclaimPlan(["c"], [], {})
    prewarmed = Unused(None, 1, seconds=0.0)
    assert plan(full(holder("a", 7, wanted=8), claimer("c"), unused=(prewarmed,))) == ReclaimPlan(
        ["c"], [], {}
    )


def test_at_its_share_a_function_gives_nothing_and_claims_nothing() -> None:
    first, second = holder("a", 4, wanted=4, waited=9.0), holder("b", 4, wanted=4, waited=9.0)
    assert plan(full(first, second)) == ReclaimPlan([], [], {})


def test_nobody_gives_to_one_that_would_then_hold_more() -> None:
    """Shares are 1.5: the second instance of `c` would be the last but one of `a`."""
    mine = replace(claimer("c", held=1), wanted=5)
    assert plan(full(holder("a", 2, wanted=5), mine, budget=3)) == ReclaimPlan([], [], {})


def test_min_instances_stay() -> None:
    assert not plan(full(holder("a", 8, wanted=8, promised=8), claimer("c"))).owed
    made = plan(full(holder("a", 8, wanted=8, promised=7), claimer("c"), claimer("d")))
    assert made.claimers == ["c"] and made.owed == {"a": ids("a", 8)}


def test_what_starts_or_serves_many_at_once_is_drained_now_the_least_loss_first() -> None:
    starting = [Holding(f"s{n}", 1, 0, 0.0, at_once=True) for n in range(2)]
    busy = [Holding(f"b{n}", 1, 5 - n, 60.0, at_once=True) for n in range(4)]
    crowd = holder("a", 6, wanted=8, holdings=[*busy, *starting])
    three = [claimer(name) for name in "xyz"]
    assert plan(full(crowd, *three, budget=6)).drained == ["s0", "s1", "b3"]


# -- turns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waited", [TURN_AFTER_SECONDS - 0.1, TURN_AFTER_SECONDS])
@pytest.mark.parametrize("served", [TURN_SECONDS - 0.1, TURN_SECONDS])
def test_where_not_all_fit_the_only_instance_goes_when_it_has_had_its_turn(
    waited: float, served: float
) -> None:
    crowd = [holder(name, 1, wanted=3, served=served) for name in "ab"]
    made = plan(full(*crowd, claimer("c", waited=waited), budget=2))
    assert made.claimers == ["c"]
    assert bool(made.owed) == (waited >= TURN_AFTER_SECONDS and served >= TURN_SECONDS)


def test_a_function_that_is_larger_than_its_share_has_its_turn_too() -> None:
    crowd = holder("a", 8, wanted=8)
    big = claimer("big", waited=TURN_AFTER_SECONDS, need=6)
    assert plan(full(crowd, big)).owed == {"a": ids("a", 8)}
    assert not plan(full(crowd, replace(big, held=6), budget=14)).owed, "it has had it"
    assert not plan(full(replace(crowd, promised=3), big)).claimers, "not all together would be enough"


def test_who_asks_within_its_share_passes_a_large_one_whose_turn_has_not_come() -> None:
    young = holder("a", 8, wanted=8, served=1.0)
    big, small = claimer("big", waited=4.0, need=6), claimer("small")
    made = plan(full(young, big, small))
    assert made.claimers == ["small", "big"] and made.owed == {"a": ids("a", 8)}
    late = plan(full(young, replace(big, waited=TURN_SECONDS), small))
    assert late.claimers == ["big"] and not late.owed, "then it is nobody's before it"


def test_a_function_that_can_never_be_given_enough_holds_nobody_back() -> None:
    promised = holder("p", 3, promised=3)
    made = plan(full(holder("a", 5, wanted=8), promised, claimer("big", waited=30.0, need=6), claimer("c")))
    assert made == ReclaimPlan(["c"], [], {"a": ids("a", 5)})


def test_a_look_is_bounded() -> None:
    many = [claimer(f"c{n:03}") for n in range(300)]
    assert len(plan(full(holder("a", 1000, wanted=8), *many, budget=1000)).claimers) == MAX_CLAIMERS


# -- idle instances ---------------------------------------------------------------------------------------------


def test_what_was_just_used_stays_unless_the_taker_has_less() -> None:
    assert not may_evict(0.1, owner_holds=1, taker_holds=4, needed=1)
    assert may_evict(STAY_SECONDS, owner_holds=1, taker_holds=4, needed=1)
    assert may_evict(0.1, owner_holds=1, taker_holds=0, needed=1), "it has nothing"
    assert may_evict(0.1, owner_holds=3, taker_holds=2, needed=1)
