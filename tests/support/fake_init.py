"""init's end of a connection, as docs/init.md says, with a coroutine in the place of the program."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

STDIN_BYTES = 64 * 1024
"""Bytes of input that wait for the program, as in a pipe."""


class FakeStdin:
    """The input of a program: a pipe."""

    def __init__(self) -> None:
        self._held = bytearray()
        self.ended = False
        self._changed = asyncio.Event()

    async def read(self, size: int = -1) -> bytes:
        """Return what is here of the input, at most `size` bytes; empty at its end."""
        while not self._held and not self.ended:
            self._changed.clear()
            await self._changed.wait()
        data = bytes(self._held[:size] if size >= 0 else self._held)
        del self._held[: len(data)]
        self._changed.set()
        return data

    async def write(self, data: bytes) -> None:
        """Give the program more of its input; wait until little of it waits."""
        self._held += data
        self._changed.set()
        while len(self._held) > STDIN_BYTES:
            self._changed.clear()
            await self._changed.wait()

    def end(self) -> None:
        """End the input."""
        self.ended = True
        self._changed.set()


@dataclass
class FakeRun:
    """One run: its variables, its input, and its output."""

    variables: dict[str, str]
    stdin: FakeStdin
    writer: asyncio.StreamWriter

    async def write(self, data: bytes) -> None:
        """Write to standard output; wait while the gateway does not read."""
        if data:
            self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self.writer.drain()


FakeProgram = Callable[[FakeRun], Awaitable[int]]
"""A program. It returns its exit status, or a negative number for the signal that ends it."""


STATUS = b'{"init": 1, "runs": 0, "running": false}'


async def serve_runs(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, program: FakeProgram
) -> None:
    """Answer requests until the connection ends, or a run has left some of its body."""
    try:
        while await serve_run(reader, writer, program):
            pass
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def serve_run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, program: FakeProgram) -> bool:
    """Answer one request; return whether another may follow. Raises IncompleteReadError if the gateway goes away."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
    if lines[0] == "GET /hearth/status HTTP/1.1":
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(STATUS), STATUS))
        return True
    assert lines[0] == "POST /run HTTP/1.1", lines[0]
    fields = [line.partition(": ")[::2] for line in lines[1:-2]]
    given = [unquote_to_bytes(value).decode() for name, value in fields if name == "x-hearth-env"]
    run = FakeRun(dict(variable.split("=", 1) for variable in given), FakeStdin(), writer)
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    running = asyncio.ensure_future(program(run))
    listening = asyncio.ensure_future(listen(reader, dict(fields), run.stdin))
    try:
        await asyncio.wait((running, listening), return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            await listening  # raises: the gateway has gone away
        status = await running
        await asyncio.wait(
            (listening,), timeout=0 if run.stdin.ended else 0.02
        )  # what is here of a body is read
    finally:
        for task in (running, listening):
            task.cancel()
        await asyncio.wait((running, listening))
    ending = b"x-hearth-status: %d" % status if status >= 0 else b"x-hearth-signal: %d" % -status
    writer.write(b"0\r\n%b\r\nx-hearth-exec: 0.25\r\n\r\n" % ending)
    await writer.drain()
    return run.stdin.ended


async def listen(reader: asyncio.StreamReader, fields: dict[str, str], stdin: FakeStdin) -> None:
    """Pass a body on to the program, no faster than it reads, and raise IncompleteReadError when the gateway goes."""
    left = int(fields.get("content-length", "0"))
    chunked = fields.get("transfer-encoding") == "chunked"
    while chunked or left:
        if chunked:
            size = int((await reader.readuntil(b"\r\n")).strip(), 16)
            piece = (await reader.readexactly(size + 2))[:size]
            if not piece:
                break
        else:
            piece = await reader.read(min(left, STDIN_BYTES))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
        await stdin.write(piece)
    stdin.end()
    await reader.readexactly(1)
    raise AssertionError("the gateway sends nothing before the answer is over")
