"""A connection to a container's streams: an HTTP request that is upgraded to bytes both ways."""

from __future__ import annotations

import asyncio
import struct
from typing import cast

from pool.engine.base import EngineUnreachable

READ_AHEAD_BYTES = 128 * 1024
"""A container's output that may wait here, before its connection is read no further."""
LARGEST_HEAD_BYTES = 64 * 1024
"""The answer to the request, with the body of a refusal."""
FRAME = struct.Struct(">BxxxL")
"""The head of each piece of output: number of the stream, length."""


class HijackedConnection(asyncio.Protocol):
    """One connection to a container's streams. First `upgrade` it.

    Both directions push back: `write` waits while the engine does not take the data, and nothing is read from
    the engine while `READ_AHEAD_BYTES` wait to be read here. Once the container has ended, what is written is
    dropped: nobody is left to read it."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._ended = False
        self._fault: Exception | None = None
        self._stdin_open = True
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._news = asyncio.Event()

    # -- the protocol -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has another base

    def data_received(self, data: bytes) -> None:
        """Keep output, and stop reading where too much waits."""
        self._received += data
        self._news.set()
        if len(self._received) >= READ_AHEAD_BYTES and self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Note that the container has ended. The transport stays, but for TLS, which cannot be open one way only."""
        self._end(None)
        return self._transport is not None and self._transport.get_extra_info("sslcontext") is None

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake everybody who waits."""
        self._end(exc)

    def pause_writing(self) -> None:
        """Hold writers back: the engine does not take what was sent."""
        if not self._ended:
            self._may_write.clear()

    def resume_writing(self) -> None:
        """Let writers go on."""
        self._may_write.set()

    def _end(self, fault: Exception | None) -> None:
        self._ended, self._fault = True, self._fault or fault
        self._news.set()
        self._may_write.set()

    # -- its use ----------------------------------------------------------------------------------------------

    async def upgrade(self, target: str) -> tuple[int, bytes]:
        """POST to `target` and return the status of the answer, with a refusal's body.

        Raises `EngineUnreachable`, and ValueError for an answer that is not HTTP."""
        assert self._transport is not None
        head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        self._transport.write(f"{head}Content-Length: 0\r\n\r\n".encode())
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            if len(self._received) > LARGEST_HEAD_BYTES:
                raise ValueError(f"an answer with a head of over {LARGEST_HEAD_BYTES} bytes")
            if not await self._more():
                raise EngineUnreachable("The engine closed the connection while a container was attached")
        answer = self._take(end + 4).decode("latin-1")
        version, _, rest = answer.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise ValueError("an answer that is not HTTP")
        status = int(rest[:3])
        return status, await self._body(answer) if status >= 400 else b""

    async def _body(self, head: str) -> bytes:
        """Return the body of a refusal, as long as its head says."""
        fields = dict(line.lower().partition(":")[::2] for line in head.split("\r\n"))
        length = fields.get("content-length", "").strip()
        wanted = min(int(length), LARGEST_HEAD_BYTES) if length.isdigit() else 0
        while len(self._received) < wanted and await self._more():
            pass
        return self._take(wanted)

    async def write(self, data: bytes) -> None:
        """Send bytes to the container's stdin, once the engine has room for them."""
        if self._transport is None or not self._stdin_open or self._ended or self._transport.is_closing():
            return
        self._transport.write(data)
        await self._may_write.wait()

    async def close_stdin(self) -> None:
        """Let the container's stdin end; its output goes on."""
        transport = self._transport
        if (
            transport is not None
            and self._stdin_open
            and not transport.is_closing()
            and transport.can_write_eof()
        ):
            transport.write_eof()
        self._stdin_open = False

    async def read(self) -> tuple[int, bytes] | None:
        """Return the next piece of output with its stream (1 stdout, 2 stderr); None at the end.

        Half a piece at the end is lost with its container. Raises `EngineUnreachable`."""
        while True:
            if len(self._received) >= FRAME.size:
                number, length = FRAME.unpack_from(self._received)
                if len(self._received) >= FRAME.size + length:
                    return number, self._take(FRAME.size + length)[FRAME.size :]
                if self._transport is not None:
                    self._transport.resume_reading()  # a piece may be longer than what is read ahead
            if not await self._more():
                if self._fault is not None:
                    raise EngineUnreachable(
                        f"The connection to an attached container broke: {self._fault}"
                    ) from self._fault
                return None

    def hand_over(self, protocol: asyncio.Protocol) -> None:
        """Give the connection to a protocol: it gets all that has come, with the heads of the pieces."""
        transport, self._transport = self._transport, None
        if transport is None:
            raise EngineUnreachable("The connection to an attached container broke at once")
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        received, self._received = bytes(self._received), bytearray()
        if received:
            protocol.data_received(received)
        if self._ended:
            protocol.connection_lost(self._fault)
        else:
            transport.resume_reading()

    async def read_terminal(self) -> bytes:
        """Return the next output of a container with a terminal, which has no frames; empty at the end."""
        while not self._received and await self._more():
            pass
        return self._take(len(self._received))

    @property
    def unread(self) -> int:
        """Return how many bytes of output wait here to be read, with the heads of their pieces."""
        return len(self._received)

    async def close(self) -> None:
        """Free the connection now, even where the engine takes no more."""
        self._stdin_open = False
        if self._transport is not None:
            self._transport.abort()

    async def _more(self) -> bool:
        """Wait for more to have come; return False once nothing comes any more."""
        if self._ended:
            return False
        self._news.clear()
        await self._news.wait()
        return True

    def _take(self, size: int) -> bytes:
        taken = bytes(self._received[:size])
        del self._received[:size]
        if len(self._received) < READ_AHEAD_BYTES and self._transport is not None and not self._ended:
            self._transport.resume_reading()
        return taken
