"""A server whose network namespace is not entered is reached through the init of its container."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pool.clock import Clock, LoopClock, VirtualClock
from pool.transport.connection import HttpConnection
from pool.transport.init_calls import InitCalls
from pool.transport.message import Call
from pool.transport.server import DIAL_TIMEOUT_SECONDS, Server
from pool.transport.socket_folder import SocketFolder
from tests.support.serving_init import answer, dial

NOBODY = 2**22 + 1
"""No process has this id: it is over the most that the kernel gives."""
CALL = Call(b"GET", b"/", [(b"host", b"localhost")])


class Health:
    """A real server that answers with the next of these statuses; with the last for ever."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.asked: list[bytes] = []
        self.port = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.read(1000)
        if head:
            self.asked.append(head.split()[1])
            status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status)
        writer.close()


@pytest.fixture
async def health() -> AsyncIterator[Health]:
    made = Health(503, 404, 204)
    listening = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.port = listening.sockets[0].getsockname()[1]
    yield made
    listening.close()
    await listening.wait_closed()


class Container:
    """A socket folder and what a gateway has in it, with an init of this process inside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.printed: list[bytes] = []
        self.init = InitCalls(SocketFolder(folder, LoopClock()), self.printed.append)
        self.tunnels: set[asyncio.Task[None]] = set()
        self._answering: asyncio.Future[None] | None = None

    def server(self, port: int, clock: Clock | None = None) -> Server:
        made = Server(self.init, port, clock or LoopClock())
        made.enter(NOBODY)
        return made

    def start_init(self) -> None:
        self._answering = asyncio.ensure_future(answer(str(self.folder), self.tunnels))

    async def stop_init(self) -> None:
        left = [task for task in (self._answering, *self.tunnels) if task is not None]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


@pytest.fixture
async def container(tmp_path: Path) -> AsyncIterator[Container]:
    made = Container(tmp_path / "run" / "0123")
    await made.init.link.open()
    yield made
    await made.init.close()
    await made.stop_init()
    await asyncio.sleep(0)


async def test_it_is_ready_when_its_health_is_below_400(container: Container, health: Health) -> None:
    container.start_init()
    told: list[str] = []
    await asyncio.wait_for(container.server(health.port).ready("/healthz", told.append), 5)
    assert health.asked == [b"/healthz"] * 3
    assert told == [
        f"GET /healthz on port {health.port} answers with status {status} (`health`)" for status in (503, 404)
    ]


async def test_without_a_health_path_it_is_ready_when_it_accepts(
    container: Container, health: Health
) -> None:
    container.start_init()
    await asyncio.wait_for(container.server(health.port).ready(None), 5)
    assert health.asked == []


async def test_a_health_that_does_not_answer_is_asked_again(container: Container, health: Health) -> None:
    clock = VirtualClock()
    respond, asked = health.answer, asyncio.Event()

    async def first_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not asked.is_set():
            asked.set()
            await reader.read()  # until the one who asks gives up
            writer.close()
        else:
            await respond(reader, writer)

    listening = await asyncio.start_server(first_silent, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    health.statuses = [200]
    container.start_init()
    ready = asyncio.ensure_future(container.server(port, clock).ready("/up"))
    await asyncio.wait_for(asked.wait(), 5)
    await clock.advance(DIAL_TIMEOUT_SECONDS)
    async with asyncio.timeout(5):
        while not ready.done():  # the pause before it is asked again is virtual, its sockets are real
            await clock.advance(0.1)
            await asyncio.sleep(0.001)
    assert clock.now() >= DIAL_TIMEOUT_SECONDS
    assert health.asked == [b"/up"]
    listening.close()
    await listening.wait_closed()


async def test_nobody_there_is_refused_and_init_can_be_asked_again(
    container: Container, health: Health
) -> None:
    container.start_init()
    with pytest.raises(ConnectionRefusedError, match="cannot connect to 127"):
        await container.server(1).dial(HttpConnection())
    connection = HttpConnection()
    await container.server(health.port).dial(connection)
    assert (await connection.exchange(CALL)).status == 503
    connection.abort()


async def test_connections_at_once_wait_for_init_to_dial(container: Container, health: Health) -> None:
    server = container.server(health.port)
    connections = [HttpConnection() for _ in range(8)]
    dialling = [asyncio.ensure_future(server.dial(connection)) for connection in connections]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in dialling), "init has not dialled yet"
    container.start_init()
    await asyncio.gather(*dialling)
    answers = await asyncio.gather(*(connection.exchange(CALL) for connection in connections))
    assert sorted(answer.status for answer in answers) == [204] * 6 + [404, 503]
    for connection in connections:
        connection.abort()


async def test_closing_ends_the_wait_for_an_init_that_does_not_dial(container: Container) -> None:
    dialling = asyncio.ensure_future(container.server(80).dial(HttpConnection()))
    await asyncio.sleep(0)
    await container.init.close()
    with pytest.raises(ConnectionError, match="gone"):
        await dialling


async def test_an_init_that_does_not_dial_is_given_up(container: Container) -> None:
    clock = VirtualClock()
    dialling = asyncio.ensure_future(container.server(80, clock).dial(HttpConnection()))
    await clock.advance(DIAL_TIMEOUT_SECONDS)
    with pytest.raises(TimeoutError):
        await dialling


@pytest.mark.parametrize(
    "said",
    [b"rubbish\r\n\r\n", b"HTTP/1.1 502 X\r\ncontent-length: 2\r\n\r\nno", b""],
    ids=["no HTTP", "no JSON", "the end"],
)
async def test_who_pretends_to_be_init_and_answers_nonsense_gets_no_call(
    container: Container, said: bytes
) -> None:
    """The program in the container can dial as well."""
    reader, writer = await dial(str(container.folder), "calls.sock")
    dialling = asyncio.ensure_future(container.server(80).dial(HttpConnection()))
    await reader.readuntil(b"\r\n\r\n")
    writer.write(said)
    writer.write_eof()
    with pytest.raises(ConnectionError):
        await dialling
    writer.close()


async def test_bytes_that_come_with_the_answer_are_not_lost(container: Container) -> None:
    """Nobody has asked the server yet: a connection that speaks first carries no call."""
    reader, writer = await dial(str(container.folder), "calls.sock")
    connection = HttpConnection()
    dialling = asyncio.ensure_future(container.server(80).dial(connection))
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged")
    await dialling
    assert not connection.open
    writer.close()


async def test_connections_of_an_earlier_gateway_are_counted_by_init(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1\n"
        "   1: 0100007F:1F40 0100007F:9C40 08 00000000:00000000 00:00000000 00000000     0        0 2 1\n"
        "   2: 0100007F:9C42 0100007F:1F40 01 00000000:00000000 00:00000000 00000000     0        0 3 1\n"
        "   3: 0100007F:1F40 0100007F:9C42 01 00000000:00000000 00:00000000 00000000     0        0 4 1\n"
    )

    async def read_file(path: str) -> bytes:
        return table.encode() if path == "/proc/net/tcp" else b""

    monkeypatch.setattr(container.init, "read_file", read_file)
    assert await container.server(8000).open_connections() == 2
    assert await container.server(8001).open_connections() == 0
