"""Pauses double up to a bound, and chance shortens them by a quarter at most."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pool.backoff import Backoff, Retries, jitter

BACKOFF = Backoff(0.5, 4.0)


def test_pauses_double_up_to_the_longest() -> None:
    assert [BACKOFF.pause(failures) for failures in (1, 2, 3, 4, 5, 10**9)] == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    assert BACKOFF.pause(2, 0.75) == 0.75


@given(chance=st.floats(0.0, 1.0), failures=st.integers(1, 10**6))
def test_chance_shortens_a_pause_by_a_quarter_at_most(chance: float, failures: int) -> None:
    whole = BACKOFF.pause(failures)
    assert 0.75 * whole <= BACKOFF.pause(failures, jitter(lambda: chance)) <= whole


def test_a_success_begins_with_the_first_pause_again() -> None:
    retries = Retries(BACKOFF, lambda: 1.0)
    assert [retries.failed() for _ in range(3)] == [0.5, 1.0, 2.0]
    retries.succeeded()
    assert (retries.failures, retries.failed()) == (0, 0.5)


def test_pauses_differ_by_chance() -> None:
    chances = iter((0.0, 1.0))
    retries = Retries(Backoff(1.0, 1.0), lambda: next(chances))
    assert [retries.failed(), retries.failed()] == [0.75, 1.0]
