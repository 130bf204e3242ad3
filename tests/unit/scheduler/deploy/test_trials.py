"""New revisions are tried out before any call goes to them, on virtual time and the engine in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pool.contracts.command import COMMAND
from pool.data_folder import DataFolder
from pool.engine.base import EngineError
from pool.instance import Instance
from pool.states import Reason, State
from pool.workload import Workload
from scheduler.deploy.trials import Trial, TrialFault, Trials
from scheduler.dispatch.dispatcher import RETIRE_DELAY_SECONDS
from scheduler.dispatch.function import Limits, Revision
from tests.support.virtual_pool import COLD, MIB, SPECIALISE, TRACEBACK, Caller, World

LIMITS = Limits()


class Bench:
    """A world with trials, and what came of them, by version."""

    def __init__(self, **keys: Any) -> None:
        self.world = World(**keys)
        self.trials = Trials(self.world.dispatcher, self.world.clock)
        self.faults: dict[str, TrialFault | None] = {}

    def try_out(self, version: str = "2", name: str = "f", max_instances: int = 16, **keys: Any) -> None:
        """Begin the trial of a version, which is put into service if it works."""
        workload = self.world.workload(name, version, **keys)

        def ended(fault: TrialFault | None) -> None:
            self.faults[version] = fault
            if fault is None:
                self.world.dispatcher.deploy(workload, LIMITS, max_instances)

        self.trials.begin(Trial(workload, LIMITS, ended))

    def serving(self, name: str = "f") -> str:
        """Return the version that calls go to."""
        revision = self.world.dispatcher.revision_for(name)
        assert revision is not None
        return revision.version

    def instances(self, version: str, name: str = "f") -> list[Instance]:
        """Return the instances of a version."""
        of = self.world.pool.ledger.of(name)
        return [i for i in of if i.workload is not None and i.workload.version == version]

    async def called(self, **keys: Any) -> Revision:
        """Deploy version 1 and warm one instance of it."""
        revision = self.world.deploy(**keys)
        await self.world.clock.run(self.world.call(revision, 0.01))
        return revision


@asynccontextmanager
async def bench_of(**keys: Any) -> AsyncIterator[Bench]:
    bench = Bench(**keys)
    yield bench
    bench.world.check()
    await bench.world.clock.run(bench.trials.close())
    await bench.world.close()


async def test_calls_go_to_the_revision_before_until_the_next_is_ready_and_its_instance_is_warm() -> None:
    async with bench_of() as bench:
        world, old = bench.world, await bench.called()
        bench.try_out()
        await world.clock.advance(COLD - 0.01)
        lease = await world.clock.run(world.call(old, 0.0))
        assert (lease.workload.version, bench.serving()) == ("1", "1")
        await world.clock.advance(0.02)
        assert (bench.serving(), bench.faults) == ("2", {"2": None})
        created = world.engine.calls["create"]
        lease = await world.clock.run(world.call(old, 0.0))
        assert (lease.workload.version, lease.kind) == ("2", "prewarmed")
        assert world.engine.calls["create"] == created, "the instance of the trial serves"
        await world.clock.advance(1.0)
        assert bench.instances("1") == []
        assert world.pool.ledger.removals == {Reason.REPLACED: 1}


async def test_a_revision_that_cannot_be_imported_changes_nothing() -> None:
    async with bench_of() as bench:
        world, old = bench.world, await bench.called()
        [warm] = bench.instances("1")
        world.launcher.broken.add("f@2")
        bench.try_out()
        await world.clock.advance(5.0)
        fault = bench.faults["2"]
        assert fault is not None and not fault.may_pass
        assert fault.message == "ModuleNotFoundError: No module named 'nowhere'"
        assert fault.printed == TRACEBACK.decode()
        assert (bench.serving(), bench.instances("1"), bench.instances("2")) == ("1", [warm], [])
        assert list(old.function.revisions) == ["1"]
        assert (await world.clock.run(world.call(old, 0.0))).kind == "warm"
        bench.try_out("3")
        await world.clock.advance(1.0)
        assert bench.serving() == "3"


@pytest.mark.parametrize("waits", [False, True])
async def test_instances_of_the_revision_before_are_removed_when_the_first_calls_have_passed(
    tmp_path: Path, waits: bool
) -> None:
    folder = DataFolder(tmp_path)
    async with bench_of(folder=folder) as bench:
        world = bench.world
        await bench.called()
        busy = world.deploy("g", max_instances=1)
        callers = [world.arrive(busy) for _ in range(1 + waits)]  # the second may need the memory
        await world.clock.advance(1.0)
        bench.try_out()
        while bench.serving() == "1":
            await world.clock.advance(0.001)
        [old] = bench.instances("1")
        assert old.state is State.STOPPING
        assert world.records is not None and world.records.has(old.id) is not waits
        pause = 0.0 if waits else RETIRE_DELAY_SECONDS
        await world.clock.advance(pause - 0.01 if pause else 0.001)
        assert world.engine.calls["remove"] == waits
        await world.clock.advance(0.02)
        assert world.engine.calls["remove"] == 1 and not world.records.has(old.id)
        await world.clock.advance(1.0)
        assert bench.instances("1") == []
        for caller in callers:
            assert caller.lease is not None
            world.dispatcher.release(caller.lease)
            await world.clock.settle()
    folder.close()


@pytest.mark.parametrize("long", [False, True])
async def test_at_max_instances_one_instance_makes_place_for_the_trial(long: bool) -> None:
    async with bench_of() as bench:
        world, old = bench.world, await bench.called(max_instances=1)
        busy = world.arrive(old) if long else None
        bench.try_out(max_instances=1)
        await world.clock.settle()
        waits = world.arrive(old)
        await world.clock.advance(1.0)
        world.check()
        assert world.containers_of("f") == 1
        if busy is not None:
            assert busy.lease is not None and waits.waits, "a call is ended for a trial"
            world.dispatcher.release(busy.lease)
            await world.clock.advance(1.0)
        assert waits.lease is not None and waits.lease.workload.version == "2"
        world.dispatcher.release(waits.lease)
        assert bench.serving() == "2"


async def test_a_gateway_stays_ready_while_a_trial_takes_the_place_of_a_min_instance() -> None:
    async with bench_of() as bench:
        world = bench.world
        await bench.called(min_instances=1, max_instances=1)
        assert world.dispatcher.settled()
        bench.try_out(min_instances=1, max_instances=1)
        ready = []
        while bench.serving() == "1":
            await world.clock.advance(0.01)
            ready.append(world.dispatcher.settled())
        assert all(ready) and bench.instances("1") == []


async def test_a_failed_trial_gives_the_place_back_to_the_revision_in_service() -> None:
    async with bench_of() as bench:
        world, old = bench.world, await bench.called(max_instances=1)
        world.launcher.broken.add("f@2")
        bench.try_out(max_instances=1)
        await world.clock.settle()
        waits = world.arrive(old)
        await world.clock.advance(2.0)
        assert bench.faults["2"] is not None
        assert waits.lease is not None and waits.lease.workload.version == "1"
        world.dispatcher.release(waits.lease)


async def test_a_trial_comes_between_the_calls_of_a_full_queue() -> None:
    async with bench_of() as bench:
        world, old = bench.world, await bench.called(max_instances=2)
        callers: list[Caller] = []

        async def client() -> None:
            while bench.serving() == "1":
                callers.append(world.arrive(old))
                lease = callers[-1].lease or await world.result_of(callers[-1])
                await world.clock.sleep(0.2)
                world.dispatcher.release(lease)

        clients = [asyncio.ensure_future(client()) for _ in range(8)]
        await world.clock.advance(2.0)
        bench.try_out(max_instances=2)
        await world.clock.advance(5.0)
        assert bench.serving() == "2"
        await world.clock.run(asyncio.gather(*clients))
        assert all(caller.error is None for caller in callers)


@pytest.mark.parametrize("min_instances", [0, 1])
async def test_where_memory_is_for_one_instance_only_the_one_in_service_makes_room(
    min_instances: int,
) -> None:
    async with bench_of(budget=128 * MIB) as bench:
        await bench.called(min_instances=min_instances)
        bench.try_out(min_instances=min_instances)
        await bench.world.clock.advance(2.0)
        bench.world.check()
        assert (bench.serving(), len(bench.instances("2"))) == ("2", 1)


async def test_functions_that_nobody_calls_are_tried_out_one_after_the_other_and_take_no_memory_from_others() -> (
    None
):
    async with bench_of(budget=4 * 128 * MIB, cores=4) as bench:
        world = bench.world
        await bench.called(name="busy")
        names = [f"f{number}" for number in range(20)]
        for name in names:
            world.deploy(name)
        for name in names:
            bench.try_out(f"{name}-new", name)
        most = 0
        while any(bench.serving(name) != f"{name}-new" for name in names):
            await world.clock.advance(0.01)
            most = max(most, world.pool.ledger.starting)
            world.check()
        assert most == 1
        assert world.pool.ledger.count("busy") == 1, (
            "the warm instance of a function that is called was evicted"
        )
        assert world.pool.ledger.memory_free >= 0


async def test_functions_that_are_called_are_tried_out_no_more_at_once_than_there_are_cores() -> None:
    async with bench_of(cores=2) as bench:
        world = bench.world
        names = [f"f{number}" for number in range(6)]
        for name in names:
            await bench.called(name=name)
            world.launcher.endless.add(f"{name}@{name}-new")
        for name in names:
            bench.try_out(f"{name}-new", name)
        await world.clock.advance(30.0)
        tried = [name for name in names if bench.instances(f"{name}-new", name)]
        assert len(tried) == 2


async def test_the_latest_of_two_changes_wins_and_the_first_is_not_waited_for() -> None:
    async with bench_of() as bench:
        world, old = bench.world, await bench.called()
        world.launcher.endless.add("f@2")
        bench.try_out("2")
        await world.clock.advance(1.0)
        assert len(bench.instances("2")) == 1
        bench.try_out("3")
        await world.clock.advance(1.0)
        assert (bench.serving(), bench.faults, list(old.function.revisions)) == ("3", {"3": None}, ["3"])
        assert bench.instances("2") == []


async def test_a_trial_under_way_goes_on_when_the_same_is_to_be_tried_out_again() -> None:
    async with bench_of() as bench:
        world = bench.world
        await bench.called()
        bench.try_out()
        await world.clock.advance(COLD / 2)
        [begun] = bench.instances("2")
        bench.try_out()
        await world.clock.advance(COLD)
        assert bench.serving() == "2" and bench.instances("2") == [begun]


async def test_going_back_to_the_revision_in_service_ends_the_trial() -> None:
    async with bench_of() as bench:
        world, old = bench.world, await bench.called()
        bench.try_out()
        await world.clock.settle()
        bench.trials.drop("f")
        world.deploy()
        await world.clock.advance(1.0)
        assert (bench.serving(), bench.faults, bench.instances("2")) == ("1", {}, [])
        assert list(old.function.revisions) == ["1"]


async def test_a_function_that_goes_takes_its_trial_with_it() -> None:
    async with bench_of() as bench:
        world = bench.world
        await bench.called()
        bench.try_out()
        await world.clock.settle()
        bench.trials.drop("f")
        world.dispatcher.withdraw("f")
        await world.clock.advance(1.0)
        assert bench.faults == {} and world.pool.ledger.count("f") == 0


async def test_no_trial_begins_while_the_gateway_shuts_down() -> None:
    async with bench_of() as bench:
        await bench.called()
        created = bench.world.engine.calls["create"]
        bench.world.dispatcher.close()
        bench.try_out()
        await bench.world.clock.advance(1.0)
        assert bench.world.engine.calls["create"] == created and not bench.faults


async def test_an_engine_that_is_away_or_fails_says_nothing_of_the_code() -> None:
    async with bench_of() as bench:
        world, old = bench.world, await bench.called()
        world.engine.fail_next("create", EngineError("no space left on device"))
        bench.try_out("2")
        await world.clock.advance(1.0)
        fault = bench.faults["2"]
        assert fault is not None and fault.may_pass and "no space left" in fault.message
        world.engine.stop()
        await world.clock.advance(60.0)
        bench.try_out("3")
        await world.clock.advance(60.0)
        fault = bench.faults["3"]
        assert fault is not None and fault.may_pass
        world.engine.resume()
        await world.clock.advance(60.0)
        assert bench.serving() == "1" and list(old.function.revisions) == ["1"]
        bench.try_out("2")
        await world.clock.advance(5.0)
        assert bench.serving() == "2"


@pytest.mark.parametrize("kills", [1, 2, 3])
async def test_an_instance_that_is_killed_in_its_trial_is_replaced_twice(kills: int) -> None:
    async with bench_of() as bench:
        world = bench.world
        await bench.called()
        world.launcher.die_at_import = kills
        bench.try_out()
        await world.clock.advance(10 * COLD)
        if kills < 3:
            assert (bench.serving(), bench.faults) == ("2", {"2": None})
        else:
            fault = bench.faults["2"]
            assert bench.serving() == "1" and fault is not None and "ended" in fault.message


async def test_only_what_an_instance_can_tell_is_tried_out() -> None:
    async with bench_of() as bench:
        needed: Callable[[Workload], bool] = bench.trials.needed
        make = bench.world.workload
        assert not needed(make("new")), "there is nothing that could serve meanwhile"
        bench.world.deploy()
        assert needed(make(version="2"))
        assert needed(make(version="2", reuse=False))
        assert not needed(make(version="1"))
        assert needed(make(version="2", contract=COMMAND))


async def test_a_prewarmed_instance_makes_a_trial_short() -> None:
    async with bench_of() as bench:
        world = bench.world
        world.prewarm(1)
        await bench.called(generic=True)
        await world.clock.advance(1.0)
        bench.try_out(generic=True)
        await world.clock.advance(2 * SPECIALISE)
        assert bench.serving() == "2"
