"""The client of the Docker Engine API, against small servers of our own on a Unix socket."""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from pool.engine import docker_api
from pool.engine.access.address import BadAddress, engine_address
from pool.engine.base import EngineError, EngineFault, EngineUnreachable, NotFound
from pool.engine.docker import INSPECTED_AT_ONCE, DockerEngine
from pool.engine.docker_api import gather_bounded
from pool.engine.hijack import FRAME, READ_AHEAD_BYTES
from pool.observe.metrics import Metrics

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def engine_of(folder: Path, answer: Answer) -> AsyncIterator[DockerEngine]:
    """An engine whose every request is answered by `answer`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(folder / "engine.sock")).start()
    engine = DockerEngine(f"unix://{folder}/engine.sock", Metrics())
    try:
        yield engine
    finally:
        await engine.close()
        await runner.cleanup()


@asynccontextmanager
async def raw_engine_of(folder: Path, sent: bytes) -> AsyncIterator[DockerEngine]:
    """An engine that sends these bytes on each connection once it was asked, and then ends it."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        writer.close()

    server = await asyncio.start_unix_server(talk, folder / "engine.sock")
    engine = DockerEngine(f"unix://{folder}/engine.sock", Metrics())
    try:
        yield engine
    finally:
        await engine.close()
        server.close()
        await server.wait_closed()


def shown(container: str) -> dict[str, object]:
    state = {"Running": True, "Pid": 7, "Status": "running", "ExitCode": 0, "OOMKilled": False}
    return {"Id": container, "Name": f"/{container}", "Image": "i", "State": state, "Config": {"Labels": {}}}


async def test_many_containers_are_looked_at_side_by_side(tmp_path: Path) -> None:
    """Each inspection is answered only when as many are under way as may be: one after the other, none would be."""
    names = [f"c{number}" for number in range(4 * INSPECTED_AT_ONCE)]
    waiting: list[asyncio.Event] = []
    most = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal most
        if request.path == "/containers/json":
            return web.json_response([{"Id": name} for name in names])
        waiting.append(asyncio.Event())
        most = max(most, len(waiting))
        mine = waiting[-1]
        if len(waiting) == INSPECTED_AT_ONCE:
            for event in waiting:
                event.set()
            waiting.clear()
        await mine.wait()
        return web.json_response(shown(request.path.split("/")[2]))

    async with engine_of(tmp_path, answer) as engine:
        found = await engine.containers({})
    assert [state.id for state in found] == names
    assert most == INSPECTED_AT_ONCE


async def test_containers_that_go_meanwhile_are_left_out_and_a_fault_is_told(tmp_path: Path) -> None:
    fault = 404

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/containers/json":
            return web.json_response([{"Id": "here"}, {"Id": "gone"}])
        if "gone" in request.path:
            return web.json_response({"message": "no such container"}, status=fault)
        return web.json_response(shown("here"))

    async with engine_of(tmp_path, answer) as engine:
        assert [state.id for state in await engine.containers({})] == ["here"]
        with pytest.raises(NotFound, match="no such container"):
            await engine.inspect("gone")
        fault = 500
        with pytest.raises(EngineError, match="Cannot list containers"):
            await engine.containers({})


async def test_work_that_is_not_begun_because_other_work_failed_is_put_away(
    recwarn: pytest.WarningsRecorder,
) -> None:
    """Of hundreds of containers most are not begun when the engine goes away: no warning is for nothing."""

    async def work(number: int) -> None:
        if number == 0:
            raise EngineUnreachable("away")
        await asyncio.sleep(60)

    for at_once in (1, 2, 9):
        with pytest.raises(EngineUnreachable, match="away"):
            await gather_bounded(work, range(8), at_once)
    await asyncio.sleep(0)
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize(
    ("sent", "error", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 18\r\n\r\n" + b'{"message":"none"}', NotFound, "none"),
        (b"HTTP/1.1 409 Conflict\r\n\r\n", EngineError, "Cannot attach"),
        (b"HTTP/1.1 10", EngineUnreachable, "closed the connection"),
        (b"SSH-2.0-x\r\n\r\n", EngineFault, "is not that of a Docker Engine"),
        (b"HTTP/1.1 101 " + b"x" * 70_000, EngineFault, "is not that of a Docker Engine"),
    ],
)
async def test_a_connection_that_is_not_upgraded_says_why(
    tmp_path: Path, sent: bytes, error: type[EngineError], words: str
) -> None:
    async with raw_engine_of(tmp_path, sent) as engine:
        with pytest.raises(error, match=words):
            await engine.attach("c")


async def test_output_comes_in_its_pieces_however_it_was_cut(tmp_path: Path) -> None:
    large = b"z" * (2 * READ_AHEAD_BYTES)
    pieces = [(1, b"first"), (2, b""), (1, large), (2, b"last")]
    frames = b"".join(FRAME.pack(number, len(data)) + data for number, data in pieces)
    head = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\n\r\n"
    async with raw_engine_of(tmp_path, head + frames + FRAME.pack(1, 9) + b"half") as engine:
        attachment = await engine.attach("c")
        assert [await attachment.read() for _ in pieces] == pieces
        assert await attachment.read() is None
        await attachment.write(b"nobody reads this")
        await attachment.close_stdin()
        await attachment.close()


def tls_without_certificates(side: int) -> ssl.SSLContext:
    """TLS in which nobody shows who he is: such ciphers need no files."""
    context = ssl.SSLContext(side)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AECDH-AES256-SHA:@SECLEVEL=0")
    return context


async def test_output_over_tls_is_whole_and_its_end_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = tls_without_certificates(ssl.PROTOCOL_TLS_CLIENT)
    monkeypatch.setattr(docker_api, "client_tls", lambda address: client)
    caplog.set_level(logging.WARNING)
    data = b"z" * (2 * READ_AHEAD_BYTES)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 UPGRADED\r\n\r\n" + FRAME.pack(1, len(data)) + data)
        writer.close()

    tls = tls_without_certificates(ssl.PROTOCOL_TLS_SERVER)
    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    engine = DockerEngine(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", Metrics())
    attachment = await engine.attach("c", stdin=False)
    assert await attachment.read() == (1, data)
    assert await attachment.read() is None
    await attachment.close()
    await engine.close()
    server.close()
    await server.wait_closed()
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("unix:///run/x.sock", "http://localhost"),
        ("tcp://10.0.0.7", "http://10.0.0.7:2375"),
        ("tcp://[::1]:99", "http://[::1]:99"),
        ("https://host.example", "https://host.example:2376"),
    ],
)
def test_an_address_is_read_as_docker_reads_it(
    text: str, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    assert engine_address(text).origin == origin
    monkeypatch.setenv("DOCKER_HOST", text)
    assert engine_address().origin == origin


@pytest.mark.parametrize("text", ["ssh://somewhere", "unix://", "tcp://", "/var/run/docker.sock"])
def test_an_address_that_cannot_be_used_is_refused_with_one_that_could(text: str) -> None:
    with pytest.raises(BadAddress, match="unix:///PATH or tcp://HOST:PORT"):
        engine_address(text)
