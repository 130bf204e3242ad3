"""What is logged of invocations that fail: the first lines of a kind, then counts."""

from __future__ import annotations

import pytest

from gateway.http.problems import Problem
from gateway.invoke.refusal_log import LINES, LOGGED_DETAIL, MOST_KINDS, WINDOW, RefusalLog
from pool.clock import VirtualClock


async def test_a_flood_of_one_kind_is_counted_and_others_are_still_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = VirtualClock()
    refusals = RefusalLog(clock)
    for number in range(5000):
        refusals.note(f"id{number}", "f", Problem("handler-raised", f"KeyError: {number}"))
    refusals.note("other", "g", Problem("handler-raised", "ValueError"))
    refusals.note("again", "f", Problem("timeout", "f ran past its timeout of 1 s"))
    told = caplog.messages
    assert len(told) == LINES + 2
    assert told[0] == "invocation id0 of f: handler-raised: KeyError: 0"
    assert told[-2:] == [
        "invocation other of g: handler-raised: ValueError",
        "invocation again of f: timeout: f ran past its timeout of 1 s",
    ]
    caplog.clear()

    await clock.advance(WINDOW)
    refusals.note("late", "f", Problem("handler-raised", "KeyError: 1"))
    assert caplog.messages == [
        f"{5000 - LINES} more invocations of f failed with handler-raised within {WINDOW:.0f} s",
        "invocation late of f: handler-raised: KeyError: 1",
    ]


def test_a_long_detail_is_cut_and_many_kinds_take_bounded_room(caplog: pytest.LogCaptureFixture) -> None:
    refusals = RefusalLog(VirtualClock())
    refusals.note("a", "f", Problem("handler-raised", f"it printed: {'x' * 10_000} KeyError: 'end'"))
    assert len(caplog.messages[0]) < LOGGED_DETAIL + 100
    assert "handler-raised: it printed: xxx" in caplog.messages[0]
    assert caplog.messages[0].endswith("xxx KeyError: 'end'")
    for number in range(3 * MOST_KINDS):
        refusals.note("a", f"f{number}", Problem("handler-raised", "x"))
    assert refusals.kinds <= MOST_KINDS
