"""The benchmark's client, its closed loop and its processes, against servers that answer well and badly."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from bench import client
from bench.client import (
    Address,
    BadUrl,
    CallFailed,
    Connection,
    Greeting,
    connect,
    fault_of,
    loopback_address,
)
from bench.closed_loop import Bounds, ClosedLoop
from bench.worker import Job, WorkerFailed, Workers

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


def reply(body: bytes, status: str = "200 OK", more: bytes = b"") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nX-Hearth-Start: warm\r\n".encode()
    return head + more + b"\r\n" + body


def greeting_for(request: bytes) -> bytes:
    found = re.search(rb'"name":"([^"]+)"', request)
    assert found
    return b'{"message": "Hello, %b!"}' % found[1]


async def well(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(reply(greeting_for(request)))


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[Address]:
    """A server that answers each request with `answer`, until that closes the connection."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head)
                assert length
                await answer(head + await reader.readexactly(int(length[1])), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Address("127.0.0.1", listening.sockets[0].getsockname()[1])
    finally:
        listening.close()
        for writer in writers:
            writer.close()
        await asyncio.sleep(0.01)


def loop_on(address: Address, bounds: Bounds, clients: int = 1) -> ClosedLoop:
    greetings = [Greeting("/invoke/hello", address.authority, f"{n:x}-") for n in range(clients)]
    return ClosedLoop(lambda: connect(address), greetings, bounds)


# -- addresses and requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost:8080/", "http://127.8.9.10:8080"])
def test_loopback_is_accepted(url: str) -> None:
    assert loopback_address(url).port == 8080


def test_an_ipv6_address_is_bracketed_again() -> None:
    assert loopback_address("http://[::1]:81").url == "http://[::1]:81"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "http://192.168.0.1:8080",
        "http://0.0.0.0:8080",
        "http://127.0.0.1.example.org",
        "http://127.0.0.1@example.org",
        "http://me@127.0.0.1",
        "https://127.0.0.1",
        "127.0.0.1:8080",
        "http://127.0.0.1:99999",
        "http://127.0.0.1/invoke/hello",
        "",
    ],
)
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(BadUrl):
        loopback_address(url)


def test_each_request_has_its_own_name_and_the_length_it_says() -> None:
    greeting = Greeting("/invoke/hello", "h", "ab-")
    requests = [greeting.next() for _ in range(300)]
    assert len({request for request, _ in requests}) == 300
    for request, expected in requests:
        head, _, body = request.partition(b"\r\n\r\n")
        assert b"content-length: %d" % len(body) in head
        assert greeting_for(request).endswith(expected + b'"}')


def test_what_is_wrong_with_an_answer() -> None:
    assert fault_of(client.Reply(200, b"Hello, x!", ""), b"Hello, x!") is None
    assert fault_of(client.Reply(200, b"Hello, y!", ""), b"Hello, x!") == "wrong body"
    assert fault_of(client.Reply(503, b"Hello, x!", ""), b"Hello, x!") == "status 503"


# -- a connection ----------------------------------------------------------------------------------------------


async def test_a_connection_serves_one_call_after_the_other() -> None:
    async with server(well) as address:
        connection, greeting = await connect(address), Greeting("/", "h")
        for _ in range(3):
            request, expected = greeting.next()
            answer = await connection.call(request, 5)
            assert (answer.status, answer.start) == (200, "warm")
            assert expected in answer.body
        connection.close()


