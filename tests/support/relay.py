"""The real init with `--relay`, and the gateway's end of its frames without an engine between them."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from pool.clock import LoopClock
from pool.engine.hijack import FRAME
from pool.transport.remote.frame_wire import FrameWire
from pool.transport.way import WayEnds


class Peer(asyncio.Protocol):
    """The gateway's end of one stream: keeps what comes."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.data = bytearray()
        self.ended = False
        self.lost: Exception | bool | None = False
        self.keep_open = False
        self.news = asyncio.Event()
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.news.set()

    def eof_received(self) -> bool:
        self.ended = True
        self.news.set()
        return self.keep_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc
        self.news.set()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.news.set()


class PipeTransport(asyncio.Transport):
    """The engine's connection to a container's stdin, as far as frames need it."""

    def __init__(self, stdin: asyncio.StreamWriter) -> None:
        super().__init__()
        self.stdin = stdin
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.aborted:
            self.stdin.write(data)

    def abort(self) -> None:
        self.aborted = True


class RelayProcess:
    """A running `init --relay`, which nothing but this test dials."""

    def __init__(self, program: Sequence[str], *flags: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="relay-"))
        self.key = secrets.token_bytes(32)
        self.printed = bytearray()
        self.peers: asyncio.Queue[Peer] = asyncio.Queue()
        self.why: list[str] = []
        self.wire: FrameWire | None = None
        self.listens: Callable[[bytes], None] | None = None
        """Takes what init writes."""
        self._command = [*program, "--relay", "--wait", *flags]
        self._epoch = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self.process = await asyncio.create_subprocess_exec(
            *self._command, stdin=-1, stdout=-1, env={**os.environ, "HEARTH_SOCKET_DIR": str(self.folder)}
        )
        assert self.process.stdin is not None
        self.stdin = self.process.stdin
        self._tasks.append(asyncio.ensure_future(self._pass_on()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        if self.wire is not None:
            self.wire.end()
        if self.process.returncode is None:
            self.process.kill()
        self.stdin.close()
        await self.process.wait()
        shutil.rmtree(self.folder)

    async def _pass_on(self) -> None:
        """Give what init writes to the present wire, in the pieces of an engine."""
        assert self.process.stdout is not None
        while data := await self.process.stdout.read(2**15):
            if self.listens is not None:
                self.listens(FRAME.pack(1, len(data)) + data)

    async def attach(self) -> FrameWire:
        """Begin an epoch, as a new connection does, and wait for init."""
        if self.wire is not None:
            self.wire.end()
        self._epoch += 1
        ends = WayEnds(self._peer, self.printed.extend)
        lost = lambda wire, why: self.why.append(why)  # noqa: E731
        self.wire = wire = FrameWire(ends, self.key, self._epoch, LoopClock(), lost)
        self.listens = wire.data_received
        wire.connection_made(PipeTransport(self.stdin))
        async with asyncio.timeout(20):
            await wire.hello.wait()
        return wire

    def _peer(self) -> Peer:
        peer = Peer()
        self.peers.put_nowait(peer)
        return peer

    async def dial(self, name: str = "calls") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Dial a socket of init, as a program in the container does."""
        reader, writer = await asyncio.open_unix_connection(self.folder / f"{name}.sock")
        self._writers.append(writer)
        return reader, writer

    def send(self, writer: asyncio.StreamWriter, data: bytes) -> asyncio.Task[None]:
        """Send much from within the container, as fast as it is taken."""
        self._tasks.append(asyncio.ensure_future(_send(writer, data)))
        return self._tasks[-1]

    async def pair(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Peer]:
        """Dial for calls; return both ends."""
        reader, writer = await self.dial()
        async with asyncio.timeout(20):
            return reader, writer, await self.peers.get()


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    for at in range(0, len(data), 70_000):
        writer.write(data[at : at + 70_000])
        await writer.drain()


async def until(peer: Peer, size: int) -> bytes:
    """Wait until a peer has got so many bytes, and return them."""
    async with asyncio.timeout(20):
        while len(peer.data) < size:
            peer.news.clear()
            await peer.news.wait()
    return bytes(peer.data)


async def over(peer: Peer) -> None:
    """Wait until a peer was told that its stream is over."""
    async with asyncio.timeout(20):
        while peer.lost is False:
            peer.news.clear()
            await peer.news.wait()
