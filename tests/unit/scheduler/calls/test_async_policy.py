"""What is done about a run of an accepted call, whose calls come next, and what Prefer says: the pure parts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.preferences import MAX_WAIT_SECONDS, Preferences, preferences
from gateway.http.problems import TYPES
from scheduler.calls.model import Claim, Result, Status
from scheduler.calls.policy import Verdict, find_failure, has_expired, judge, pause_after
from scheduler.calls.running.fairness import (
    MAX_LEASED_AHEAD,
    SHORT_CALL_SECONDS,
    Lane,
    in_hand,
    next_to_run,
    places,
    share,
)
from scheduler.definitions.language.call_overrides import FAILURE_KINDS, RetryPolicy
from scheduler.work import NewCall, Request
from tests.support.lease_owners import ME


def answer(status: int) -> Result:
    return Result(status, [], b"")


def problem(slug: str) -> Result:
    status, _, blame = TYPES[slug]
    return Result(status, [], b"", slug, "why", blame)


def judged(result: Result, policy: RetryPolicy = RetryPolicy(), **more: float) -> Verdict:  # noqa: B008
    values = {"attempt": 1, "failures": 0, "since": 0.0, "now": 10.0, "jitter": 1.0} | more
    return judge(policy, result, **values)  # type: ignore[arg-type]


def test_an_answer_below_400_is_a_success_and_a_4xx_is_not_tried_again() -> None:
    for status in (200, 204, 302, 399):
        assert judged(answer(status)).status is Status.SUCCEEDED
    for status in (400, 404, 418, 499):
        assert judged(answer(status)).status is Status.FAILED
    assert judged(answer(404), RetryPolicy(on=frozenset({"404"}))).status is Status.QUEUED
    assert judged(answer(429)).status is Status.QUEUED


def test_what_each_problem_counts_as() -> None:
    crashed = {"instance-died", "contract-broken", "command-failed", "connection-lost"}
    not_run = {"queue-full", "quota-exceeded"}
    for slug, (_, _, blame) in TYPES.items():
        failure = find_failure(problem(slug))
        assert failure is not None
        if slug in crashed:
            assert "crash" in failure.names and failure.ran
        elif slug == "timeout":
            assert "timeout" in failure.names and failure.ran
        elif slug in not_run:
            assert failure.names == {"429"} and not failure.ran
        elif slug == "not-kept":
            assert failure.names == set() and failure.ran, "it would not fit the next time either"
        elif blame == "platform" or slug in ("function-failed", "no-such-function"):
            assert failure.names == {"platform"} and not failure.ran
    assert "5xx" in find_failure(problem("handler-raised")).names  # type: ignore[union-attr]
    assert judged(problem("bad-request")).status is Status.FAILED


def test_attempts_are_used_up_by_runs_and_not_by_a_platform_that_fails() -> None:
    policy = RetryPolicy(attempts=2)
    first = judged(answer(500), policy)
    assert (first.status, first.failures) == (Status.QUEUED, 1)
    assert judged(answer(500), policy, attempt=2, failures=1).status is Status.DEAD
    for attempt in (1, 50):
        verdict = judged(problem("engine-down"), policy, attempt=attempt, failures=1)
        assert (verdict.status, verdict.failures) == (Status.QUEUED, 1)


def test_what_the_policy_does_not_name_ends_at_once() -> None:
    policy = RetryPolicy(on=frozenset({"platform"}))
    assert judged(problem("timeout"), policy).status is Status.TIMED_OUT
    assert judged(problem("instance-died"), policy).status is Status.FAILED
    assert judged(answer(503), policy).status is Status.FAILED
    assert judged(problem("no-capacity"), policy).status is Status.QUEUED


def test_a_call_whose_next_run_would_come_too_late_has_expired() -> None:
    policy = RetryPolicy(max_event_age=12.0, backoff=5.0)
    assert judged(answer(500), policy, now=6.9).status is Status.QUEUED
    assert judged(answer(500), policy, now=7.0).status is Status.EXPIRED
    assert not has_expired(policy, 0.0, 11.9) and has_expired(policy, 0.0, 12.0)


@given(st.integers(1, 10_000), st.floats(0.001, 100), st.floats(0.001, 1000))
def test_pauses_double_and_stay_within_their_bound(attempt: int, backoff: float, most: float) -> None:
    policy = RetryPolicy(backoff=backoff, max_backoff=most)
    pause, following = pause_after(attempt, policy), pause_after(attempt + 1, policy)
    assert 0 < pause <= following <= most
    assert following in (most, 2 * pause)


counts = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 40), max_size=6)


@given(waiting=counts, held=counts, most=counts, room=st.integers(0, 60))
def test_places_go_to_those_who_hold_the_fewest(
    waiting: dict[str, int], held: dict[str, int], most: dict[str, int], room: int
) -> None:
    granted = share(waiting, held, most, room)
    after = {name: held.get(name, 0) + granted.get(name, 0) for name in waiting}
    assert sum(granted.values()) <= room
    for name, count in granted.items():
        assert 0 < count <= waiting[name] and after[name] <= most.get(name, 1)
    left = [n for n in waiting if granted.get(n, 0) < waiting[n] and after[n] < most.get(n, 1)]
    if sum(granted.values()) < room:
        assert not left, "a place was left free though a call could have had it"
    for hungry in left:
        for name in granted:
            assert after[name] <= after[hungry] + 1, "somebody got more while another who has less waits"


def test_a_long_backlog_keeps_no_other_function_waiting_for_a_place() -> None:
    assert share({"big": 100_000, "small": 1}, {"big": 32}, {"big": 64, "small": 8}, 1) == {"small": 1}


class CountedReads(dict[str, int]):
    """A dictionary that counts how often a value is asked for."""

    reads = 0

    def get(self, *key_and_default: Any) -> Any:
        self.reads += 1
        return super().get(*key_and_default)


@pytest.mark.parametrize("functions", [10, 1000])
def test_a_decision_looks_at_each_waiting_function_a_few_times_however_many_wait(functions: int) -> None:
    names = [f"f{number}" for number in range(functions)]
    held = CountedReads()
    granted = share(dict.fromkeys(names, 3), held, dict.fromkeys(names, 8), 1000)
    assert sum(granted.values()) == min(1000, 3 * functions)
    assert held.reads <= 2 * functions


def test_half_the_slots_at_least_one_and_more_only_of_short_calls() -> None:
    for seconds in (None, 0.5, SHORT_CALL_SECONDS):
        assert [places(slots, seconds) for slots in (1, 2, 3, 16, 1000)] == [1, 1, 1, 8, 500]
    assert [places(slots, 0.001) for slots in (1, 2, 3, 16, 1000)] == [1, 1, 2, 15, 999]
    assert in_hand(8, None) == in_hand(8, 0.5) == 8
    assert 8 < in_hand(8, 0.001) <= 8 + MAX_LEASED_AHEAD


def lane(function: str, running: int, ready: int = 1) -> Lane:
    made = Lane(function)
    made.running, made.at_once = running, 3
    made.ready.extend([Claim(NewCall("c", function, Request(), b""), 1, 0, 0.0, ME)] * ready)
    return made


@pytest.mark.parametrize(
    ("lanes", "chosen"),
    [
        ([lane("a", 2), lane("b", 1)], "b"),
        ([lane("b", 1), lane("a", 1)], "a"),
        ([lane("a", 2), lane("b", 0, ready=0), lane("c", 3)], "a"),
        ([lane("a", 2, ready=0)], None),
        ([lane("a", 3)], None),
        ([], None),
    ],
)
def test_who_runs_the_fewest_is_next(lanes: list[Lane], chosen: str | None) -> None:
    picked = next_to_run(lanes)
    assert (picked and picked.function) == chosen


def prefer(*values: str) -> Preferences:
    return preferences([(b"accept", b"*/*"), *((b"prefer", value.encode()) for value in values)])


def test_prefer_is_read_as_rfc_7240_has_it() -> None:
    assert prefer() == prefer("return=minimal") == prefer("respond-asynchronously") == Preferences()
    assert prefer("respond-async") == prefer("Respond-Async; x=y") == Preferences(True)
    for values in (
        ["respond-async, wait=5"],
        ["wait=5", "respond-async"],
        ['respond-async,wait="5", wait=7'],
    ):
        assert prefer(*values) == Preferences(True, 5.0)
    assert prefer("respond-async, wait=later").wait is None
    assert prefer("respond-async, wait=100000").wait == MAX_WAIT_SECONDS
    assert FAILURE_KINDS == ("platform", "timeout", "crash", "429", "5xx")
