"""One HTTP/1.1 client connection to an instance: the hot path of every warm call.

An asyncio Protocol on httptools' parser. One call at a time; no task, no lock and no timer of its own. After
an exchange `reusable` says whether the next call may use the connection: anything unclear closes it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import cast

import httptools

from pool.errors import InstanceDied, Nonsense, NotSent
from pool.transport import kernel
from pool.transport.message import Answer, Call, header_lines

HIGH_WATER = 64 * 1024
"""Bytes of an answer that may wait here for a slow reader before the instance is made to wait."""
MAX_HEAD = 64 * 1024
"""Bytes of an answer's head."""
SLICE, TINY = 4 * 1024, 64
"""Bytes of an answer that are parsed before others have their turn, if they hold more than `TINY` chunks: a chunk of
one byte costs us far more than it costs the instance, and a whole read of them would hold all other calls up."""
OnAnswer = Callable[[Exception | None], None]


class HttpConnection(asyncio.Protocol):
    """A connection that carries calls to an instance, one after the other.

    It is itself the `Answer` of the call that it carries. `on_open` and `on_lost` tell its link.
    """

    def __init__(
        self,
        on_open: Callable[[HttpConnection], None] | None = None,
        on_lost: Callable[[HttpConnection], None] | None = None,
    ) -> None:
        self._on_open = on_open
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._can_write: asyncio.Future[None] | None = None
        self._on_answer: OnAnswer | None = None
        self._reader: asyncio.Future[None] | None = None
        self.open = False
        self.busy = False
        self.idle_since = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False
        self._chunks: deque[bytes] = deque()
        self.buffered = 0
        """Bytes of the answer's body that are here and not taken."""
        self._paused = False
        self._head_done = False
        self.head_bytes = 0
        """Bytes that came until the head was here: no less than it has."""
        self._framed = self._chunked = False
        self._keep_alive = True
        self._skip_body = False
        self._failure: Exception | None = None
        self._pieces = 0
        self._rest: bytes | memoryview = b""
        """Read, and not parsed yet; nothing more is read meanwhile."""

    # -- a call ---------------------------------------------------------------------------------------------

    async def exchange(self, call: Call) -> Answer:
        """Send a call and return when the head of the answer is here.

        Raises `NotSent` if the connection is gone and nothing was sent, `InstanceDied` if it ends before an
        answer, `Nonsense` if the answer is not HTTP. What `call.more` raises passes; the connection is closed.
        """
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def on_answer(fault: Exception | None) -> None:
            if waiter.done():
                return  # cancelled
            if fault is None:
                waiter.set_result(self)
            else:
                waiter.set_exception(fault)

        transport = self._begin(on_answer)
        self._skip_body = call.method == b"HEAD"
        lines = [call.method, b" ", call.target, b" HTTP/1.1\r\n", header_lines(call.headers)]
        if call.more is None:
            lines += (b"content-length: %d\r\n\r\n" % len(call.first), call.first)
            transport.write(b"".join(lines))
            return await waiter
        return await self._exchange_streaming(call, lines, transport, waiter)

    def send(self, request: bytes, on_answer: OnAnswer) -> None:
        """Send a request that is whole and final, any method but HEAD; `exchange` without a task that waits.

        Raises `NotSent`. `on_answer` is called once, from the loop: with None when the head of the answer is here
        (and maybe all of it), else with what `exchange` would raise.
        """
        self._begin(on_answer).write(request)

    def _begin(self, on_answer: OnAnswer) -> asyncio.Transport:
        transport = self._transport
        if transport is None or not self.open or transport.is_closing():
            raise NotSent("the instance closed its connection")
        self._reset()
        self.busy = True
        self._on_answer = on_answer
        return transport

    async def _exchange_streaming(
        self, call: Call, lines: list[bytes], transport: asyncio.Transport, waiter: asyncio.Future[Answer]
    ) -> Answer:
        """The body comes in pieces. Sending stops when the instance has answered or is gone."""
        assert call.more is not None
        chunked = call.length is None
        if call.length is None:
            lines.append(b"transfer-encoding: chunked\r\n\r\n")
        else:
            lines.append(b"content-length: %d\r\n\r\n" % call.length)
        transport.write(b"".join(lines))
        piece, left = call.first, call.length
        try:
            while True:
                if waiter.done() or not self.open:  # it answered before it had read everything, or has closed
                    self._keep_alive = False
                    return await waiter
                if piece:
                    transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                    left = None if left is None else left - len(piece)
                if left == 0:
                    return await waiter
                if self._can_write is not None:
                    await asyncio.wait((self._can_write, waiter), return_when=asyncio.FIRST_COMPLETED)
                following = await self._unless_done(call.more(), waiter)
                if following is None:
                    self._keep_alive = False
                    return await waiter
                if not following:
                    break
                piece = following
        except BaseException:
            self._give_up(waiter)
            raise
        if not chunked:
            self._give_up(waiter)
            raise InstanceDied("the body ended before its declared length")
        if self.open:
            transport.write(b"0\r\n\r\n")
        return await waiter

    def _give_up(self, waiter: asyncio.Future[Answer]) -> None:
        """Close at once. The caller learns of the request's fault and does not ask what becomes of the answer."""
        self.abort()
        if not waiter.cancel() and not waiter.cancelled():
            waiter.exception()

    async def _unless_done(self, reading: Awaitable[bytes], waiter: asyncio.Future[Answer]) -> bytes | None:
        """The next piece of the body; None if the answer is here first, or will never be."""
        task = asyncio.ensure_future(reading)
        try:
            await asyncio.wait((task, waiter), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))

    def take(self) -> bytes:
        """What of the answer's body has arrived, without waiting."""
        chunks = self._chunks
        if not chunks:
            return b""
        data = chunks.popleft() if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.buffered = 0
        if self._paused and self._transport is not None:
            self._paused = False
            if self._rest:
                asyncio.get_running_loop().call_soon(self._go_on)
            else:
                self._transport.resume_reading()
        return data

    async def read(self) -> bytes:
        """Next piece of the answer's body; empty at its end. Raises `InstanceDied` or `Nonsense`."""
        while not self._chunks:
            if self._failure is not None:
                raise self._failure
            if self.complete:
                return b""
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self.take()

    @property
    def whole(self) -> bool:
        """Whether the answer is all here, and so clean that another call may follow when it is taken."""
        return self.open and self.complete and self._keep_alive and self._failure is None

    @property
    def reusable(self) -> bool:
        """Whether the exchange ended so cleanly that another call may follow."""
        return self.whole and not self._chunks

    def finish(self) -> bool:
        """End the exchange, if there was one; returns whether the connection is kept."""
        keep = self.reusable if self.busy else self.open
        self.busy = False
        if not keep:
            self.abort()
        return keep

    def peer_pid(self) -> int:
        """The process at the other end of a unix socket, in our own numbers; 0 if it is not to be seen from here."""
        return kernel.peer_pid(self._transport) if self._transport is not None else 0

    def abort(self) -> None:
        """Close at once; an answer that is under way is lost."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio.Protocol -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)
        self.open = True
        if self._on_open is not None:
            self._on_open(self)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if not self.busy or self.complete:
            self.abort()  # nobody asked: whatever this is, no later caller may read it
        elif len(data) > SLICE and (self._chunked or not self._head_done):
            self._rest = memoryview(data)
            self._parse_slices()
        else:
            self._parse(data)
            self._look()

    def _parse_slices(self) -> None:
        """Parse what was read, but no more than one slice of tiny chunks: others have their turn before the next."""
        pieces = 0
        while self._rest and pieces <= TINY:
            pieces = -self._pieces
            data, self._rest = self._rest[:SLICE], self._rest[SLICE:]
            self._parse(data)
            pieces += self._pieces
            if self._rest and (self.complete or self._failure is not None):
                self._keep_alive, self._rest = False, b""  # more than an answer
        if self._rest:
            if self._transport is not None:
                self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._go_on)
        self._look()

    def _go_on(self) -> None:
        """Parse on, unless who reads the answer is slow: then `take` comes back here."""
        if not self._rest or self._paused:
            return
        self._parse_slices()
        if self._transport is None:
            self._conclude()
        elif self.open and not (self._rest or self._paused):
            self._transport.resume_reading()

    def _parse(self, data: bytes | memoryview) -> None:
        if not self._head_done:
            self.head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if (
                not self.complete and self._failure is None
            ):  # after a whole answer, rubbish costs the connection
                self._fail(Nonsense(f"the instance's answer is not HTTP: {error}"))
            self._keep_alive = False
        except httptools.HttpParserUpgrade:
            self._keep_alive = False  # `on_headers_complete` has told that the instance switched protocols

    def _look(self) -> None:
        """Tell who waits what has come of the bytes that were parsed."""
        if self._failure is not None:
            return
        if not self._head_done and self.head_bytes > MAX_HEAD:
            self._fail(Nonsense(f"the head of the instance's answer is over {MAX_HEAD} bytes"))
        elif self._head_done:
            self._wake()

    def _wake(self) -> None:
        self._answer(None)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _answer(self, fault: Exception | None) -> None:
        """Tell the caller, once. It may end this exchange and begin another one before this returns."""
        on_answer, self._on_answer = self._on_answer, None
        if on_answer is not None:
            on_answer(fault)

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self.abort()
        self._answer(error)
        self._wake()

    def eof_received(self) -> None:
        """Called by the loop: the other side has closed; so do we."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop. If what failed was a write, the instance may have answered all the same, and closed."""
        transport, self._transport = self._transport, None
        self.open = self._keep_alive = self._paused = False
        asked = self.busy and not self.complete and self._failure is None
        if asked and transport is not None and isinstance(exc, OSError):
            self._rest = b"".join((self._rest, kernel.unread(transport)))
        else:
            self._rest = b""
        if self._can_write is not None and not self._can_write.done():
            self._can_write.set_result(None)
        if self._rest:
            self._parse_slices()
        self._conclude()
        if self._on_lost is not None:
            self._on_lost(self)

    def _conclude(self) -> None:
        """The connection is lost: when all that came over it is parsed, that is the end of the exchange."""
        if self._rest or not self.busy or self.complete or self._failure is not None:
            return
        if self._head_done and not self._framed:
            self.complete = True  # neither length nor chunks: the end of the connection is the end
            self._wake()
        else:
            self._fail(InstanceDied("the instance closed the connection before its answer was whole"))

    def pause_writing(self) -> None:
        """Called by the loop: the instance reads more slowly than the client sends."""
        if self._can_write is None or self._can_write.done():
            self._can_write = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Called by the loop."""
        if self._can_write is not None and not self._can_write.done():
            self._can_write.set_result(None)
        self._can_write = None

    # -- httptools callbacks --------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Called by the parser; a second message within one exchange is one too many."""
        if self.complete:
            self._keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser; also for trailers, and for an answer too many: both are dropped."""
        if self._head_done:
            self._pieces += 1
            return
        lower = name.lower()
        if lower in (b"content-length", b"transfer-encoding"):
            self._framed = True
            self._chunked = lower == b"transfer-encoding"
        self.headers.append((lower, value))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self.complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self.headers = []  # 1xx: the answer is still to come
            self._framed = False
            if status == 101:
                self._fail(Nonsense("the instance switched protocols without a request to do so"))
            return
        if status > 599:
            self._fail(Nonsense(f"the instance answered with status {status}, which HTTP does not allow"))
            return
        self.status = status
        self._keep_alive = self._parser.should_keep_alive()
        self._head_done = True
        if status in (204, 304):
            self._framed = True
        if self._skip_body:  # HEAD: the parser would wait for a body that never comes
            self.complete = True
            self._keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        if self.complete:
            return
        self._pieces += 1
        self._chunks.append(body)
        self.buffered += len(body)
        if self.buffered > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._head_done:
            self.complete = True
