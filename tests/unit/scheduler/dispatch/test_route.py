"""Where a name leads, and what a function keeps while one revision takes the place of another."""

from __future__ import annotations

import pytest

from pool.contracts.handler import HANDLER
from pool.engine.base import ContainerSpec
from pool.lease import Lease
from pool.workload import DEFAULT_TENANT, Workload
from scheduler.dispatch.function import Function, Limits, Revision
from scheduler.dispatch.route import Route
from tests.support.virtual_pool import World


def revision(version: str, function: Function | None = None) -> Revision:
    container = ContainerSpec(name="", image="i")
    workload = Workload(function="f", version=version, contract=HANDLER, container=container)
    return Revision(function or Function(workload), workload, Limits())


def test_one_revision_needs_no_draw() -> None:
    one = revision("1")
    route = Route((one, 7.0))
    assert route.only is route.draw() is one
    assert {route.pick(draw / 100) for draw in range(100)} == {one}
    assert route.function is one.function


def test_calls_are_shared_by_weight() -> None:
    old, new, off = revision("1"), revision("2"), revision("3")
    route = Route((old, 90), (off, 0), (new, 10))
    assert route.only is None and route.revisions == (old, new)
    picked = [route.pick(draw / 1000) for draw in range(1000)]
    assert picked == [old] * 900 + [new] * 100
    assert route.draw() in (old, new)


@pytest.mark.parametrize("count", range(1, 30))
def test_every_draw_falls_on_a_revision_whatever_fractions_add_up_to(count: int) -> None:
    revisions = [revision(str(number)) for number in range(count)]
    route = Route(*((each, 1 / 3) for each in revisions))
    assert route.pick(0.0) is revisions[0]
    assert route.pick(1 - 2**-53) is revisions[-1]


@pytest.mark.parametrize("weights", [(), (0.0,), (1.0, -1.0)])
def test_a_route_leads_somewhere(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="route"):
        Route(*((revision("1"), weight) for weight in weights))


async def test_a_function_needs_no_word_for_its_tenant_and_is_not_private() -> None:
    world = World()
    function = world.deploy().function
    assert (function.name, function.tenant, function.private) == ("f", DEFAULT_TENANT, False)
    await world.close()


async def test_the_next_revision_takes_over_the_queue_and_what_starts_take_but_no_other_measurement() -> None:
    world = World()
    old = world.deploy(max_instances=1)
    first = world.arrive(old)
    await world.clock.advance(1.0)
    assert first.lease is not None
    waiting = world.arrive(old)
    await world.clock.settle()
    old.exec_seconds, old.start_seconds = 5.0, 0.7
    new = world.deploy(version="2", max_instances=1)
    assert new.function is old.function and world.dispatcher.revision_for("f") is new
    assert (old.retired, old.waiting, new.waiting) == (True, 0, 1)
    assert (new.exec_seconds, new.start_seconds) == (None, 0.7)
    world.check()
    world.dispatcher.release(first.lease)
    assert old.exec_seconds == 5.0 and new.exec_seconds is None, (
        "a call of the old one says nothing of the new"
    )
    await world.clock.advance(1.0)
    lease = await world.result_of(waiting)
    assert lease.workload.version == "2"
    world.dispatcher.release(lease)
    await world.close()


async def test_a_call_that_was_admitted_to_a_replaced_revision_is_served_by_the_next() -> None:
    world = World()
    old = world.deploy()
    new = world.deploy(version="2")
    caught: list[Lease | None] = []
    world.dispatcher.enqueue(old, "i", world.clock.now(), lambda lease, fault: caught.append(lease))
    assert (old.waiting, new.waiting) == (0, 1)
    await world.clock.advance(1.0)
    [lease] = caught
    assert lease is not None and lease.workload.version == "2"
    world.dispatcher.release(lease)
    await world.close()


async def test_private_functions_share_a_label_and_leave_no_tally() -> None:
    world = World(cores=8)
    for number in range(3):
        function = world.deploy(f"job:{number}", private=True)
        world.arrive(function)
    world.arrive(world.deploy("open"))
    await world.clock.advance(0.01)
    ledger = world.pool.ledger
    ledger.export(world.metrics)
    labels = {labels[0] for labels, count in world.metrics.instances.read()}
    assert labels == {"(jobs)", "open"}
    for number in range(3):
        world.dispatcher.withdraw(f"job:{number}")
    await world.clock.advance(5.0)
    assert ledger.states("job:0") == {}
    assert {labels[0] for labels, count in world.metrics.instances.read()} == {"open"}
    await world.close()
