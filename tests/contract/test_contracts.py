"""Every contract keeps the same promises, from the first call over a failure to the next gateway.

The fourth one is a platform that only tests know: one file is enough for the pool and the gateway to run it.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.http.problems import TYPES
from pool.contracts.facts import PLAIN_ENDINGS, Freezing
from pool.contracts.registry import CONTRACTS
from pool.freezer import may_freeze
from pool.states import State
from pool.transport.connection import HttpConnection
from pool.transport.socket_folder import READ_SIZE
from tests.support.contract_world import CASES, Case, ContractWorld


@pytest.fixture(params=CASES, ids=repr)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
async def world(case: Case, tmp_path: Path) -> AsyncIterator[ContractWorld]:
    made = ContractWorld(case, tmp_path)
    await made.start()
    yield made
    await made.close()


def test_every_registered_contract_is_tested_here() -> None:
    assert set(CONTRACTS) == {case.contract.name for case in CASES} - {"lines"}
    assert all(contract.name == name for name, contract in CONTRACTS.items())


def test_the_facts_of_a_contract_fit_together(case: Case) -> None:
    contract = case.contract
    assert contract.long_way_statuses >= PLAIN_ENDINGS
    assert not (contract.fresh_by_default and contract.freezing is not Freezing.NEVER)
    assert contract.allows("POST", b"")
    assert contract.allows("GET", b"path") is (contract.methods is None and contract.sub_paths)
    assert {case.problem, case.death} <= set(TYPES)


async def test_a_call_starts_an_instance_and_the_next_one_finds_it_warm(world: ContractWorld) -> None:
    first = await world.call("hello")
    assert (first.status, first.body, first.start) == (200, b"HELLO", b"cold")
    if not world.case.reuse:
        second = await world.call("again")
        assert (second.status, second.body, second.start) == (200, b"AGAIN", b"cold")
        return
    instance = await world.idle()
    for body in ("again", "and again"):
        reply = await world.warm_call(body)
        assert (reply.status, reply.body, reply.start) == (200, body.upper().encode(), b"warm")
    assert world.instances == [instance]
    connection = instance.link.take() if instance.link else None
    assert isinstance(connection, HttpConnection) or not world.case.contract.fast_path


async def test_a_failure_is_the_problem_that_the_contract_says(world: ContractWorld) -> None:
    await world.call()
    for attempt in (world.call, world.warm_call if world.case.reuse else world.call):
        reply = await attempt("fail")
        assert reply.problem["type"] == f"urn:hearth:problem:{world.case.problem}"
        assert reply.status == TYPES[world.case.problem][0]
        assert (await world.call("well")).body == b"WELL", "the next call is served"


@pytest.mark.parametrize("case", CASES[:2], ids=repr, indirect=True)
async def test_an_error_status_of_the_functions_own_is_no_problem(world: ContractWorld) -> None:
    """Where a contract reports failures with such statuses, it tells the two apart."""
    await world.call()
    for attempt in (world.call, world.warm_call):
        reply = await attempt("own error")
        assert (reply.status, reply.body, reply.problem) == (500, b"mine", None)
        assert reply.start == b"warm"


async def test_an_instance_that_ends_in_a_call_is_a_problem_and_replaced(world: ContractWorld) -> None:
    await world.call()
    instances = world.instances
    reply = await world.call("die")
    assert reply.problem["type"] == f"urn:hearth:problem:{world.case.death}"
    if world.case.death == "command-failed":
        assert "exit status 3" in reply.problem["detail"]
    elif world.case.contract.dies_with_connection:
        assert "the instance died: " in reply.problem["detail"]
    if world.case.death != "command-failed" or not world.case.reuse:  # else init lives on
        await world.gone(instances)
    assert (await world.call("well")).body == b"WELL"


async def test_other_methods_and_paths_are_refused_unless_the_contract_takes_them(
    world: ContractWorld,
) -> None:
    contract = world.case.contract
    reply = await world.call("", "GET", "/invoke/f/some/path?x=1")
    if contract.allows("GET", b"some/path"):
        assert (reply.status, reply.body) == (200, b"/some/path?x=1")
        return
    assert reply.status == 405
    assert reply.headers[b"allow"] == b""
    reply = await world.call("", "DELETE")
    assert reply.status == 405
    assert reply.headers[b"allow"] == ", ".join(sorted(contract.methods or ())).encode()


async def test_an_idle_instance_is_frozen_where_the_contract_allows_it(world: ContractWorld) -> None:
    await world.call()
    if world.case.contract.freezing is Freezing.NEVER:
        assert not any(may_freeze(instance, float("inf")) for instance in world.instances)
        return
    instance = await world.idle()
    assert may_freeze(instance, float("inf"))
    world.pool.freezer.freeze(instance)
    assert instance.state is State.FROZEN
    reply = await world.call("thawed")
    assert (reply.body, reply.start) == (b"THAWED", b"warm")


async def test_the_next_gateway_reconnects(case: Case, tmp_path: Path) -> None:
    world = ContractWorld(case, tmp_path)
    await world.start()
    await world.call()
    before = [(await world.idle()).container] if case.reuse else []
    after = await world.restarted()
    try:
        assert [instance.container for instance in after.instances] == before
        reply = await after.call("hello again")
        assert (reply.status, reply.body) == (200, b"HELLO AGAIN")
        assert reply.start == (b"warm" if case.reuse else b"cold")
    finally:
        await after.close()


async def test_a_silent_call_costs_no_look_for_output_and_what_is_printed_is_the_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[socket.socket] = []
    receive = socket.socket.recv

    def counted(sock: socket.socket, size: int) -> bytes:
        if size == READ_SIZE:  # the loop reads other sizes
            looks.append(sock)
        return receive(sock, size)

    world = ContractWorld(CASES[0], tmp_path)
    await world.start()
    try:
        await world.call()
        await world.idle()
        monkeypatch.setattr(socket.socket, "recv", counted)
        for _ in range(20):
            assert (await world.warm_call()).start == b"warm"
        await world.call("long way")
        assert looks == [], "a recv of the log socket for each"
        reply = await world.warm_call("print")
        assert world.logs.read(reply.headers[b"x-invocation-id"].decode()) == b"printed\n"
        assert looks
    finally:
        await world.close()
