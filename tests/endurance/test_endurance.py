"""Hours of mixed load, with faults and without, in a form that takes seconds.

`make chaos` and `make soak` run the long forms. What is called, when and what goes wrong comes from one seed, which a
failure shows: `pytest tests/endurance --seed=N` makes the same choices again.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from books import Holdings, differences, files_of, unexplained
from callers import Caller, World
from harness import Gateway, eventually
from mischief import Mischief
from mix import Question, functions, heavy_question, nonces, quick_question

pytestmark = [pytest.mark.engine, pytest.mark.alone]

WATCHED = (sys.executable, str(Path(__file__).with_name("watched_gateway.py")))
QUICK, HEAVY = 24, 2
PREWARM = {"python": 1}
WARM_UP = 5
"""Seconds."""
SPARE = 4
"""File descriptors by which two looks may differ: connections kept open, to the engine and from this test."""
FLAT = 0.05
"""How much the memory may grow, as a part of it."""


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Where all choices come from."""
    number = int(request.config.getoption("--seed"))
    print(f"--seed={number}")
    return number


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    """How long the load lasts."""
    return float(request.config.getoption("--seconds"))


def port_of(gateway: Gateway) -> int:
    return int(gateway.url.rpartition(":")[2])


@asynccontextmanager
async def clients(world: World, seed: int, mischief: bool, pause: float) -> AsyncIterator[None]:
    """The clients, which call as long as the block lasts; a fault of their own ends the test.

    `pause` is the mean of the seconds between calls that cost a container.
    """
    callers = []
    for number in range(QUICK + HEAVY):
        chance, nonce = random.Random(f"{seed}/{number}"), nonces(f"{number:x}")
        if number < QUICK:
            callers.append(
                Caller(world, chance, partial(quick, chance, nonce, world, mischief), leaving=0.01)
            )
        else:
            ask = partial(heavy, chance, nonce, mischief)
            callers.append(Caller(world, chance, ask, leaving=0.1, pause=pause))
    world.calling.set()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(caller.run()) for caller in callers]
        yield
        for task in tasks:
            task.cancel()


def quick(chance: random.Random, nonce: Iterator[str], world: World, mischief: bool) -> Question:
    return quick_question(chance, next(nonce), world.versions, mischief)


def heavy(chance: random.Random, nonce: Iterator[str], mischief: bool) -> Question:
    return heavy_question(chance, next(nonce), mischief)


async def half_rate(world: World) -> float:
    """Half of the calls a second that these clients can make: the best of a few seconds, since the first are cold."""
    world.rate = 0
    best = 0
    for _ in range(WARM_UP):
        before = world.calls
        await asyncio.sleep(1)
        best = max(best, world.calls - before)
    return best / 2


@dataclass(frozen=True, slots=True)
class Sample:
    """The gateway's process at one moment."""

    at: float
    memory: int
    files: int


def slope(samples: list[Sample]) -> float:
    """Bytes a minute that the memory grows by: least squares."""
    at = sum(s.at for s in samples) / len(samples)
    memory = sum(s.memory for s in samples) / len(samples)
    return (
        60 * sum((s.at - at) * (s.memory - memory) for s in samples) / sum((s.at - at) ** 2 for s in samples)
    )


def middle(samples: list[Sample]) -> float:
    return statistics.median(s.memory for s in samples)


async def check_at_rest(gateway: Gateway, world: World) -> None:
    """Nobody calls: all is accounted for, and counted as the clients saw it."""
    await world.rest()
    await asyncio.to_thread(eventually, gateway.books_agree, 30)
    faults = world.wrong + differences(gateway.http.get("/metrics").text, world.seen)
    assert not faults, "\n".join(faults)
    world.removals.update(gateway.http.get("/pool").json()["removals"])


def check_holdings(gateway: Gateway, before: Holdings, after: Holdings) -> None:
    """At rest as many tasks as at rest before, and soon as many files but for connections that are kept."""
    assert after.tasks == before.tasks
    eventually(lambda: files_of(gateway).total() <= before.files.total() + SPARE, 30)


def summary(world: World, seconds: float) -> str:
    """What the clients saw, by outcome."""
    seen = world.everything
    outcomes: Counter[str] = Counter()
    for (_, outcome), count in seen.ended.items():
        outcomes[outcome] += count
    left = seen.left.total() + seen.left_early.total()
    return (
        f"{world.calls} calls in {seconds:.0f} s ({world.rate:.0f}/s wanted): {dict(outcomes)}, "
        f"{seen.cut.total()} cut, {left} left by their client, {world.killed_calls} ended with the gateway; "
        f"instances removed: {dict(world.removals)}"
    )


async def test_chaos_gives_no_wrong_answer(tmp_path: Path, seed: int, seconds: float):
    settings = {"memory_budget": "1536MiB", "log_level": "error", "spare_memory": 0}  # here files are counted
    with Gateway(tmp_path, functions(0), PREWARM, settings, wrapper=WATCHED) as gateway:
        world = World(port_of(gateway))
        mischief = Mischief(gateway, world, random.Random(seed), pause=0.25)
        rounds = max(2, round(seconds / 30))
        before = await asyncio.to_thread(Holdings, gateway, PREWARM["python"])
        began = time.monotonic()
        try:
            async with clients(world, seed, mischief=True, pause=0.3):
                world.rate = await half_rate(world)
                for number in range(rounds):
                    if number:
                        await mischief.restart()
                    await mischief.run(seconds / rounds)
                    await check_at_rest(gateway, world)
                    if number + 1 < rounds:
                        world.calling.set()
                after = await asyncio.to_thread(Holdings, gateway, PREWARM["python"])
        finally:
            print(summary(world, time.monotonic() - began))
            print(f"faults: {dict(mischief.done)}; ready again after {mischief.recoveries}")
        assert unexplained(world.everything, mischief.hurt) == []
        await asyncio.to_thread(check_holdings, gateway, before, after)
        assert mischief.done.total() > seconds / 4


async def test_memory_files_and_tasks_stay_as_they_are(tmp_path: Path, seed: int, seconds: float):
    with Gateway(
        tmp_path,
        functions(0, timeout=30),
        PREWARM,
        {"log_level": "error", "spare_memory": 0},
        wrapper=WATCHED,
    ) as gateway:
        world = World(port_of(gateway))
        samples: list[Sample] = []
        async with clients(world, seed, mischief=False, pause=1):
            world.rate = await half_rate(world)
            await check_at_rest(gateway, world)
            before = await asyncio.to_thread(Holdings, gateway, PREWARM["python"])
            world.calling.set()
            began = time.monotonic()
            while (at := time.monotonic() - began) < seconds:
                samples.append(Sample(at, gateway.memory(), files_of(gateway).total()))
                await asyncio.sleep(seconds / 100)
            await check_at_rest(gateway, world)
            after = await asyncio.to_thread(Holdings, gateway, PREWARM["python"])
        print(summary(world, time.monotonic() - began))
        warm, late = samples[len(samples) // 5 :], samples[-len(samples) // 5 :]
        early = warm[: len(samples) // 5]
        growth = middle(late) / middle(early) - 1
        print(
            f"memory {middle(early) / 2**20:.1f} MiB, in the end {middle(late) / 2**20:.1f} MiB ({growth:+.1%}), "
            f"{slope(warm) / 1024:+.1f} KiB a minute; at most {max(s.files for s in samples)} file descriptors; "
            f"at rest {before}, in the end {after}"
        )
        assert unexplained(world.everything, Counter()) == []
        await asyncio.to_thread(check_holdings, gateway, before, after)
        assert abs(growth) <= FLAT
