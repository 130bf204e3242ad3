"""Connections to a server: kept between calls, not longer than servers do, dialled when there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pool.clock import VirtualClock
from pool.errors import InstanceDied, NotSent
from pool.transport.connection import HttpConnection
from pool.transport.http import IDLE_LIMIT_SECONDS, HttpLink
from pool.transport.message import Call

CALL = Call(b"GET", b"/", [(b"host", b"localhost")])


class Server:
    """A unix server that answers each call with the number of its connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections: list[asyncio.StreamWriter] = []
        self.header = b""
        self.silent = self.drained = self.closed = False

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        body = b"%d" % len(self.connections)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                if self.silent:
                    continue
                length = b"content-length: %d\r\n" % len(body)
                writer.write(b"HTTP/1.1 200 OK\r\n" + self.header + length + b"\r\n" + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def dial(self, connection: HttpConnection) -> None:
        await asyncio.get_running_loop().create_unix_connection(lambda: connection, self.path)

    def drain_log(self) -> None:
        self.drained = True

    async def close(self) -> None:
        self.closed = True

    async def stop(self) -> None:
        self._server.close()
        for writer in self.connections:
            writer.close()
        await asyncio.sleep(0.01)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    made = Server(tmp_path / "s")
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def link(server: Server, clock: VirtualClock) -> AsyncIterator[HttpLink]:
    made = HttpLink(server, 3, clock)
    yield made
    await made.close()
    await asyncio.sleep(0.01)


async def call(link: HttpLink, connection: HttpConnection | None = None) -> bytes:
    """One whole call; the number of the connection that it went over."""
    connection = connection or link.take() or await link.connect(CALL)
    answer = await connection.exchange(CALL)
    body = await answer.read()
    link.give(connection)
    return body


async def test_one_connection_serves_call_after_call(link: HttpLink) -> None:
    assert [await call(link) for _ in range(5)] == 5 * [b"1"]


async def test_calls_at_once_have_a_connection_each(link: HttpLink, server: Server) -> None:
    connections = [link.take() or await link.connect(CALL) for _ in range(3)]
    bodies = await asyncio.gather(*(call(link, connection) for connection in connections))
    assert sorted(bodies) == [b"1", b"2", b"3"]
    assert {await call(link) for _ in range(5)} <= {b"1", b"2", b"3"}
    assert len(server.connections) == 3


def test_slots_are_a_right_not_a_connection(tmp_path: Path) -> None:
    async def look() -> list[int]:
        link = HttpLink(Server(tmp_path / "s"), 3, VirtualClock())
        return [link.free_slots(in_use) for in_use in range(4)]

    assert asyncio.run(look()) == [3, 2, 1, 0]


async def test_an_idle_connection_is_not_used_after_the_limit(
    link: HttpLink, server: Server, clock: VirtualClock
) -> None:
    assert await call(link) == b"1"
    await clock.advance(IDLE_LIMIT_SECONDS - 0.1)
    assert await call(link) == b"1"
    await clock.advance(IDLE_LIMIT_SECONDS)
    assert await call(link) == b"2"
    await asyncio.sleep(0.01)
    assert link.connections == 1
    assert link.take() is not None, "the open one is the one that is kept for the next call"


async def test_a_connection_that_the_server_closed_is_not_used(link: HttpLink, server: Server) -> None:
    assert await call(link) == b"1"
    server.connections[0].close()
    await asyncio.sleep(0.02)
    assert link.take() is None
    assert link.alive
    assert await call(link) == b"2"


async def test_a_server_that_closes_each_time(link: HttpLink, server: Server) -> None:
    server.header = b"connection: close\r\n"
    assert [await call(link) for _ in range(3)] == [b"1", b"2", b"3"]
    await asyncio.sleep(0.01)
    assert link.connections == 0


async def test_a_server_that_does_not_listen(link: HttpLink, server: Server) -> None:
    server.path.unlink()
    with pytest.raises(NotSent, match="does not accept"):
        await link.connect(CALL)


async def test_closing_ends_calls(server: Server) -> None:
    link = HttpLink(server, 1, VirtualClock())
    assert await call(link) == b"1"
    connection = link.take()
    assert connection is not None
    server.silent = True
    exchange = asyncio.ensure_future(connection.exchange(CALL))
    await asyncio.sleep(0.01)
    await link.close()
    with pytest.raises(InstanceDied):
        await exchange
    assert server.closed
    link.give(connection)
    assert link.take() is None


async def test_what_the_server_has_printed_is_read_when_a_lease_ends(link: HttpLink, server: Server) -> None:
    link.drain_log()
    assert server.drained


async def test_a_server_that_does_not_answer_in_time(
    link: HttpLink, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(connection: HttpConnection) -> None:
        raise TimeoutError

    monkeypatch.setattr(server, "dial", late)
    with pytest.raises(NotSent, match="did not answer in time"):
        await link.connect(CALL)
