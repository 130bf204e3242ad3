"""init --serve for images of the engine in memory: it dials the gateway, runs their program, and connects to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Awaitable

from pool.contracts.init_place import INIT
from pool.engine.labels import SOCKETS_FOLDER
from pool.engine.memory_process import Process, Program
from pool.transport.socket_folder import CALLS_SOCKET, LOG_SOCKET

REDIAL_SECONDS = 0.001
NOT_CONNECTED = b'{"type": "NotConnected", "message": "cannot connect to %b"}'


class Printing(Process):
    """The view that a program under init has of its container: what it prints goes to init's connection."""

    def __init__(self, outer: Process, log: asyncio.StreamWriter) -> None:
        self.spec = outer.spec
        self.clock = outer.clock
        self._log = log

    async def read(self) -> bytes | None:
        """Return None: the program has no input."""
        return None

    async def write(self, data: bytes, stream: int = 1) -> None:
        """Write to stdout or stderr."""
        self._log.write(data)
        await self._log.drain()


def serving(program: Program) -> Program:
    """Return init as the program of an image, for containers whose first process it is. It serves `program`."""

    async def init(process: Process) -> int:
        arguments = process.spec.entrypoint or ()
        assert arguments[:4] == (INIT, "--serve", "--calls", "1"), "this container has no init that serves"
        [folder] = [mount.source for mount in process.spec.mounts if mount.target == SOCKETS_FOLDER]
        _, log = await dial(folder, LOG_SOCKET)
        tunnels: set[asyncio.Task[None]] = set()
        answering = asyncio.ensure_future(answer(folder, tunnels))
        try:
            return await program(Printing(process, log))
        finally:
            for task in (answering, *tunnels):
                task.cancel()
            await asyncio.gather(answering, *tunnels, return_exceptions=True)
            log.transport.abort()

    return init


async def dial(folder: str, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a socket in a folder whose path may be longer than a socket's may be."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{opened}/{name}")
    finally:
        os.close(opened)


async def answer(folder: str, tunnels: set[asyncio.Task[None]]) -> None:
    """Keep one connection for calls open, and do what is asked on it."""
    while True:
        try:
            reader, writer = await dial(folder, CALLS_SOCKET)
        except OSError:  # no gateway listens now
            await asyncio.sleep(REDIAL_SECONDS)
            continue
        try:
            while not await one_request(reader, writer, tunnels):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
            raise


async def one_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tunnels: set[asyncio.Task[None]]
) -> bool:
    """Answer one request; return True if a stream has taken the connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    method, target, _ = head.split(maxsplit=2)
    if method == "CONNECT":
        host, _, port = target.partition(":")
        try:
            inside = await asyncio.open_connection(host, int(port))
        except OSError:
            said = NOT_CONNECTED % target.encode()
            writer.write(b"HTTP/1.1 502 X\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said))
            return False
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        tunnel = asyncio.ensure_future(both_ways((reader, writer), inside))
        tunnels.add(tunnel)
        tunnel.add_done_callback(tunnels.discard)
        return True
    found = re.fullmatch(r"/files/proc/net/tcp6?", target)
    assert method == "GET"
    assert found, f"this init cannot {method} {target}"
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    return False


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def both_ways(gateway: Stream, inside: Stream) -> None:
    """Pass bytes on until either has closed."""
    ways: list[Awaitable[None]] = [pass_on(gateway[0], inside[1]), pass_on(inside[0], gateway[1])]
    try:
        await asyncio.wait(map(asyncio.ensure_future, ways), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for _, writer in (gateway, inside):
            writer.transport.abort()


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until they end."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
