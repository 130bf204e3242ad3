"""Large work is done one at a time with a bounded number that waits, and nobody waits for others without end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from gateway.http import pieces
from gateway.http.pieces import MAX_WAITING_BODIES, SMALL_BODY_BYTES, WorkQueue, in_time, unhurried
from gateway.http.problems import Problem
from pool.clock import VirtualClock
from scheduler.calls import waiters
from scheduler.calls.waiters import Waiters


async def test_small_work_is_done_at_once_and_large_work_one_by_one_in_a_thread() -> None:
    work_queue, at_once, most = WorkQueue(), 0, 0

    def work() -> str:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        name = threading.current_thread().name
        at_once -= 1
        return name

    assert await work_queue.do(SMALL_BODY_BYTES, work) == threading.current_thread().name
    names = await asyncio.gather(
        *(work_queue.do(SMALL_BODY_BYTES + 1, work) for _ in range(MAX_WAITING_BODIES))
    )
    assert threading.current_thread().name not in names
    assert most == 1


async def test_no_more_large_work_waits_than_may() -> None:
    work_queue, free = WorkQueue(most_waiting=2), threading.Event()
    waiting = [asyncio.ensure_future(work_queue.in_turn(lambda: free.wait(30))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Problem, match="too many large bodies wait") as refused:
        await work_queue.in_turn(lambda: None)
    assert refused.value.slug == "busy"
    free.set()
    assert await asyncio.gather(*waiting) == [True, True]
    assert await work_queue.in_turn(lambda: 1) == 1


async def test_a_refusal_keeps_nothing_of_what_was_parsed() -> None:
    def work() -> None:
        try:
            raise ValueError("low down")
        except ValueError:
            raise Problem("bad-request", "why") from None

    with pytest.raises(Problem, match="why") as refused:
        await WorkQueue().in_turn(work)
    assert refused.value.__context__ is None
    assert "work" not in [entry.name for entry in refused.traceback]


async def test_who_has_waited_long_enough_is_told_and_the_work_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, free, done = VirtualClock(), asyncio.Event(), asyncio.Event()

    async def work() -> int:
        await free.wait()
        done.set()
        raise ValueError("it went wrong")

    told = f"cancelling the run takes longer than {pieces.WORK_TIMEOUT_SECONDS:g} s and continues"
    with pytest.raises(Problem, match=told) as refused:
        await clock.run(in_time(work(), "cancelling the run", clock))
    assert clock.now() == pieces.WORK_TIMEOUT_SECONDS
    assert refused.value.slug == "conflict"
    free.set()
    await done.wait()
    await asyncio.sleep(0)
    assert "it went wrong" in caplog.text
    assert await clock.run(in_time(asyncio.sleep(0, 7), "x", clock)) == 7


async def test_the_loop_turns_between_the_pieces_of_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "TURN_SECONDS", 0.0)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    items = list(range(100))
    seen = []
    async for item in unhurried(items):
        items.clear()
        seen.append(item)
    counting.cancel()
    assert seen == list(range(100)), "as it was at the start"
    assert turns >= 99


def test_only_so_many_wait_for_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiters, "MAX_WAITERS", 2)

    async def main() -> None:
        some = Waiters(VirtualClock())
        with some.waiting("a"), some.waiting("a"):
            assert (some.total, some.full, len(some)) == (2, True, 1)
        assert (some.total, some.full) == (0, False)

    asyncio.run(main())
