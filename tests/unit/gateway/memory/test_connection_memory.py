"""What connections hold of the budget before anybody has asked for it: half heads, half bodies, answers not read."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway.access.access import Access
from gateway.access.keys import create
from gateway.access.limits import Quota
from gateway.access.scopes import parse_scopes
from gateway.edge.fast_path import FastPathProtocol
from gateway.edge.head_rules import MOST_FIELDS
from gateway.invoke.fast_call import FastCall, RequestHead
from gateway.memory.budget import ANSWERS, UNREAD, BodyBudget
from gateway.memory.connections import ConnectionMemory, ConnectionShare
from tests.support.warm_call_loop import ANSWER, WarmCall

HEAD = b"POST /invoke/hello HTTP/1.1\r\nhost: 127.0.0.1:8080\r\n"


@pytest.fixture
async def call():
    call = WarmCall()
    await call.start()
    yield call
    await call.close()


def held(call: WarmCall) -> int:
    """Bytes that all connections hold."""
    return call.bodies.held_by(UNREAD)


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def reachable(protocol: FastPathProtocol) -> int:
    """Bytes of text that a connection and the requests that it has served refer to."""
    size, seen, left = 0, set[int](), list(vars(protocol).values())
    while left:
        found = left.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, bytes | bytearray):
            size += len(found)
        elif isinstance(found, FastCall):
            left += found.request
        elif isinstance(found, RequestResponseCycle):
            left += [found.scope, found.body]
        elif isinstance(found, RequestHead):
            left += [found.scope, found.passed, found.raw]
        elif isinstance(found, dict):
            left += [*found.keys(), *found.values()]
        elif isinstance(found, list | tuple | deque):
            left += found
    return size


# -- the share ----------------------------------------------------------------------------------------------


def test_who_has_held_longest_makes_room() -> None:
    budget, evicted = BodyBudget(4000), list[str]()
    share = ConnectionShare(budget, UNREAD, "unread")
    for name in ("first", "second"):
        assert share.hold(name, 500, lambda name=name: evicted.append(name))
    assert share.hold("third", 400, lambda: evicted.append("third"))
    assert evicted == ["first"]
    assert share.hold("second", 600, lambda: evicted.append("second"))
    assert evicted == ["first"]
    assert budget.held_by(UNREAD) == 1000
    share.let_go("second")
    share.let_go("third")
    share.let_go("third")
    assert budget.held == 0


def test_what_is_over_the_share_alone_holds_nothing() -> None:
    refused = list[str]()
    budget = BodyBudget(4000, on_refused=refused.append)
    share = ConnectionShare(budget, UNREAD, "unread")
    assert share.hold("one", 900, lambda: None)
    assert not share.hold("one", 1001, lambda: None)
    assert budget.held == 0
    assert refused == ["unread"]


# -- a connection -------------------------------------------------------------------------------------------


async def test_a_request_that_comes_whole_holds_nothing(call: WarmCall) -> None:
    call.protocol.data_received(HEAD + b"content-length: 2\r\n\r\nhi")
    assert call.bodies.held == 0


async def test_half_a_head_is_held_until_it_is_whole(call: WarmCall) -> None:
    call.protocol.data_received(HEAD)
    call.protocol.data_received(b"x: " + b"y" * 5000)
    assert held(call) > 5000
    call.protocol.data_received(b"\r\ncontent-length: 2\r\n\r\nhi")
    assert held(call) == 0
    call.link.connection.data_received(ANSWER)
    assert call.client.written[-1].startswith(b"HTTP/1.1 200")


async def test_half_a_small_body_is_held_until_it_is_whole(call: WarmCall) -> None:
    call.protocol.data_received(HEAD + b"content-length: 3000\r\n\r\n" + b"x" * 1000)
    assert held(call) == 1000
    call.protocol.data_received(b"x" * 1000)
    assert held(call) == 2000
    call.protocol.data_received(b"x" * 1000)
    assert held(call) == 0
    call.link.connection.data_received(ANSWER)
    assert call.client.written[-1].startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("sent", [HEAD + b"x: y", HEAD + b"content-length: 9\r\n\r\nabc"])
async def test_a_client_that_leaves_holds_nothing(call: WarmCall, sent: bytes) -> None:
    call.protocol.data_received(sent)
    assert held(call) > 0
    call.protocol.connection_lost(None)
    await settle()
    assert call.bodies.held == 0


async def test_slow_headsmake_room_for_others(call: WarmCall) -> None:
    call.bodies.total = 40_000
    other = call.another_client()
    call.protocol.data_received(HEAD + b"x: " + b"y" * 8000)
    other.protocol.data_received(HEAD + b"x: " + b"y" * 8000)
    await settle()
    assert b"503 Service Unavailable" in b"".join(call.client.written)
    assert b"urn:hearth:problem:busy" in b"".join(call.client.written)
    assert not other.client.written
    other.protocol.data_received(b"\r\ncontent-length: 2\r\n\r\nhi")
    other.link.connection.data_received(ANSWER)
    assert other.client.written[-1].startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(("began", "total"), [(b"", 600_000), (b"GET /healthz HTTP/1.1\r\n", 1_000_000)])
async def test_a_whole_body_that_makes_room_is_refused_and_never_taken_for_empty(
    call: WarmCall, began: bytes, total: int
) -> None:
    """`began` is the beginning of a further request."""
    call.bodies.total = total
    other = call.another_client()
    call.protocol.data_received(HEAD + b"content-length: 100000\r\n\r\n" + b"x" * 100_000 + began)
    assert held(call) >= 100_000
    other.protocol.data_received(HEAD + b"x: " + b"y" * 60_000)
    assert held(call) < 100_000
    await settle()
    assert not call.link.transport.written
    assert b"".join(call.client.written).startswith(b"HTTP/1.1 503")
    assert not other.client.written


async def test_what_was_refused_holds_nothing_and_is_refused_once(call: WarmCall) -> None:
    """Else who makes it give room would write to a connection whose end was written."""
    body = b"%x\r\n" % 90_000 + b"x" * 90_000 + b"\r\nno length\r\n"
    call.protocol.data_received(HEAD + b"transfer-encoding: chunked\r\n\r\n" + body)
    assert held(call) == 0
    call.protocol.make_room()
    await settle()
    assert b"".join(call.client.written).count(b"HTTP/1.1 ") == 1


async def test_nobody_is_told_to_go_on_after_a_refusal(call: WarmCall) -> None:
    """The application has not asked for the body yet when its first chunk turns out to be none."""
    faults = list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    fields = b"expect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n"
    call.protocol.data_received(HEAD + fields + b"no length\r\n")
    await settle()
    assert b"".join(call.client.written).startswith(b"HTTP/1.1 400")
    assert faults == []


async def test_fields_are_counted(call: WarmCall) -> None:
    """Short ones take far more memory than they have bytes."""
    call.protocol.data_received(HEAD + b"a:b\r\n" * 200)
    assert held(call) > 30_000
    call.protocol.data_received(b"a:b\r\n" * (MOST_FIELDS - 198))
    await settle()
    assert b"431 Request Header Fields Too Large" in b"".join(call.client.written)
    assert held(call) == 0


@pytest.mark.parametrize(("fields", "refused"), [(MOST_FIELDS, False), (MOST_FIELDS + 1, True)])
async def test_as_many_fields_as_may_be_come_in_one_piece(call: WarmCall, fields: int, refused: bool) -> None:
    """They are as short as fields can be."""
    have = HEAD.count(b"\r\n") - 1
    call.protocol.data_received(HEAD + b"a:\r\n" * (fields - have - 1) + b"content-length: 0\r\n\r\n")
    await settle()
    assert (b"431 Request Header" in b"".join(call.client.written)) is refused


async def test_half_a_body_of_a_key_that_may_not_is_refused_at_once(call: WarmCall) -> None:
    text, key = create("weak", parse_scopes(["invoke:nothing"]), Quota(), None, 0.0)
    access = Access(call.protocol.fast.clock, call.metrics, [key])
    call.protocol.fast = replace(call.protocol.fast, access=access)
    fields = b"x-hearth-key: %b\r\ncontent-length: 3000\r\n\r\n" % text.encode()
    call.protocol.data_received(HEAD + fields + b"x" * 1000)
    assert not call.protocol.fast.access.would_admit([(b"x-hearth-key", text.encode())], b"/invoke/hello")
    assert isinstance(call.protocol.cycle, RequestResponseCycle), "its application asks for the key first"


async def test_an_answer_that_is_not_read_is_counted_and_cut_off_at_last() -> None:
    budget, aborted = BodyBudget(4000), list[str]()
    memory = ConnectionMemory(budget)
    assert memory.answers.hold("slow", 800, lambda: aborted.append("slow"))
    assert memory.answers.hold("slower", 700, lambda: aborted.append("slower"))
    assert aborted == ["slow"]
    assert budget.by_holder() == {"bodies": 0, "unread": 0, "answers": 700}
    assert budget.held_by(ANSWERS) == 700


async def test_a_queued_call_holds_its_body_until_it_has_its_turn(call: WarmCall) -> None:
    request = HEAD + b"content-length: 9000\r\n\r\n" + b"x" * 9000
    other = call.another_client()
    call.protocol.data_received(request)
    other.protocol.data_received(request)
    assert call.bodies.held > 9000
    call.link.connection.data_received(ANSWER)
    assert call.bodies.held == 0
    call.link.connection.data_received(ANSWER)
    assert other.client.written[-1].startswith(b"HTTP/1.1 200")
    call.protocol.data_received(request)
    other.protocol.data_received(request)
    assert call.bodies.held > 9000
    other.protocol.connection_lost(None)
    assert call.bodies.held == 0


async def test_a_small_call_that_waits_has_its_room_in_what_a_connection_may_take(call: WarmCall) -> None:
    request = HEAD + b"content-length: 1000\r\n\r\n" + b"x" * 1000
    other = call.another_client()
    call.protocol.data_received(request)
    other.protocol.data_received(request)
    assert call.bodies.held == 0
    call.link.connection.data_received(ANSWER)
    call.link.connection.data_received(ANSWER)
    assert other.client.written[-1].startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("large", [b"x: " + b"y" * 20_000 + b"\r\n", b""])
async def test_an_idle_connection_keeps_nothing_of_its_last_request(call: WarmCall, large: bytes) -> None:
    """On the fast path and on the long one."""
    body = b"z" * 50_000
    for path in (b"hello", b"hello?long"):
        head = b"POST /invoke/%b HTTP/1.1\r\nhost: 127.0.0.1:8080\r\n%bcontent-length: %d\r\n\r\n"
        call.protocol.data_received(head % (path, large, len(body)) + body)
        await settle()
        call.link.transport.written.clear()
        call.link.connection.data_received(ANSWER)
        await settle()
        assert call.client.written.pop().startswith(b"HTTP/1.1 200")
        assert reachable(call.protocol) < 8000
