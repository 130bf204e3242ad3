"""When the C library's heap is trimmed: soon and often while much goes, never while nothing does."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest

from gateway.memory.allocator import (
    CHECK_SECONDS,
    FAST_CHECK_SECONDS,
    LARGE_BYTES,
    WORTH_TRIMMING_BYTES,
    give_back_freed,
)
from gateway.memory.budget import BodyBudget
from pool.clock import VirtualClock

MIB = 2**20


class Heap:
    """A gateway's budget, and how much had gone at each trim."""

    def __init__(self) -> None:
        self.budget, self.clock = BodyBudget(2048 * MIB), VirtualClock()
        self.trims: list[int] = []
        """Bytes that were held at each."""

    def trim(self, _: int) -> None:
        self.trims.append(self.budget.held)

    async def wait(self, seconds: float) -> None:
        """Let time pass, in steps of 10 ms, each with what runs in a thread."""
        for _ in range(round(seconds * 100)):
            await self.clock.advance(0.01)
            await asyncio.to_thread(int)
            await self.clock.settle()


@pytest.fixture
async def heap() -> AsyncIterator[Heap]:
    made = Heap()
    running = asyncio.ensure_future(give_back_freed(made.budget, made.clock, made.trim))
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_much_that_goes_is_given_back_in_small_parts(heap: Heap) -> None:
    """All at once would stop whoever allocates for a tenth of a second."""
    assert heap.budget.take("a", 480 * MIB)
    await heap.wait(CHECK_SECONDS)
    assert heap.trims == []
    held = [heap.budget.held]
    while heap.budget.held:
        heap.budget.give_back("a", 8 * MIB)
        await heap.wait(FAST_CHECK_SECONDS)
    held += heap.trims
    steps = [before - after for before, after in itertools.pairwise(held)]
    assert len(steps) >= 20
    assert max(steps) <= LARGE_BYTES + 16 * MIB


async def test_what_came_and_went_between_two_looks_is_noticed(heap: Heap) -> None:
    assert heap.budget.take("a", WORTH_TRIMMING_BYTES)
    heap.budget.give_back("a", WORTH_TRIMMING_BYTES)
    await heap.wait(2 * CHECK_SECONDS)
    assert heap.trims == [0]
    await heap.wait(5 * CHECK_SECONDS)
    assert heap.trims == [0]


async def test_bodies_that_come_and_go_all_the_time_are_not_trimmed_after_each(heap: Heap) -> None:
    for _ in range(250):
        assert heap.budget.take("a", LARGE_BYTES - 1)
        heap.budget.give_back("a", LARGE_BYTES - 1)
        await heap.wait(FAST_CHECK_SECONDS)
    assert 3 <= len(heap.trims) <= 6


async def test_a_library_without_it_is_left_alone() -> None:
    await give_back_freed(BodyBudget(1), VirtualClock(), None)
