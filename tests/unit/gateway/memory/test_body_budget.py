"""The budget of bytes that requests may hold: its shares, its queues, and the reservations made of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.http.problems import Problem
from gateway.memory import reservation as reservations
from gateway.memory.budget import ANONYMOUS, BodyBudget
from gateway.memory.reservation import SMALL_REQUEST, Reservation

MIB = 2**20
REFUSED: list[str] = []


def test_a_key_has_a_quarter_of_an_idle_budget_and_no_more() -> None:
    budget = BodyBudget(64 * MIB)
    assert budget.most("a") == 16 * MIB
    assert not budget.take("a", 16 * MIB + 1)
    assert budget.take("a", 16 * MIB)
    assert not budget.take("a", 1)
    assert budget.held == budget.held_by("a") == 16 * MIB


def test_callers_without_a_key_have_a_quarter_together_where_keys_exist() -> None:
    assert BodyBudget(64 * MIB, lambda: True).most(ANONYMOUS) == 16 * MIB
    assert BodyBudget(64 * MIB, lambda: False).most(ANONYMOUS) == 48 * MIB


def test_floods_of_many_callers_leave_room_for_one_more() -> None:
    """Each takes all that it can get, byte by byte; the next finds a quarter of what is left."""
    budget = BodyBudget(64 * MIB)
    for number in range(8):
        free = budget.total - budget.held
        size = free // 4
        assert budget.take(f"key-{number}", size)
        assert not budget.take(f"key-{number}", MIB)
    assert budget.take("newcomer", (budget.total - budget.held) // 4)


def test_who_waits_is_served_in_order_when_bytes_are_given_back() -> None:
    budget, granted = BodyBudget(64 * MIB), list[str]()
    assert budget.take("a", 16 * MIB)
    budget.wait("a", 10 * MIB, lambda: granted.append("first"))
    budget.wait("a", 2 * MIB, lambda: granted.append("second"))
    budget.give_back("a", 4 * MIB)
    assert granted == []  # the second would fit, and does not overtake
    assert not budget.take("a", 1)
    budget.give_back("a", 6 * MIB)
    assert granted == ["first"]
    budget.give_back("a", 6 * MIB)
    assert granted == ["first", "second"]
    assert budget.held == 12 * MIB
    assert budget.waiting == 0


def test_one_callers_large_wish_holds_no_other_caller_up() -> None:
    budget, granted = BodyBudget(64 * MIB), list[str]()
    budget.take("a", 16 * MIB)
    budget.wait("a", 16 * MIB, lambda: granted.append("a"))
    assert budget.take("b", 8 * MIB)


def test_who_leaves_lets_those_behind_have_their_turn() -> None:
    budget, granted = BodyBudget(64 * MIB), list[str]()
    budget.take("a", 10 * MIB)
    large = budget.wait("a", 16 * MIB, lambda: granted.append("large"))
    budget.wait("a", 5 * MIB, lambda: granted.append("small"))
    budget.leave(large)
    budget.leave(large)
    assert granted == ["small"]
    assert budget.held == 15 * MIB


def test_only_so_many_requests_of_a_caller_wait() -> None:
    budget = BodyBudget(64 * MIB)
    budget.take("a", 16 * MIB)
    for _ in range(8):
        assert budget.may_wait("a")
        budget.wait("a", MIB, lambda: None)
    assert not budget.may_wait("a")
    assert budget.may_wait("b")


def test_nobody_gives_back_what_it_does_not_hold() -> None:
    budget = BodyBudget(64 * MIB)
    budget.take("a", 5)
    for size in (6, -1):
        with pytest.raises(ValueError, match="gives back"):
            budget.give_back("a", size)


# -- reservations -------------------------------------------------------------------------------------------


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch) -> BodyBudget:
    REFUSED.clear()
    monkeypatch.setattr(reservations, "WAIT_SECONDS", 0.05)
    return BodyBudget(64 * MIB, on_refused=REFUSED.append)


async def problem_of(growing: Callable[[], object]) -> Problem:
    with pytest.raises(Problem) as caught:
        await growing()  # type: ignore[misc]
    return caught.value


async def test_a_reservation_gives_back_what_it_held(budget: BodyBudget) -> None:
    held = Reservation(budget, "a")
    await held.grow_to(4 * MIB)
    await held.grow_to(3 * MIB)
    assert held.held == budget.held == 4 * MIB
    held.shrink_to(MIB)
    assert budget.held == MIB
    held.close()
    held.close()
    assert budget.held == 0


async def test_what_a_caller_can_never_have_is_refused_at_once(budget: BodyBudget) -> None:
    problem = await problem_of(lambda: Reservation(budget, "a").grow_to(16 * MIB + 1))
    assert problem.slug == "body-too-large"
    assert "HEARTH_BODY_MEMORY" in problem.detail


async def test_a_wait_ends_with_room_or_with_busy(budget: BodyBudget) -> None:
    first, second = Reservation(budget, "a"), Reservation(budget, "a")
    await first.grow_to(16 * MIB)
    problem = await problem_of(lambda: second.grow_to(MIB))
    assert (problem.slug, problem.status, problem.retry_after) == ("busy", 503, 2.0)
    assert REFUSED == ["body"]
    growing = asyncio.ensure_future(second.grow_to(MIB))
    await asyncio.sleep(0)
    first.close()
    await growing
    assert second.held == budget.held == MIB


async def test_half_read_bodies_that_want_more_do_not_wait_for_each_other(budget: BodyBudget) -> None:
    """Two that hold all of their share both ask for more: both are refused, and what they held is free again."""
    held = [Reservation(budget, "a"), Reservation(budget, "a")]
    for each in held:
        await each.grow_to(8 * MIB)
    ends = await asyncio.gather(*(each.grow_to(9 * MIB) for each in held), return_exceptions=True)
    assert [end.slug for end in ends if isinstance(end, Problem)] == ["busy", "busy"]
    assert budget.waiting == 0


@pytest.mark.parametrize("served_first", [True, False])
async def test_a_wait_that_is_cancelled_leaves_nothing_behind(budget: BodyBudget, served_first: bool) -> None:
    first, second = Reservation(budget, "a"), Reservation(budget, "a")
    await first.grow_to(16 * MIB)
    growing = asyncio.ensure_future(second.grow_to(MIB))
    await asyncio.sleep(0)
    if served_first:
        first.close()
    growing.cancel()
    await asyncio.gather(growing, return_exceptions=True)
    first.close()
    assert budget.held == budget.waiting == 0


async def test_one_large_document_is_parsed_at_a_time(budget: BodyBudget) -> None:
    first, second = Reservation(budget, "a"), Reservation(budget, "b")
    async with first.alone():
        problem = await problem_of(second.alone().__aenter__)
        assert problem.slug == "busy"
        assert REFUSED == ["document"]
    async with second.alone():
        pass


async def test_a_large_head_is_held_with_its_request(budget: BodyBudget) -> None:
    held = Reservation(budget, "a")
    assert held.take_head(SMALL_REQUEST)
    assert budget.held == 0
    assert held.take_head(100_000)
    await held.grow_to(MIB)
    assert budget.held == MIB + 100_000
    held.close()
    assert budget.held == 0
    assert not held.take_head(17 * MIB)
    assert REFUSED == ["head"]
