"""What a restarted gateway takes over: by the records only, and nothing else stays. On virtual time."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool.adoption.records import left_warm
from pool.clock import VirtualClock
from pool.contracts.handler import HANDLER
from pool.data_folder import DataFolder
from pool.engine.base import ContainerSpec, EngineError
from pool.engine.labels import GATEWAY_LABEL, INSTANCE_LABEL, LOOK_LABEL
from pool.engine.memory import MemoryEngine
from pool.host.uids import OWN_USER, SHARED_USER
from pool.instance import Instance
from pool.states import Reason, State
from pool.workload import Workload
from scheduler.dispatch.function import Limits, Prewarm
from tests.support.virtual_pool import IMAGE as IMAGE_NAME
from tests.support.virtual_pool import MIB, World
from tests.support.virtual_pool import OTHER_IMAGE as OTHER_NAME

LIMITS = Limits()
IMAGE, OTHER_IMAGE = (MemoryEngine(VirtualClock()).add_image(name).id for name in (IMAGE_NAME, OTHER_NAME))
"""By their ids, as containers are made from them."""


def prewarm(count: int, image: str = IMAGE) -> dict[str, Prewarm]:
    return {image: Prewarm(ContainerSpec(name="", image=image, user=OWN_USER, memory=128 * MIB), count)}


def workload(function: str = "f", version: str = "1", memory: int = 128, **keys: object) -> Workload:
    container = ContainerSpec(name="", image=IMAGE, user=OWN_USER, memory=memory * MIB)
    keys.setdefault("freeze_after", None)
    return Workload(function=function, version=version, contract=HANDLER, container=container, **keys)  # type: ignore[arg-type]


@asynccontextmanager
async def a_world(path: Path, **keys: int) -> AsyncIterator[World]:
    folder = DataFolder(path)
    world = World(folder=folder, **keys)  # type: ignore[arg-type]
    try:
        yield world
        await world.close()
        assert list(folder.records.glob("*")) == []
    finally:
        folder.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path / "data") as made:
        yield made


async def warm(world: World, wanted: Workload) -> Instance:
    """An instance of a function that has served one call."""
    world.dispatcher.deploy(wanted, LIMITS)
    caller = world.arrive(world.dispatcher.functions[wanted.function])
    await world.clock.advance(1.0)
    assert caller.lease is not None
    world.dispatcher.release(caller.lease)
    return caller.lease.instance


async def started_again(world: World, *workloads: Workload, **kept: dict[str, Prewarm]) -> World:
    world.kill()
    await world.clock.settle()
    await world.clock.run(world.restart(workloads, kept.get("kept", {})))
    await world.clock.advance(1.0)
    return world


def states(world: World) -> dict[str, str]:
    return {i.id: str(i.state) for i in world.pool.ledger.instances.values()}


async def test_a_warm_instance_is_adopted_with_its_age_and_its_next_call_is_warm(world: World) -> None:
    instance = await warm(world, workload())
    await world.clock.advance(50.0)
    age = world.clock.now() - instance.created_at
    await started_again(world, workload())
    [adopted] = world.pool.ledger.instances.values()
    assert (adopted.id, adopted.state, adopted.workload) == (instance.id, State.IDLE, workload())
    assert adopted is not instance
    assert world.clock.now() - adopted.created_at == pytest.approx(age + 1.0)
    caller = world.arrive(world.dispatcher.functions["f"])
    assert caller.lease is not None
    assert caller.lease.kind == "warm"
    world.dispatcher.release(caller.lease)
    assert world.pool.ledger.removals == {}


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (workload(version="2"), Reason.REPLACED),
        (workload(function="g"), Reason.REPLACED),
        (
            dataclasses.replace(workload(), container=ContainerSpec(name="", image=IMAGE, pids=7)),
            Reason.REPLACED,
        ),
        (workload(max_invocations=3), Reason.MAX_INVOCATIONS),
    ],
)
async def test_what_is_not_what_is_wanted_now_is_removed(world: World, now: Workload, reason: Reason) -> None:
    await warm(world, workload())
    await started_again(world, now)
    assert world.pool.ledger.removals == {reason: 1}
    assert world.engine.alive() == 0


async def test_generic_instances_are_adopted_for_their_own_image_only(world: World) -> None:
    world.dispatcher.set_prewarm(prewarm(2))
    await world.clock.advance(2.0)
    before = set(world.pool.ledger.instances)
    world.launcher.adopt_seconds = 0.5
    await started_again(world, kept=prewarm(2))
    assert states(world) == dict.fromkeys(before, "prewarmed")
    assert len(world.launcher.launched) == 2, "another was started although one was being adopted"
    await started_again(world, kept=prewarm(1))
    assert len(world.pool.ledger.prewarmed(IMAGE)) == 1
    assert world.pool.ledger.removals == {Reason.SURPLUS: 1}
    await started_again(world, kept=prewarm(1, OTHER_IMAGE))
    assert world.pool.ledger.removals == {Reason.REPLACED: 1}
    assert not world.pool.ledger.prewarmed(IMAGE)


async def test_one_that_had_code_sent_is_never_taken_for_a_generic_one(world: World) -> None:
    """Whatever it says of itself: the record was written before."""
    world.dispatcher.set_prewarm(prewarm(1))
    await world.clock.advance(1.0)
    [generic] = world.pool.ledger.prewarmed(IMAGE)
    world.pool.specialise(generic, workload(generic=True))
    await world.clock.advance(0.001)
    assert generic.state is State.SPECIALISING
    await started_again(world, workload(generic=True), kept=prewarm(1))
    assert generic.id not in world.pool.ledger.instances
    assert world.pool.ledger.removals == {Reason.ORPHANED: 1}


async def test_an_instance_that_cannot_be_reached_is_removed_and_who_waits_is_served_by_another(
    world: World,
) -> None:
    instance = await warm(world, workload())
    world.launcher.unreachable.add(instance.id)
    world.kill()
    await world.clock.run(world.restart([workload()], {}))
    caller = world.arrive(world.dispatcher.functions["f"])
    await world.clock.advance(1.0)
    assert caller.lease is not None
    assert caller.lease.kind == "cold"
    world.dispatcher.release(caller.lease)
    assert world.pool.ledger.removals == {Reason.ORPHANED: 1}


async def test_a_single_use_instance_has_no_record(world: World) -> None:
    world.dispatcher.deploy(workload(reuse=False, min_instances=1), LIMITS)
    await world.clock.advance(1.0)
    [instance] = world.pool.ledger.instances.values()
    assert list(world.folder.records.glob("*")) == []  # type: ignore[union-attr]
    await started_again(world, workload(reuse=False, min_instances=1))
    assert instance.id not in world.pool.ledger.instances
    assert [i.state for i in world.pool.ledger.instances.values()] == [State.IDLE]


async def test_a_smaller_budget_is_kept_to(tmp_path: Path) -> None:
    async with a_world(tmp_path / "data") as world:
        for name in "abc":
            await warm(world, workload(name))
        world.budget = 300 * MIB
        await started_again(world, *(workload(name) for name in "abc"))
        assert len(world.pool.ledger.instances) == 2
        assert world.pool.ledger.removals == {Reason.EVICTED: 1}
        assert world.pool.ledger.memory_declared == 256 * MIB


async def test_an_instance_that_drains_is_not_adopted(world: World) -> None:
    instance = await warm(world, workload())
    caller = world.arrive(world.dispatcher.functions["f"])
    assert caller.lease is not None
    world.pool.drain(instance, Reason.REQUESTED)
    assert instance.state is State.DRAINING
    await started_again(world, workload())
    assert world.pool.ledger.removals == {Reason.ORPHANED: 1}


async def test_what_is_left_on_purpose_keeps_its_count(world: World) -> None:
    counted = workload(max_invocations=3)
    instance = await warm(world, counted)
    assert left_warm(world.folder.records) == set()  # type: ignore[union-attr]
    assert await world.clock.run(world.pool.close(keep_warm=True)) == 1
    assert left_warm(world.folder.records) == {instance.id}  # type: ignore[union-attr]
    await started_again(world, counted)
    [adopted] = world.pool.ledger.instances.values()
    assert (adopted.id, adopted.served) == (instance.id, 1)
    assert left_warm(world.folder.records) == set()  # type: ignore[union-attr]


async def test_only_containers_of_this_gateway_are_looked_at(world: World) -> None:
    labels = {GATEWAY_LABEL: "other", INSTANCE_LABEL: "theirs"}
    await world.clock.run(
        world.engine.create(ContainerSpec(name="hearth-theirs", image=IMAGE, labels=labels))
    )
    await started_again(world)
    assert [c.name for c in await world.engine.containers({})] == ["hearth-theirs"]
    await world.clock.run(world.engine.remove("hearth-theirs"))


async def test_a_container_that_only_looked_into_an_image_is_removed_and_one_of_a_build_is_not(
    world: World,
) -> None:
    """The first was left by a gateway that was killed in between. The label of the second comes from its image."""
    assert world.folder is not None
    ours = {GATEWAY_LABEL: world.folder.id}
    for name, labels in (("hearth-users-x", ours | {LOOK_LABEL: ""}), ("of-a-build", ours)):
        await world.clock.run(world.engine.create(ContainerSpec(name=name, image=IMAGE, labels=labels)))
    await started_again(world)
    assert [c.name for c in await world.engine.containers({})] == ["of-a-build"]
    assert world.pool.ledger.removals == {Reason.ORPHANED: 1}
    await world.clock.run(world.engine.remove("of-a-build"))


async def test_an_engine_that_does_not_answer_is_asked_again_and_nothing_is_lost(world: World) -> None:
    instance = await warm(world, workload())
    world.kill()
    world.engine.fail_next("containers", EngineError("away"))
    with pytest.raises(EngineError, match="away"):
        await world.clock.run(world.restart([workload()], {}))
    await started_again(world, workload())
    assert states(world) == {instance.id: "idle"}


async def test_folders_and_records_of_nobody_are_cleared(world: World) -> None:
    folder = world.folder
    assert folder is not None
    for name in ("run/0123", "work/x", "code"):
        (folder.path / name).mkdir(parents=True)
    instance = await warm(world, workload())
    (folder.run / instance.id).mkdir()
    (folder.records / "0123.json").write_text("{")
    (folder.records / "4567.new").write_text("")
    await started_again(world, workload())
    assert [f.name for f in folder.run.iterdir()] == [instance.id]
    assert [f.name for f in folder.records.iterdir()] == [f"{instance.id}.json"]
    assert not folder.work.exists()
    assert not folder.code.exists()


STEPS = st.lists(
    st.tuples(st.sampled_from(["call", "call", "end", "wait", "die"]), st.integers(0, 2**16)), max_size=25
)


@settings(max_examples=150, deadline=None)
@given(
    steps=STEPS, moment=st.sampled_from([0.0, 0.005, 0.02, 0.1, 0.131, 0.14, 0.2, 3.0]), again=st.booleans()
)
def test_whenever_it_is_killed_all_containers_are_accounted_for(
    steps: list[tuple[str, int]], moment: float, again: bool
) -> None:
    wanted = [
        workload("kept", min_instances=1, generic=True),
        workload("fresh", reuse=False, generic=True),
        workload("packed", concurrency=3, memory=300),
        workload("worn", max_invocations=2),
    ]

    async def run(path: Path) -> None:
        async with a_world(path, budget=1500 * MIB) as world:
            leases = []
            for function in wanted:
                world.dispatcher.deploy(function, LIMITS)
            world.dispatcher.set_prewarm(prewarm(1))
            callers = []
            for what, roll in steps:
                if what == "call":
                    functions = list(world.dispatcher.functions.values())
                    callers.append(world.arrive(functions[roll % len(functions)]))
                elif what == "wait":
                    await world.pass_time((0.003, 0.05, 0.3)[roll % 3])
                elif what == "end" and leases:
                    world.dispatcher.release(leases.pop(roll % len(leases)))
                elif what == "die" and world.pool.ledger.instances:
                    everyone = list(world.pool.ledger.instances.values())
                    world.kill_instance(everyone[roll % len(everyone)])
                leases += [
                    c.lease for c in callers if c.lease and not c.lease.ended and c.lease not in leases
                ]
            await world.clock.advance(moment)
            for _ in range(1 + again):
                world.kill()
                for caller in callers:
                    if caller.task is not None:
                        caller.task.cancel()
                await world.clock.settle()
                await world.clock.run(world.restart(wanted, prewarm(1)))
                if again:
                    await world.clock.advance(moment / 2)
            await world.pass_time(5.0)
            await world.clock.run(world.reaper.catch_up())
            await world.pass_time(5.0)
            world.check()
            instances = world.pool.ledger.instances
            assert {c.labels[INSTANCE_LABEL] for c in await world.engine.containers({})} == set(instances)
            assert {str(i.state) for i in instances.values()} <= {"idle", "prewarmed"}
            recorded = {i.id for i in instances.values() if not (i.workload and i.workload.single_use)}
            assert {f.stem for f in world.folder.records.iterdir()} == recorded  # type: ignore[union-attr]
            for function in world.dispatcher.functions.values():
                caller = world.arrive(function)
                await world.clock.advance(1.0)
                assert caller.lease is not None
                world.dispatcher.release(caller.lease)

    with tempfile.TemporaryDirectory() as path:
        asyncio.run(run(Path(path) / "data"))


async def test_a_record_that_cannot_be_removed_does_not_hold_back_a_removal(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    instance = await warm(world, workload())
    assert world.folder is not None
    record = world.folder.records / f"{instance.id}.json"
    record.unlink()
    record.mkdir()  # which cannot be unlinked, by root either
    world.pool.remove(instance, Reason.REQUESTED)
    await world.clock.advance(1.0)
    assert instance.state is State.GONE
    assert "Cannot remove the record" in caplog.text
    record.rmdir()


# -- whose uid -----------------------------------------------------------------------------------------------


async def test_an_adopted_container_keeps_its_uid_and_nobody_else_gets_it(world: World) -> None:
    world.dispatcher.set_prewarm(prewarm(1))
    instance = await warm(world, workload())
    await world.clock.advance(1.0)
    before = {i.id: i.uid for i in world.pool.ledger.instances.values()}
    assert len(before) == len(set(before.values())) == 2
    await started_again(world, workload(), kept=prewarm(1))
    assert {i.id: i.uid for i in world.pool.ledger.instances.values()} == before
    assert world.pool.ledger.uids.held == set(before.values())
    world.check()
    assert instance.uid in before.values()


async def test_the_uid_of_what_is_not_adopted_is_taken_until_the_engine_has_removed_it(world: World) -> None:
    instance = await warm(world, workload())
    world.kill()
    await world.clock.settle()
    world.engine.always_fail("remove", EngineError("busy"))
    await world.clock.run(world.restart([workload(version="2")], {}))
    await world.clock.advance(3.0)
    assert world.pool.ledger.uids.held == {instance.uid}
    world.engine.heal()
    await world.clock.advance(10.0)
    assert world.pool.ledger.uids.held == frozenset()


async def test_what_a_gateway_left_that_gave_all_containers_one_uid_is_adopted(world: World) -> None:
    """Its containers have no label with a uid, and its records a digest with the shared user."""

    def as_before(wanted: Workload) -> Workload:
        container = dataclasses.replace(wanted.container, user=SHARED_USER)
        return dataclasses.replace(wanted, container=container)

    old_prewarm = {
        image: dataclasses.replace(target, prototype=dataclasses.replace(target.prototype, user=SHARED_USER))
        for image, target in prewarm(1).items()
    }
    world.dispatcher.set_prewarm(old_prewarm)
    instance = await warm(world, as_before(workload()))
    await world.clock.advance(1.0)
    before = set(world.pool.ledger.instances)
    assert len(before) == 2
    assert instance.uid is None
    await started_again(world, workload(), kept=prewarm(1))
    assert set(world.pool.ledger.instances) == before
    assert world.pool.ledger.removals == {}
    assert world.pool.ledger.uids.held == frozenset()
    caller = world.arrive(world.dispatcher.functions["f"])
    assert caller.lease is not None
    assert caller.lease.kind == "warm"
    world.dispatcher.release(caller.lease)