async def test_an_answer_in_chunks_and_pieces_is_put_together() -> None:
    async def piecewise(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 201 Created\r\ntransfer-enc")
        await asyncio.sleep(0.01)
        writer.write(b"oding: chunked\r\n\r\n3\r\nabc\r\n2\r\nd")
        await asyncio.sleep(0.01)
        writer.write(b"e\r\n0\r\n\r\n")

    async with server(piecewise) as address:
        connection = await connect(address)
        answer = await connection.call(Greeting("/", "h").next()[0], 5)
        assert (answer.status, answer.body, answer.start) == (201, b"abcde", "")
        connection.close()


@pytest.mark.parametrize(
    ("bytes_sent", "fault"),
    [
        (b"", "connection lost"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nHel", "connection lost"),
        (b"220 mail.example.org ESMTP\r\n\r\n", "answer is not HTTP"),
    ],
)
async def test_half_answers_and_nonsense_are_faults(bytes_sent: bytes, fault: str) -> None:
    async def badly(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes_sent)
        await writer.drain()
        writer.close()

    async with server(badly) as address:
        connection = await connect(address)
        with pytest.raises(CallFailed, match=fault):
            await connection.call(Greeting("/", "h").next()[0], 5)
        assert not connection.is_open


async def test_an_answer_that_is_too_long_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MOST_BODY", 1000)

    async def at_length(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(b"x" * 1001))

    async with server(at_length) as address:
        connection = await connect(address)
        with pytest.raises(CallFailed, match="too long"):
            await connection.call(Greeting("/", "h").next()[0], 5)


async def test_no_answer_is_waited_for_no_longer_than_said() -> None:
    async def never(request: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with server(never) as address:
        connection = await connect(address)
        began = time.monotonic()
        with pytest.raises(CallFailed, match="no answer in time"):
            await connection.call(Greeting("/", "h").next()[0], 0.1)
        assert time.monotonic() - began < 5
        assert not connection.is_open


async def test_a_port_that_nobody_listens_on() -> None:
    async with server(well) as address:
        pass
    with pytest.raises(CallFailed, match="cannot connect"):
        await connect(address)


async def test_a_connection_never_opened_says_so() -> None:
    with pytest.raises(CallFailed, match="connection lost"):
        await Connection().call(b"", 1)


# -- the closed loop -------------------------------------------------------------------------------------------


async def test_a_loop_stops_at_its_count_and_counts_right_answers() -> None:
    async with server(well) as address:
        measured = await loop_on(address, Bounds(0, 30, requests=100), clients=4).run()
    assert measured.requests == len(measured.latencies) == measured.starts["warm"] == 100
    assert not measured.faults
    assert min(measured.latencies) > 0
    assert measured.rate == pytest.approx(100 / measured.seconds)


async def test_a_loop_stops_at_its_time_and_leaves_the_warm_up_out() -> None:
    async def slowly(request: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.01)
        await well(request, writer)

    async with server(slowly) as address:
        began = time.monotonic()
        measured = await loop_on(address, Bounds(warm_up=0.3, seconds=0.3)).run()
        assert 0.6 <= time.monotonic() - began < 10
    assert 0 < len(measured.latencies) < measured.requests
    assert min(measured.latencies) >= 9e6
    assert measured.rate <= 100


async def test_each_client_waits_for_its_answer_before_it_calls_again() -> None:
    at_once = most = 0

    async def watch(request: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.005)
        at_once -= 1
        await well(request, writer)

    async with server(watch) as address:
        await loop_on(address, Bounds(0, 30, requests=40), clients=5).run()
    assert most == 5


async def test_wrong_answers_are_counted_by_kind_and_not_as_latencies() -> None:
    turn = 0

    async def mixed(request: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal turn
        turn += 1
        if turn % 4 == 1:
            writer.write(reply(b"{}", "503 Service Unavailable"))
        elif turn % 4 == 2:
            writer.write(reply(b'{"message": "Hello, somebody else!"}'))
        elif turn % 4 == 3:
            writer.close()
        else:
            await well(request, writer)

    async with server(mixed) as address:
        measured = await loop_on(address, Bounds(0, 30, requests=40)).run()
    assert measured.faults == {"status 503": 10, "wrong body": 10, "connection lost": 10}
    assert len(measured.latencies) == 10


async def test_a_connection_that_is_closed_in_order_is_no_fault() -> None:
    async def once(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(greeting_for(request), more=b"connection: close\r\n"))
        await writer.drain()
        writer.close()

    async with server(once) as address:
        measured = await loop_on(address, Bounds(0, 30, requests=10)).run()
    assert not measured.faults
    assert len(measured.latencies) == 10


async def test_a_client_gives_up_on_a_server_that_only_hangs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.closed_loop.MOST_FAULTS", 5)

    async def hang_up(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with server(hang_up) as address:
        measured = await loop_on(address, Bounds(0, 60)).run()
    assert measured.faults == {"connection lost": 5}


async def test_a_call_that_is_never_answered_ends_the_loop_as_a_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bench.closed_loop.ANSWER_TIMEOUT", 0.1)

    async def never(request: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with server(never) as address:
        measured = await loop_on(address, Bounds(0, 0.1), clients=2).run()
    assert measured.faults == {"no answer in time": 2}
    assert measured.rate == 0


# -- processes -------------------------------------------------------------------------------------------------


async def test_processes_share_the_clients_and_their_results_are_added() -> None:
    names: set[bytes] = set()

    async def note(request: bytes, writer: asyncio.StreamWriter) -> None:
        names.add(greeting_for(request))
        await well(request, writer)

    workers = Workers()
    async with server(note) as address:
        try:
            await workers.start(2, None)
            outcome = await workers.run(Job(3, Bounds(0, 30, requests=60), address, "/invoke/hello"))
        finally:
            await workers.stop()
    assert outcome.requests == len(outcome.latencies) == outcome.starts["warm"] == 120
    assert len(names) == 120, "no two requests are the same, whichever process sends them"
    assert not outcome.faults
    assert outcome.rate > 0


async def test_a_process_that_cannot_connect_says_so() -> None:
    async with server(well) as address:
        pass
    workers = Workers()
    try:
        await workers.start(1, None)
        with pytest.raises(WorkerFailed, match="cannot connect"):
            await workers.run(Job(1, Bounds(0, 1), address))
        with pytest.raises(WorkerFailed, match="closed its connection"):
            await workers.run(Job(1, Bounds(0, 1)))
    finally:
        await workers.stop()
