"""How many spares are kept, which, and which step comes next: pure functions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.dispatch.spares.plan import (
    MOST_SPARES,
    NO_CALLS,
    RATE_SECONDS,
    SETTLED_SECONDS,
    CallRate,
    Spare,
    SpareNeed,
    SparePlan,
    plan_spares,
    spares_for,
)


def need(name: str = "f", **facts: object) -> SpareNeed:
    made = SpareNeed(name, memory=100, value=1.0, wanted=1, others=0, spares=(), startable=True)
    return replace(made, **facts)  # type: ignore[arg-type]


def spares(*ids: str, age: float = 100.0) -> list[Spare]:
    return [Spare(id, age) for id in ids]


@pytest.mark.parametrize(
    ("rate", "start_seconds", "wanted"),
    [(0.0, 0.15, 1), (0.1, 0.15, 1), (1.0, 0.15, 2), (3.0, 0.15, 3), (10.0, 0.15, 5), (100.0, 0.15, 8)],
)
def test_more_calls_want_more_spares_up_to_a_bound(rate: float, start_seconds: float, wanted: int) -> None:
    assert spares_for(rate, start_seconds) == wanted


def test_the_rate_is_that_of_the_latest_calls() -> None:
    rate, now = NO_CALLS, 1000.0
    for _ in range(200):
        now += 0.5
        rate = rate.after(now)
    assert rate.per_second(now) == pytest.approx(2.0, rel=0.05)
    assert rate.per_second(now + RATE_SECONDS) == pytest.approx(2.0 / 2.718, rel=0.05)
    assert CallRate(0.0, 0.0).per_second(1e9) == 0.0


def test_what_has_none_gets_one_if_there_is_memory() -> None:
    assert plan_spares(100, 100, [need()]) == SparePlan({"f": 1}, start="f")
    assert plan_spares(99, 100, [need()]) == SparePlan({})
    assert plan_spares(100, 99, [need()]) == SparePlan({"f": 1})
    assert plan_spares(100, 100, [need(startable=False)]) == SparePlan({"f": 1})
    assert plan_spares(100, 100, [need(wanted=0)]) == SparePlan({})


def test_an_instance_that_serves_takes_no_part_of_the_share() -> None:
    assert plan_spares(0, 100, [need(others=1)]) == SparePlan({"f": 1})
    assert plan_spares(100, 100, [need(others=1), need("g")]) == SparePlan({"f": 1, "g": 1}, start="g")


def test_each_gets_its_first_one_before_any_gets_a_second_one() -> None:
    busy = need("busy", wanted=3, value=9.0)
    others = [need("a", value=1.0), need("b", value=2.0)]
    assert plan_spares(300, 300, [busy, *others]).kept == {"busy": 1, "a": 1, "b": 1}
    assert plan_spares(200, 300, [busy, *others]).kept == {"busy": 1, "b": 1}
    assert plan_spares(400, 400, [busy, *others]).kept == {"busy": 2, "a": 1, "b": 1}


def test_the_most_valuable_one_is_started_first() -> None:
    needs = [need("a", value=1.0), need("b", value=2.0), need("c", value=3.0, spares=spares("c1"))]
    assert plan_spares(300, 300, needs).start == "b"


def test_a_less_valuable_spare_gives_its_place_up_once_it_has_settled() -> None:
    cheap = need("cheap", value=1.0, spares=spares("c1"))
    dear = need("dear", value=2.0)
    assert plan_spares(100, 500, [cheap, dear]) == SparePlan({"dear": 1}, removed=["c1"], taker="dear")
    young = replace(cheap, spares=spares("c1", age=SETTLED_SECONDS - 1))
    assert plan_spares(100, 500, [young, dear]) == SparePlan({"dear": 1})
    assert plan_spares(200, 50, [cheap, dear]) == SparePlan({"cheap": 1, "dear": 1}), "both have a place"
    held = replace(dear, spares=spares("d1"))
    assert plan_spares(100, 500, [cheap, held]) == SparePlan({"dear": 1}), "nobody needs its place"


def test_nothing_is_given_up_for_what_would_still_not_fit() -> None:
    small = need("small", value=1.0, memory=100, spares=spares("s1"))
    large = need("large", value=2.0, memory=300)
    assert plan_spares(300, 100, [small, large]) == SparePlan({"large": 1})
    assert plan_spares(300, 200, [small, large]).removed == ["s1"]


needs = st.lists(
    st.builds(
        lambda memory, value, wanted, others, ages, startable: need(
            memory=memory,
            value=value,
            wanted=wanted,
            others=others,
            spares=[Spare("", age) for age in ages],
            startable=startable,
        ),
        st.integers(1, 5),
        st.floats(0, 10),
        st.integers(0, 4),
        st.integers(0, 2),
        st.lists(st.sampled_from([0.0, 50.0]), max_size=3),
        st.booleans(),
    ),
    max_size=6,
).map(
    lambda made: [
        replace(
            one, name=f"f{n}", spares=[Spare(f"f{n}.{k}", spare.age) for k, spare in enumerate(one.spares)]
        )
        for n, one in enumerate(made)
    ]
)


@given(st.integers(0, 30), st.integers(0, 30), needs)
def test_a_plan_keeps_within_the_share_and_comes_to_rest(
    budget: int, free: int, made: list[SpareNeed]
) -> None:
    """Carried out step by step, a plan ends; what it keeps is what it then has, as far as there is memory."""
    by_name = {one.name: one for one in made}
    for step in range(100):
        plan = plan_spares(budget, free, list(by_name.values()))
        cost = sum(one.memory * max(0, plan.kept.get(one.name, 0) - one.others) for one in by_name.values())
        assert cost <= budget
        assert all(plan.kept.get(name, 0) <= one.wanted for name, one in by_name.items())
        if plan.start is not None:
            one = by_name[plan.start]
            assert not plan.removed
            assert one.startable
            assert one.memory <= free
            assert sum(o.memory * len(o.spares) for o in by_name.values()) + one.memory <= budget
            free -= one.memory
            by_name[one.name] = replace(one, spares=[*one.spares, Spare(f"{one.name}+{step}", 50.0)])
        for id in plan.removed:
            one = next(o for o in by_name.values() if id in {spare.id for spare in o.spares})
            assert len(one.spares) + one.others > plan.kept.get(one.name, 0), "it had a place"
            free += one.memory
            by_name[one.name] = replace(one, spares=[s for s in one.spares if s.id != id])
        if plan.start is None and not plan.removed:
            return
    raise AssertionError("no rest")


def test_a_bound_holds_whatever_the_rate() -> None:
    assert spares_for(1e9, 1e9) == MOST_SPARES
