"""A lease takes a connection, gives it back, and says how its instance came to serve the call."""

from __future__ import annotations

import pytest

from pool.contracts.handler import HANDLER
from pool.engine.base import ContainerSpec
from pool.errors import NotSent
from pool.instance import Instance
from pool.lease import Lease, start_kind
from pool.transport.message import Call
from pool.workload import Workload
from tests.support.virtual_pool import FakeLink

WORKLOAD = Workload(function="f", version="1", contract=HANDLER, container=ContainerSpec(name="", image="i"))
CALL = Call(b"POST", b"/", [])


def instance(
    ready_at: float | None = 0.0, generic: bool = False, served: int = 0, in_use: int = 0
) -> Instance:
    made = Instance("one", "i", 1, None if generic else WORKLOAD, 0.0)
    made.workload, made.ready_at, made.served, made.in_use = WORKLOAD, ready_at, served, in_use
    return made


@pytest.mark.parametrize(
    ("kind", "of"),
    [
        ("warm", instance(served=1)),
        ("warm", instance(in_use=1)),
        ("warm", instance(served=1, generic=True)),
        ("prewarmed", instance(ready_at=5.0, generic=True)),
        ("prewarmed", instance(ready_at=20.0, generic=True)),
        ("prewarmed", instance(ready_at=10.0)),
        ("cold", instance(ready_at=10.1)),
    ],
)
def test_kinds(kind: str, of: Instance) -> None:
    assert start_kind(of, arrived=10.0) == kind
    assert Lease(of, WORKLOAD, "i1", 10.0, 11.0).kind == kind


async def test_a_lease_holds_its_connection_until_it_ends() -> None:
    one, link = instance(), FakeLink(lambda: None)
    one.link = link
    [connection] = link.free
    lease = Lease(one, WORKLOAD, "i1", 1.0, 2.0)
    lease.take()
    assert lease.connection is connection
    assert await lease.connect(CALL) is connection
    assert link.free == []
    lease.end(5.5)
    assert lease.ended
    assert lease.seconds == 3.5
    assert link.free == [connection]


async def test_no_link_means_that_nothing_was_sent() -> None:
    one = instance()
    lease = Lease(one, WORKLOAD, "i1", 1.0, 2.0)
    with pytest.raises(NotSent):
        await lease.connect(CALL)
    lease.end(3.0)
    assert lease.ended
