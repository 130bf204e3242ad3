"""The fast path, from the bytes of a client to those of an instance and back: what it serves, and what it leaves."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.access.access import Access, KeyHolder
from gateway.access.key_file import KeyFile
from gateway.access.keys import create
from gateway.access.limits import Quota
from gateway.access.scopes import parse_scopes
from gateway.edge.fast_path import SMALL_BODY_SECONDS
from gateway.invoke.fast_call import FastCall
from tests.harness import sum_of
from tests.support.warm_call_loop import ANSWER, REQUEST, WarmCall

HEAD = b"POST /invoke/hello HTTP/1.1\r\nhost: 127.0.0.1:8080\r\n"
PLAIN = HEAD + b"content-length: 2\r\n\r\nhi"


@pytest.fixture
async def call():
    call = WarmCall()
    await call.start()
    yield call
    await call.close()


def sent(call: WarmCall) -> bytes:
    """What the instance was sent."""
    return b"".join(call.link.transport.written)


def said(call: WarmCall) -> bytes:
    """What the client was sent."""
    return b"".join(call.client.written)


def fields(head: bytes) -> dict[bytes, bytes]:
    lines = head.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return {name.lower(): value for name, value in (line.split(b": ", 1) for line in lines)}


def ended(call: WarmCall, outcome: str) -> int:
    text = call.metrics.registry.text().decode()
    return int(sum_of(text, "hearth_invocations_total", {"function": "hello", "outcome": outcome}))


async def settle() -> None:
    """Let the tasks of the long way go on as far as they can."""
    for _ in range(50):
        await asyncio.sleep(0)


def fast(call: WarmCall) -> bool:
    """Whether the latest request went the fast path."""
    return isinstance(call.protocol.cycle, FastCall)


async def test_a_plain_call_goes_the_fast_path_and_a_chunked_one_the_long(call: WarmCall) -> None:
    call()
    call.client.written.clear()
    call.link.transport.written.clear()
    call.protocol.data_received(PLAIN)
    assert fast(call)
    plain = sent(call)
    call.link.connection.data_received(ANSWER)
    answered = said(call)
    call.client.written.clear()
    call.link.transport.written.clear()
    call.protocol.data_received(HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
    assert not fast(call)
    await settle()
    long = sent(call)
    call.link.connection.data_received(ANSWER)
    await settle()
    to_instance, to_client = fields(plain), fields(answered)
    assert to_instance.keys() == fields(long).keys()
    assert to_client.keys() == fields(said(call)).keys()
    for same in (b"host", b"x-forwarded-for", b"x-forwarded-proto", b"x-hearth-deadline", b"content-length"):
        assert to_instance[same] == fields(long)[same]
    for same in (b"content-type", b"content-length", b"x-content-type-options", b"x-hearth-start"):
        assert to_client[same] == fields(said(call))[same]
    assert plain.split(b"\r\n")[0] == long.split(b"\r\n")[0] == b"POST / HTTP/1.1"
    assert plain.endswith(b"\r\n\r\nhi")
    assert (
        to_instance[b"x-invocation-id"] == to_client[b"x-invocation-id"] != fields(long)[b"x-invocation-id"]
    )
    assert ended(call, "ok") == 3


@pytest.mark.parametrize("cut", [1, 20, len(PLAIN) - 2, len(PLAIN) - 1])
async def test_a_request_may_come_in_pieces(call: WarmCall, cut: int) -> None:
    call.protocol.data_received(PLAIN[:cut])
    call.protocol.data_received(PLAIN[cut:])
    assert fast(call)
    assert sent(call).endswith(b"\r\n\r\nhi")


async def test_a_head_that_is_known_again_brings_its_own_body(call: WarmCall) -> None:
    for body in (b"ab", b"cd", b"\r\n", b"ef"):
        call.client.written.clear()
        call.link.transport.written.clear()
        call.protocol.data_received(HEAD + b"content-length: 2\r\n\r\n" + body)
        assert sent(call).endswith(b"\r\n\r\n" + body)
        call.link.connection.data_received(ANSWER)
        assert said(call).endswith(b'{"message":"Hello, Ada!"}')
    assert ended(call, "ok") == 4


async def test_a_known_head_with_half_a_body_waits_for_the_rest(call: WarmCall) -> None:
    call(PLAIN)
    call.link.transport.written.clear()
    call.protocol.data_received(PLAIN[:-1])
    assert sent(call) == b""
    call.protocol.data_received(b"!")
    assert sent(call).endswith(b"\r\n\r\nh!")


async def test_what_comes_behind_a_known_request_is_a_request_of_its_own(call: WarmCall) -> None:
    call(PLAIN)
    call.client.written.clear()
    call.protocol.data_received(PLAIN + REQUEST % b"")
    assert said(call) == b""
    call.link.connection.data_received(ANSWER)
    assert said(call).count(b"HTTP/1.1 200 OK") == 1
    await settle()
    assert sent(call).endswith(b'{"name":"Ada"}')
    call.link.connection.data_received(ANSWER)
    await settle()
    assert said(call).count(b"HTTP/1.1 200 OK") == 2
    call.client.written.clear()
    call(PLAIN)
    assert fast(call)


async def test_a_slow_body_is_read_on_by_the_long_way(call: WarmCall) -> None:
    call.protocol.data_received(PLAIN[:-1])
    await asyncio.sleep(2 * SMALL_BODY_SECONDS)
    assert not fast(call)
    call.protocol.data_received(b"!")
    await settle()
    assert sent(call).endswith(b"\r\n\r\nh!")
    call.link.connection.data_received(ANSWER)
    await settle()
    assert b"HTTP/1.1 200 OK" in said(call)


async def test_an_answer_in_pieces_is_streamed(call: WarmCall) -> None:
    call.protocol.data_received(PLAIN)
    head, _, body = ANSWER.partition(b"\r\n\r\n")
    call.link.connection.data_received(head + b"\r\n\r\n" + body[:5])
    await settle()
    assert said(call).endswith(body[:5])
    call.link.connection.data_received(body[5:])
    await settle()
    assert said(call).endswith(body[5:])
    assert ended(call, "ok") == 1


async def test_what_a_shim_reports_is_told_as_a_problem(call: WarmCall) -> None:
    report = json.dumps({"type": "ValueError", "message": "no"}).encode()
    call.protocol.data_received(PLAIN)
    call.link.connection.data_received(
        b"HTTP/1.1 500 Error\r\nx-hearth-outcome: raised\r\ncontent-length: %d\r\n\r\n%b"
        % (len(report), report)
    )
    await settle()
    assert said(call).startswith(b"HTTP/1.1 500")
    assert b"handler-raised" in said(call)
    assert ended(call, "handler-raised") == 1


async def test_two_calls_of_one_slot_are_served_one_after_the_other(call: WarmCall) -> None:
    second = call.another_client()
    call.protocol.data_received(PLAIN)
    second.protocol.data_received(PLAIN.replace(b"hi", b"yo"))
    assert sent(call).count(b"POST / HTTP/1.1") == 1
    call.link.connection.data_received(ANSWER)
    assert sent(call).endswith(b"\r\n\r\nyo"), "the slot was not given on at once"
    call.link.connection.data_received(ANSWER)
    assert said(second).count(b"HTTP/1.1 200 OK") == said(call).count(b"HTTP/1.1 200 OK") == 1


async def test_a_client_that_leaves_gives_up_its_place_in_the_queue(call: WarmCall) -> None:
    second = call.another_client()
    call.protocol.data_received(PLAIN)
    second.protocol.data_received(PLAIN)
    function = call.dispatcher.functions["hello"]
    assert function.waiting == 1
    second.protocol.connection_lost(None)
    assert function.waiting == 0
    assert ended(call, "client-gone") == 1
    call.link.connection.data_received(ANSWER)
    assert sent(call).count(b"POST / HTTP/1.1") == 1


async def test_a_client_that_leaves_in_mid_call_is_not_written_to(call: WarmCall) -> None:
    call.protocol.data_received(PLAIN)
    call.protocol.connection_lost(None)
    call.link.connection.data_received(ANSWER)
    assert said(call) == b""
    [instance] = call.pool.ledger.of("hello")
    assert instance.in_use == 0


async def test_an_instance_that_dies_in_mid_call_is_told_and_removed(call: WarmCall) -> None:
    call.protocol.data_received(PLAIN)
    call.link.connection.connection_lost(None)
    await settle()
    assert said(call).startswith(b"HTTP/1.1 502")
    assert ended(call, "instance-died") == 1


async def test_a_timeout_is_told_and_what_comes_after_it_reaches_nobody(call: WarmCall) -> None:
    call.limit(timeout=0.05)
    call.protocol.data_received(PLAIN)
    await asyncio.sleep(0.2)
    assert said(call).startswith(b"HTTP/1.1 504")
    assert ended(call, "timeout") == 1
    before = said(call)
    call.link.connection.data_received(ANSWER)
    await settle()
    assert said(call) == before


async def test_a_full_queue_is_told(call: WarmCall) -> None:
    call.limit(queue_size=1)
    second, third = call.another_client(), call.another_client()
    for client in (call, second, third):
        client.protocol.data_received(PLAIN)
    await settle()
    assert said(third).startswith(b"HTTP/1.1 429")
    assert b"retry-after" in said(third)
    assert ended(call, "queue-full") == 1


async def test_a_gateway_that_drains_says_so(call: WarmCall) -> None:
    call.dispatcher.draining = True
    call.protocol.data_received(PLAIN)
    await settle()
    assert said(call).startswith(b"HTTP/1.1 503")
    assert sent(call) == b""


async def test_a_connection_that_is_shut_down_ends_with_its_answer(call: WarmCall) -> None:
    call.protocol.data_received(PLAIN)
    call.protocol.shutdown()
    call.link.connection.data_received(ANSWER)
    await settle()
    assert said(call).startswith(b"HTTP/1.1 200 OK")
    assert b"\r\nconnection: close\r\n" in said(call)
    assert call.client.closed


async def test_a_call_that_a_shutdown_cannot_wait_for_is_told_so(call: WarmCall) -> None:
    call.protocol.data_received(PLAIN)
    call.dispatcher.draining = True
    call.protocol.shutdown()
    await settle()
    [task] = call.protocol.tasks
    task.cancel()
    await settle()
    assert said(call).startswith(b"HTTP/1.1 503")
    assert ended(call, "draining") == 1


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"connection: close\r\ncontent-length: 2\r\n\r\nhi",
        HEAD.replace(b"1.1\r\n", b"1.0\r\n") + b"content-length: 2\r\n\r\nhi",
        HEAD + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\nhi",
        HEAD.replace(b"hello", b"hello?x=1") + b"content-length: 2\r\n\r\nhi",
        HEAD.replace(b"hello", b"hell%6f") + b"content-length: 2\r\n\r\nhi",
        HEAD + b"origin: http://elsewhere.example\r\ncontent-length: 2\r\n\r\nhi",
        HEAD + b"content-length: 100000\r\n\r\n" + 100_000 * b"x",
    ],
)
async def test_what_is_not_plain_goes_the_long_way(call: WarmCall, request_: bytes) -> None:
    call.protocol.data_received(request_)
    assert not fast(call)


async def test_a_client_that_leaves_does_not_end_the_time_of_its_call(call: WarmCall) -> None:
    call.limit(timeout=0.05)
    call.protocol.data_received(PLAIN)
    call.protocol.connection_lost(None)
    await asyncio.sleep(0.2)
    assert ended(call, "timeout") == 1, "the slot would never be free again"
    assert not any(i.in_use for i in call.pool.ledger.of("hello"))


async def test_the_rest_of_a_keep_alive_does_not_end_a_wait(call: WarmCall) -> None:
    call.protocol.timeout_keep_alive = 0.05
    call(PLAIN)
    second = call.another_client()
    second.protocol.data_received(PLAIN)
    call.protocol.data_received(PLAIN)
    await asyncio.sleep(0.2)
    assert call.dispatcher.functions["hello"].waiting == 1, "it waits twice, and would be sent twice"
    call.client.written.clear()
    for _ in range(2):
        call.link.connection.data_received(ANSWER)
    assert fast(call)
    assert said(call).count(b"HTTP/1.1 200 OK") == 1
    assert sent(call).count(b"POST / HTTP/1.1") == 3


async def test_a_small_body_that_drips_in_is_left_to_the_long_way(call: WarmCall) -> None:
    call.protocol.data_received(HEAD + b"content-length: 1000\r\n\r\n")
    for _ in range(5):
        await asyncio.sleep(SMALL_BODY_SECONDS / 2)
        call.protocol.data_received(b"x")
    assert not fast(call) and call.protocol.cycle is not None


async def test_a_request_whose_body_is_being_read_is_answered_after_a_shutdown(call: WarmCall) -> None:
    call.protocol.data_received(PLAIN[:-1])
    call.protocol.shutdown()
    assert not call.client.closed
    call.protocol.data_received(b"!")
    await settle()
    call.link.connection.data_received(ANSWER)
    await settle()
    assert b"\r\nconnection: close\r\n" in said(call)


def close_with_a_key(call: WarmCall, file: KeyFile) -> tuple[bytes, KeyHolder]:
    """Let only one key in from now on: a call with it, and what is known of it."""
    text, key = create("one", parse_scopes(["invoke:hello"]), Quota(concurrency=1), None, 0.0)
    file.add(key)
    access = Access(call.protocol.fast.clock, call.metrics, file=file)
    call.protocol.fast = replace(call.protocol.fast, access=access)
    holder = access.admit_call([(b"x-hearth-key", text.encode())], b"/invoke/hello")
    assert isinstance(holder, KeyHolder)
    holder.ended()
    assert holder.running == 0
    return HEAD + b"x-hearth-key: %b\r\ncontent-length: 2\r\n\r\nhi" % text.encode(), holder


async def test_a_key_is_asked_for_at_each_call_and_not_passed_on(call: WarmCall, tmp_path: Path) -> None:
    call(PLAIN)
    file = KeyFile(tmp_path)
    keyed, holder = close_with_a_key(call, file)
    call.client.written.clear()
    call.protocol.data_received(PLAIN)  # its head is known from before a key was needed
    await settle()
    assert said(call).startswith(b"HTTP/1.1 401")
    for _ in range(3):
        assert b"HTTP/1.1 200 OK" in call(keyed)
        assert fast(call)
        assert b"hth_" not in sent(call)
        assert holder.running == 0
    call.client.written.clear()
    call.link.transport.written.clear()
    file.revoke("one")
    call.protocol.fast.access.look()
    call.protocol.data_received(keyed)
    await settle()
    assert said(call).startswith(b"HTTP/1.1 401")
    assert sent(call) == b""


@pytest.mark.parametrize(
    "end", ["answered", "streamed", "died", "timed out", "left", "left waiting", "refused"]
)
async def test_a_call_is_counted_on_its_key_until_it_ends(call: WarmCall, tmp_path: Path, end: str) -> None:
    call.limit(timeout=0.05)
    keyed, holder = close_with_a_key(call, KeyFile(tmp_path))
    if end == "left waiting":
        assert call.take_slot() is not None
    call.protocol.data_received(keyed)
    assert holder.running == 1
    if end == "answered":
        call.link.connection.data_received(ANSWER)
    elif end == "streamed":
        call.link.connection.data_received(ANSWER[:-1])
        await settle()
        assert holder.running == 1
        call.link.connection.data_received(ANSWER[-1:])
    elif end == "died":
        call.link.connection.connection_lost(None)
    elif end == "timed out":
        await asyncio.sleep(0.1)
    elif end == "left":
        call.protocol.connection_lost(None)
        assert holder.running == 1, "it runs still"
        call.link.connection.data_received(ANSWER)
    elif end == "left waiting":
        call.protocol.connection_lost(None)
    elif end == "refused":
        second = call.another_client()
        second.protocol.fast = replace(second.protocol.fast, access=call.protocol.fast.access)
        second.protocol.data_received(keyed)
        await settle()
        assert said(second).startswith(b"HTTP/1.1 429")
        assert holder.running == 1
        call.link.connection.data_received(ANSWER)
    await settle()
    assert holder.running == 0
