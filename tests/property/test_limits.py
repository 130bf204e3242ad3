"""The token bucket against exact arithmetic, and scopes against the shell's own matching."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from gateway.access.limits import Quota, Rate, TokenBucket, parse_rate
from gateway.access.scopes import parse_scopes

rates = st.builds(Rate, st.integers(1, 10_000), st.sampled_from("smh"))
gaps = st.lists(st.integers(0, 10_000_000).map(lambda micro: micro / 1e6), max_size=200)


@given(rates, st.integers(1, 1000), gaps)
def test_a_bucket_gives_what_exact_arithmetic_gives(rate: Rate, burst: int, waits: list[float]) -> None:
    bucket = TokenBucket(rate.per_second, float(burst), 0.0)
    exact_rate = Fraction(rate.count, {"s": 1, "m": 60, "h": 3600}[rate.period])
    tokens, now = Fraction(burst), 0.0
    for wait in waits:
        before, now = now, now + wait
        tokens = min(Fraction(burst), tokens + (Fraction(now) - Fraction(before)) * exact_rate)
        given_wait = bucket.take(now)
        assert given_wait >= 0.0
        if given_wait == 0.0:
            assert tokens >= 1 - Fraction(1, 10**6)
            tokens -= 1
        else:
            assert tokens < 1 + Fraction(1, 10**6)
            assert math.isclose(given_wait, float((1 - tokens) / exact_rate), rel_tol=1e-3, abs_tol=1e-3)


@given(rates, st.integers(1, 100), gaps)
def test_who_waits_as_long_as_it_is_told_is_served(rate: Rate, burst: int, waits: list[float]) -> None:
    bucket, now = TokenBucket(rate.per_second, float(burst), 0.0), 0.0
    for wait in waits:
        now += wait
        refused = bucket.take(now)
        if refused:
            now += refused * (1 + 1e-9) + 1e-6
            assert bucket.take(now) == 0.0


@given(rates, st.integers(1, 50), gaps)
def test_never_more_than_the_burst_and_the_rate_allow(rate: Rate, burst: int, waits: list[float]) -> None:
    bucket = Quota(rate, burst).bucket(0.0)
    assert bucket is not None
    now, served = 0.0, 0
    for wait in waits:
        now += wait
        served += bucket.take(now) == 0.0
        assert served <= burst + now * rate.per_second + 1e-6


@given(rates, st.integers(1, 50), st.lists(st.tuples(st.floats(0, 1000), st.integers(1, 1000)), max_size=50))
def test_what_is_owed_is_made_up_for_before_anything_else(
    rate: Rate, burst: int, batches: list[tuple[float, int]]
) -> None:
    bucket = Quota(rate, burst).bucket(0.0)
    assert bucket is not None
    now, served, largest = 0.0, 0, 0
    for wait, more in batches:
        now += wait
        largest = max(largest, more)
        if bucket.take(now) == 0.0:
            assert bucket.owe(more, now) == 0.0, "nothing is owed where a token was left"
            served += 1 + more
        assert served <= burst + now * rate.per_second + largest + 1e-3
        if (owed := bucket.owe(1, now)) > 0.0:
            assert bucket.take(now) >= owed
        else:
            served += 1


@given(rates, st.integers(1, 50), st.integers(1, 1000), st.floats(0, 1000), gaps)
def test_what_is_given_back_was_never_taken(
    rate: Rate, burst: int, more: int, meanwhile: float, waits: list[float]
) -> None:
    bucket, other = Quota(rate, burst).bucket(0.0), Quota(rate, burst).bucket(0.0)
    assert bucket is not None and other is not None
    assert [bucket.take(0.0), other.take(0.0), bucket.owe(more, 0.0)] == [0.0] * 3
    bucket.give_back(more, meanwhile)
    now, ahead = meanwhile, 0
    for wait in waits:
        now += wait
        ahead += (bucket.take(now) == 0.0) - (other.take(now) == 0.0)
        assert ahead in (-1, 0, 1), "but for what arithmetic loses"


@given(rates)
def test_a_rate_is_read_as_it_is_written(rate: Rate) -> None:
    assert parse_rate(str(rate)) == rate


names = st.text("ab-_0", min_size=1, max_size=8)
patterns = st.text("ab-_0*", min_size=1, max_size=8).filter(lambda p: p.count("*") <= 2)


@given(st.lists(patterns, min_size=1, max_size=4), names)
def test_scopes_match_as_the_shell_does(words: list[str], name: str) -> None:
    scopes = parse_scopes([f"invoke:{word}" for word in words])
    assert scopes.may_invoke(name) is any(fnmatchcase(name, word) for word in words)


@given(st.text(max_size=100))
def test_a_name_that_is_none_is_in_no_scope_but_all(name: str) -> None:
    assert parse_scopes(["invoke:*"]).may_invoke(name)
    if not name.startswith("shop"):
        assert not parse_scopes(["invoke:shop*", "read", "deploy"]).may_invoke(name)
