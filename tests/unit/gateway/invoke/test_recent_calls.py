"""The record of calls: what it keeps, what it forgets first, and what it gives to whoever follows it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.access import OPEN
from gateway.invoke.invocation import Invocation
from gateway.invoke.recent_calls import (
    LONGEST_DETAIL,
    CallFacts,
    FailedCalls,
    Failure,
    Follower,
    RecentCalls,
    SeenCall,
)
from pool.clock import VirtualClock

RAISED = Failure("handler-raised", "function", "KeyError: 'name'")


def facts(id: str, function: str = "f", arrived: float = 0.0, status: int = 200) -> CallFacts:
    return CallFacts(id, function, "v1", arrived, "warm", 0.0, 0.0, 0.001, OPEN, status)


def ids(calls: list[SeenCall]) -> list[str]:
    return [call.facts.id for call in calls]


def test_the_oldest_good_calls_are_forgotten_first_and_push_out_no_failed_one() -> None:
    record = RecentCalls(VirtualClock(), most_served=3)
    record.keep_failed(facts("bad"), RAISED)
    for number in range(10):
        record.keep_served(tuple(facts(str(number))))
    assert sorted(record.ids()) == ["7", "8", "9", "bad"]
    assert not record.knows("6")
    bad = record.find("bad")
    assert bad is not None and bad.failure == RAISED


def test_a_run_that_ends_late_leaves_a_later_one_of_the_same_call_known() -> None:
    record = RecentCalls(VirtualClock())
    early, late = (Invocation(arrived, "f", "same") for arrived in (1.0, 2.0))
    for run in (early, late):
        record.running[run.id] = run
    record.runs_no_more(early)
    assert [call.facts.arrived for call in record.calls()] == [2.0]
    record.runs_no_more(late)
    record.runs_no_more(late)
    assert not list(record.calls())


def test_a_detail_that_is_no_text_or_would_control_a_terminal_is_written_out() -> None:
    record = RecentCalls(VirtualClock())
    record.keep_failed(facts("bad"), RAISED._replace(detail="\ud800 \x9b2J \u2028 é\n"))
    (bad,) = record.calls()
    assert bad.failure is not None and bad.failure.detail == "\\ud800 \\x9b2J \\u2028 é\n"


def test_a_flood_of_failures_of_one_function_pushes_out_its_own() -> None:
    failed = FailedCalls(most=10)
    for name in ("a", "b"):
        failed.add(name, SeenCall(facts(name, name), RAISED))
    for number in range(100):
        failed.add("flood", SeenCall(facts(str(number), "flood"), RAISED))
    assert ids(failed.after(0)) == ["a", "b", *(str(number) for number in range(92, 100))]


def test_a_function_within_its_share_takes_room_from_the_one_with_the_most() -> None:
    failed = FailedCalls(most=4)
    for number in range(4):
        failed.add("many", SeenCall(facts(str(number)), RAISED))
    failed.add("few", SeenCall(facts("few"), RAISED))
    assert ids(failed.after(0)) == ["1", "2", "3", "few"]


@given(st.lists(st.sampled_from("abcdefgh"), max_size=80), st.integers(1, 6))
def test_failed_calls_are_bounded_and_shared_fairly(functions: list[str], most: int) -> None:
    failed = FailedCalls(most)
    for number, function in enumerate(functions):
        failed.add(function, SeenCall(facts(str(number), function), RAISED))
    kept = failed.after(0)
    assert len(kept) == len(failed) == min(len(functions), most)
    assert kept == sorted(kept, key=lambda call: int(call.facts.id)), "in the order of their ends"
    held = {name: [int(c.facts.id) for c in kept if c.facts.function == name] for name in set(functions)}
    for name, numbers in held.items():
        latest = [n for n, function in enumerate(functions) if function == name]
        assert numbers == latest[len(latest) - len(numbers) :], "the latest of each function stay"
    if functions:
        assert kept[-1].facts.id == str(len(functions) - 1) or most < len(set(functions))


@pytest.mark.parametrize("character", ["x", "\x1b"])
def test_of_a_long_detail_begin_and_end_are_kept(character: str) -> None:
    record = RecentCalls(VirtualClock())
    record.keep_failed(facts("a"), RAISED._replace(detail=f"begin {character * 50_000} KeyError: 'end'"))
    seen = record.find("a")
    assert seen is not None and seen.failure is not None
    assert seen.failure.detail.startswith("begin ")
    assert seen.failure.detail.endswith(" KeyError: 'end'")
    assert len(seen.failure.detail) <= LONGEST_DETAIL


def test_the_failures_of_all_jobs_share_one_ring() -> None:
    record = RecentCalls(VirtualClock(), failed=FailedCalls(most=4))
    record.keep_failed(facts("mine", "f"), RAISED)
    for number in range(50):
        record.keep_failed(facts(str(number), f"job:{number}"), RAISED)
    assert record.knows("mine"), "fifty jobs are not fifty functions"


def test_a_call_that_runs_is_known_on_both_ways() -> None:
    class Client:
        running: Invocation | None = None

    record, client = RecentCalls(VirtualClock()), Client()
    record.callers.add(client)
    assert not list(record.ids())
    client.running = Invocation(1.0, "fast", "1")
    record.running["2"] = Invocation(2.0, "long", "2")
    assert {call.facts.function: call.running for call in record.calls()} == {"fast": True, "long": True}
    client.running = None
    assert not record.knows("1") and record.knows("2")


def test_a_call_with_several_runs_is_found_by_its_latest() -> None:
    record = RecentCalls(VirtualClock())
    record.keep_failed(facts("a", arrived=1.0), RAISED)
    record.keep_served(tuple(facts("a", arrived=2.0)))
    found = record.find("a")
    assert found is not None and found.failure is None


def test_a_follower_is_given_each_call_once() -> None:
    record = RecentCalls(VirtualClock(), most_served=3)
    record.keep_served(tuple(facts("before")))
    record.keep_failed(facts("before too"), RAISED)
    follower = Follower(record)
    assert follower.take() == []
    record.keep_served(tuple(facts("1", arrived=1.0)))
    record.keep_failed(facts("2", arrived=2.0), RAISED)
    assert ids(follower.take()) == ["1", "2"]
    assert follower.take() == []
    for number in range(3, 9):
        record.keep_served(tuple(facts(str(number), arrived=float(number))))
    assert ids(follower.take()) == ["6", "7", "8"], "what was forgotten meanwhile is left out"


def test_a_follower_of_an_empty_record_misses_nothing() -> None:
    record = RecentCalls(VirtualClock())
    follower = Follower(record)
    record.keep_served(tuple(facts("1")))
    assert ids(follower.take()) == ["1"]


async def test_a_machine_that_slept_does_not_move_the_calls_of_before() -> None:
    class Sleeping(VirtualClock):
        slept = 0.0

        def wall(self) -> float:
            return super().wall() + self.slept

    clock = Sleeping()
    record = RecentCalls(clock)
    await clock.advance(5.0)
    early, wall = clock.now(), clock.wall()
    clock.slept = 8 * 3600.0
    await clock.advance(5.0)
    list(record.calls())
    late = clock.now()
    assert record.wall_times.wall(early) == pytest.approx(wall)
    assert record.wall_times.wall(late) == pytest.approx(clock.wall())
