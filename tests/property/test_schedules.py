"""When schedules fire, and what becomes of what is due: changes of the clock, down-time, overlap, jitter."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.definitions.language.cron import Cron
from scheduler.definitions.language.timetable import Timetable
from scheduler.triggers.due import (
    LATE_SECONDS,
    MAX_MADE_UP_FIRES,
    MAX_WAITING_FIRES,
    FireDecision,
    ScheduleState,
    decide_fires,
)

EXPRESSIONS = (
    "* * * * *",
    "*/7 * * * *",
    "0 * * * *",
    "30 2 * * *",
    "15,45 1-3 * * *",
    "0 0 * * *",
    "0 3 * * SUN",
    "0 12 L * *",
    "*/20 * * * * *",
    "30 30 2 * * *",
    "0 */6 1 JAN,JUL *",
)
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "America/Santiago",
)
CHANGES = {  # the hours around changes of the clock, in UTC
    "Europe/Berlin": ("2026-03-29 00:00", "2026-10-25 00:00"),
    "America/New_York": ("2026-03-08 06:00", "2026-11-01 05:00"),
    "Australia/Lord_Howe": ("2026-04-04 14:00", "2026-10-03 15:00"),
    "America/Santiago": ("2026-04-05 02:00", "2026-09-06 03:00"),
}


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


moments = st.one_of(
    st.integers(int(utc("2025-01-01")), int(utc("2027-01-01"))).map(float),
    st.builds(
        lambda change, seconds: utc(change) + seconds,
        st.sampled_from([change for changes in CHANGES.values() for change in changes]),
        st.integers(-3 * 3600, 6 * 3600),
    ),
)
crons = st.builds(Cron, st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES))


def local(cron: Cron, after: str, count: int) -> list[str]:
    """Times after a moment of UTC, as the clock on the wall shows them."""
    times = islice(cron.after(utc(after)), count)
    return [datetime.fromtimestamp(at, cron.zone).strftime("%d %H:%M %z") for at in times]


# -- cron -----------------------------------------------------------------------------------------------------


@given(crons, moments)
@settings(deadline=None)
def test_times_grow_and_where_one_begins_changes_none(cron: Cron, after: float) -> None:
    times = list(islice(cron.after(after), 12))
    assert after < times[0] and all(one < other for one, other in pairwise(times))
    for index, at in enumerate(times[:-1]):
        assert next(cron.after(at)) == times[index + 1]
        assert next(cron.after(at - 0.5)) == at
    middle = (after + times[0]) / 2
    assert next(cron.after(middle)) == times[0]


@given(crons, moments, st.floats(0, 2e6), st.integers(1, 20))
@settings(deadline=None)
def test_the_latest_are_the_end_of_all(cron: Cron, after: float, span: float, most: int) -> None:
    until = after + span / (100 if "*/20" in cron.expression else 1)
    every = []
    for at in cron.after(after):
        if at > until or len(every) > 40_000:
            break
        every.append(at)
    assert cron.latest(after, until, most) == every[-most:]


def test_a_time_that_does_not_exist_fires_when_the_clock_has_changed() -> None:
    assert local(Cron("30 2 * * *", "Europe/Berlin"), "2026-03-28 00:00", 3) == [
        "28 02:30 +0100",
        "29 03:00 +0200",
        "30 02:30 +0200",
    ]


def test_a_time_that_comes_twice_fires_the_first_time() -> None:
    assert local(Cron("30 2 * * *", "Europe/Berlin"), "2026-10-24 01:00", 3) == [
        "25 02:30 +0200",
        "26 02:30 +0100",
        "27 02:30 +0100",
    ]


def test_what_runs_every_hour_goes_by_real_time() -> None:
    times = list(islice(Cron("0 * * * *", "Europe/Berlin").after(utc("2026-10-24 20:00")), 10))
    assert {one - other for other, one in pairwise(times)} == {3600.0}


def test_seconds_are_the_first_of_six_fields() -> None:
    times = islice(Cron("10,40 * * * * *").after(utc("2026-01-01 00:00")), 3)
    assert [at - utc("2026-01-01 00:00") for at in times] == [10, 40, 70]


@pytest.mark.parametrize(
    "expression",
    ["", "* * * *", "* * * * * * *", "60 * * * *", "* 24 * * *", "x * * * *", "0 0 30 2 *", "*/0 * * * *"],
)
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="is not a cron expression"):
        Cron(expression)


@pytest.mark.parametrize("zone", ["", "Berlin", "../etc/passwd", "Europe", "UTC\0"])
def test_what_is_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="is not a time zone"):
        Cron("* * * * *", zone)


def test_the_zone_is_the_one_that_was_named() -> None:
    assert Cron("* * * * *", "Asia/Kolkata").zone == ZoneInfo("Asia/Kolkata")


# -- what is due ----------------------------------------------------------------------------------------------

START = utc("2026-01-01 00:00")
MINUTELY = Cron("* * * * *")


def table(**more: object) -> Timetable:
    return Timetable("t", MINUTELY, **more)  # type: ignore[arg-type]


def minutes(*numbers: int) -> tuple[float, ...]:
    return tuple(START + 60.0 * number for number in numbers)


def after_an_hour_away(**more: object) -> FireDecision:
    """What is decided by a process that begins to look when the one before it is gone for an hour."""
    now = START + 3600.0 + 1
    return decide_fires(table(**more), ScheduleState(START), now, now, running=False)


def test_nothing_is_due_between_two_times() -> None:
    state = ScheduleState(START)
    assert decide_fires(table(), state, START + 59, START, running=False) == FireDecision((), (), (), state)


def test_what_is_due_starts_once() -> None:
    decision = decide_fires(table(), ScheduleState(START), START + 60, START, running=False)
    assert decision == FireDecision(minutes(1), (), (), ScheduleState(START + 60))
    assert decide_fires(table(), decision.state, START + 60, START, running=False).start == ()


def test_of_down_time_none_the_last_or_all_is_made_up_for() -> None:
    assert after_an_hour_away(catch_up="none", overlap="allow").start == ()
    assert after_an_hour_away(catch_up="none", overlap="allow").missed == minutes(*range(1, 61))
    last = after_an_hour_away(catch_up="last", overlap="allow")
    assert (last.start, last.missed) == (minutes(60), minutes(*range(1, 60)))
    every = after_an_hour_away(catch_up="all", overlap="allow")
    assert (every.start, every.missed) == (minutes(*range(1, 61)), ())


def test_who_makes_up_for_all_and_skips_what_overlaps_starts_one() -> None:
    decision = after_an_hour_away(catch_up="all", overlap="skip")
    assert (decision.start, decision.skipped) == (minutes(1), minutes(*range(2, 61)))


def test_a_long_down_time_is_made_up_for_boundedly() -> None:
    now = START + 60.0 * 100_000
    decision = decide_fires(
        table(catch_up="all", overlap="allow"), ScheduleState(START), now, now, running=False
    )
    assert len(decision.start) == MAX_MADE_UP_FIRES and decision.start[-1] == now
    assert decision.state == ScheduleState(now)


def test_what_is_late_for_another_reason_is_missed_too() -> None:
    now = START + 600.0
    decision = decide_fires(
        table(catch_up="none", overlap="allow"), ScheduleState(START), now, START, running=False
    )
    assert decision.start == minutes(10) and decision.missed == minutes(*range(1, 10))


def test_a_fire_that_meets_a_running_start_is_skipped_or_waits_or_starts_beside_it() -> None:
    def met(overlap: str) -> FireDecision:
        return decide_fires(table(overlap=overlap), ScheduleState(START), START + 60, START, running=True)

    assert met("skip") == FireDecision((), minutes(1), (), ScheduleState(START + 60))
    assert met("queue") == FireDecision((), (), (), ScheduleState(START + 60, minutes(1)))
    assert met("allow") == FireDecision(minutes(1), (), (), ScheduleState(START + 60))


def test_what_waits_starts_in_order_one_at_a_time() -> None:
    waiting = ScheduleState(START + 120, minutes(1, 2))
    decision = decide_fires(table(overlap="queue"), waiting, START + 180, START, running=False)
    assert decision == FireDecision(minutes(1), (), (), ScheduleState(START + 180, minutes(2, 3)))


def test_no_more_waits_than_it_says() -> None:
    waiting = ScheduleState(START + 6000, minutes(*range(1, MAX_WAITING_FIRES + 1)))
    now = START + 60.0 * (MAX_WAITING_FIRES + 1)
    decision = decide_fires(table(overlap="queue"), waiting, now, START, running=True)
    assert decision.skipped == (now,) and len(decision.state.waiting) == MAX_WAITING_FIRES


def test_a_delay_that_is_longer_than_the_pause_makes_nothing_late_out_of_turn() -> None:
    timetable = Timetable("t", Cron("*/20 * * * * *"), "skip", "none", 40.0)
    decision = decide_fires(
        timetable, ScheduleState(1752614719.0), 1752614831.65, 1752614719.0, running=False
    )
    decided = sorted([*decision.start, *decision.skipped, *decision.missed])
    assert decided == timetable.cron.latest(1752614719.0, decision.state.considered, 100)


@given(
    crons,
    moments,
    st.sampled_from(["skip", "queue", "allow"]),
    st.sampled_from(["none", "last", "all"]),
    st.floats(0, 200),
    st.lists(st.tuples(st.floats(0, 4000), st.booleans(), st.booleans()), min_size=1, max_size=20),
)
@settings(deadline=None)
def test_every_time_is_decided_once_and_in_order(
    cron: Cron,
    begin: float,
    overlap: str,
    catch_up: str,
    jitter: float,
    looks: list[tuple[float, bool, bool]],
) -> None:
    """Whatever the pauses between looks, whatever restarts and still runs: nothing is lost, nothing is twice."""
    timetable = Timetable("t", cron, overlap, catch_up, jitter)  # type: ignore[arg-type]
    state, now, watched = ScheduleState(begin), begin, begin
    started: list[float] = []
    gone: list[float] = []
    for pause, restarted, running in looks:
        now += pause / (20 if "*/20" in cron.expression else 1)
        watched = now if restarted else watched
        due = timetable.next(state.considered)
        decision = decide_fires(timetable, state, now, watched, running)
        assert decision.state.considered >= state.considered
        if due is not None and due > now:
            assert decision.state.considered == state.considered
        if running and overlap != "allow":
            assert decision.start == ()
        if overlap != "allow":
            assert len(decision.start) <= 1
        if overlap != "queue":
            assert decision.state.waiting == ()
        if catch_up == "all":
            assert decision.missed == ()
        if overlap == "allow":
            assert decision.skipped == ()
        for at in decision.missed:
            assert at + timetable.delay(at) <= max(watched, now - LATE_SECONDS)
        assert all(at + timetable.delay(at) <= now for at in decision.start)
        started += decision.start
        gone += [*decision.missed, *decision.skipped]
        state = decision.state
    everything = sorted([*started, *gone, *state.waiting])
    assert started == sorted(started)
    assert everything == cron.latest(begin, state.considered, len(everything) + 1)


@given(st.floats(0.1, 1000), st.integers(0, 10_000))
def test_a_delay_is_within_the_jitter_and_always_the_same(jitter: float, number: int) -> None:
    timetable = Timetable("t", MINUTELY, jitter=jitter)
    delay = timetable.delay(START + number)
    assert 0 <= delay <= jitter and timetable.delay(START + number) == delay
    assert number % 60 + delay < 60, "it comes before the next"


def test_a_jitter_that_is_longer_than_the_pauses_loses_nothing_and_decides_what_is_due() -> None:
    """Else the fire that is due first may be out of sight: due for ever, and looked at without a pause."""
    timetable = Timetable("t", Cron("* * * * * *"), "allow", "all", jitter=86400.0)
    state, started = ScheduleState(START), list[float]()
    for hour in range(1, 5):
        now = START + 900.0 * hour
        decision = decide_fires(timetable, state, now, START, running=False)
        started, state = [*started, *decision.start], decision.state
        due = timetable.next(state.considered)
        assert due is not None and due > now
    assert started == [START + second for second in range(1, len(started) + 1)] and len(started) > 3590


def test_delays_differ_between_triggers_and_times() -> None:
    one, other = Timetable("a", MINUTELY, jitter=60.0), Timetable("b", MINUTELY, jitter=60.0)
    assert one.delay(START) != other.delay(START) != other.delay(START + 60)
