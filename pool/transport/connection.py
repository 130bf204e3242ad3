"""One HTTP/1.1 client connection to an instance: the hot path of every warm call.

An asyncio Protocol on httptools' parser. One call at a time; no task, no lock and no timer of its own. After
an exchange `reusable` says whether the next call may use the connection: anything unclear closes it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools

from pool.errors import ConnectionLost, InstanceDied, MalformedAnswer, NotSent
from pool.transport import kernel
from pool.transport.message import Answer, Call, header_lines
from pool.transport.piecewise import send_in_pieces

HIGH_WATER = 64 * 1024
"""Bounds the bytes of an answer that wait here for a slow reader before the instance is made to wait."""
MAX_HEAD = 64 * 1024
"""Bounds the bytes of an answer's head, as most servers do."""
SLICE, TINY = 4 * 1024, 64
"""Bytes of an answer that are parsed before others have their turn, if they hold more than `TINY` chunks. A chunk of
one byte costs us far more than it costs the instance, and a whole read of them would hold up all other calls."""
OnAnswer = Callable[[Exception | None], None]
FRAMING = frozenset({b"content-length", b"transfer-encoding"})
"""Header fields that tell where an answer ends."""


class HttpConnection(asyncio.Protocol):
    """A connection that carries calls to an instance, one after the other.

    It is itself the `Answer` of the call that it carries. `on_open` and `on_lost` tell its link.
    """

    feeding: asyncio.Future[None] | None = None

    def __init__(
        self,
        on_open: Callable[[HttpConnection], None] | None = None,
        on_lost: Callable[[HttpConnection], None] | None = None,
    ) -> None:
        self._on_open = on_open
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._on_answer: OnAnswer | None = None
        self._reader: asyncio.Future[None] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self.can_write: asyncio.Future[None] | None = None
        """Set while the instance reads more slowly than it is sent to: done when it has caught up."""
        self.open = False
        self.busy = False
        self.idle_since = 0.0
        # Every exchange leaves these as they are here, or the connection is closed after it.
        self._chunks: deque[bytes] = deque()
        self.buffered = 0
        """Bytes of the answer's body that are here and not taken."""
        self._paused = False
        self._keep_alive = True
        self._skip_body = False
        self._failure: Exception | None = None
        self._pieces = 0
        """Chunks and fields that were parsed; only differences count."""
        self._rest: bytes | memoryview = b""
        """Read, and not parsed yet; nothing more is read meanwhile."""
        self._expect_answer()

    def _expect_answer(self) -> None:
        """Forget the answer before; called for each exchange."""
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_bytes = 0
        """Bytes that came until the head was here: no less than it has."""
        self.complete = self._head_done = self._framed = self._chunked = False

    # -- a call ---------------------------------------------------------------------------------------------

    async def exchange(self, call: Call) -> Answer:
        """Send a call and return when the head of the answer is here.

        Raises `NotSent` if the connection is gone and nothing was sent, `InstanceDied` if it ends before an
        answer, `MalformedAnswer` if the answer is not HTTP. What `call.more` raises passes; the connection is closed.
        """
        transport, waiter = self._begin_and_wait()
        self._skip_body = call.method == b"HEAD"
        lines = [call.method, b" ", call.target, b" HTTP/1.1\r\n", header_lines(call.headers)]
        if call.more is not None:
            return await send_in_pieces(self, transport, b"".join(lines), call, waiter)
        lines += (b"content-length: %d\r\n\r\n" % len(call.first), call.first)
        transport.write(b"".join(lines))
        return await waiter

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
        self._expect_answer()
        self.busy = True
        self._on_answer = on_answer
        return transport

    def _begin_and_wait(self) -> tuple[asyncio.Transport, asyncio.Future[Answer]]:
        """Begin an exchange; what is returned with the transport is done when the head of the answer is here."""
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def on_answer(fault: Exception | None) -> None:
            if waiter.done():
                return  # cancelled
            if fault is None:
                waiter.set_result(self)
            else:
                waiter.set_exception(fault)

        return self._begin(on_answer), waiter

    def take(self) -> bytes:
        """Return what of the answer's body has arrived, without waiting."""
        chunks = self._chunks
        if not chunks:
            return b""
        if len(chunks) == 1:
            data = chunks.popleft()
        else:
            data = b"".join(chunks)
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
        """Return the next piece of the answer's body; empty at its end.

        Raises `InstanceDied` or `MalformedAnswer`.
        """
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
        """Return whether the answer is all here, and so clean that another call may follow when it is taken."""
        return self.open and self.complete and self._keep_alive and self._failure is None

    @property
    def reusable(self) -> bool:
        """Return whether the exchange ended so cleanly that another call may follow."""
        return self.whole and not self._chunks

    def finish(self) -> bool:
        """End the exchange, if there was one; return whether the connection is kept."""
        if not self.open:
            keep = False
        elif self.busy:  # as `reusable`, which would be two more calls for each of ours
            keep = self.complete and self._keep_alive and self._failure is None and not self._chunks
            self.busy = False
        else:
            keep = True
        if not keep:
            self.busy = False
            self.abort()
        return keep

    def spoil(self) -> None:
        """Let no call follow on this connection."""
        self._keep_alive = False

    def peer_pid(self) -> int:
        """Return the id of the process at the other end of a unix socket, or 0 if we cannot see it."""
        return kernel.peer_pid(self._transport) if self._transport is not None else 0

    def detach(self) -> asyncio.Transport:
        """Return the transport, which another protocol shall take, and forget it. Raises `NotSent` if it is gone."""
        transport, self._transport = self._transport, None
        self.open = self.busy = False
        if self._on_lost is not None:
            self._on_lost(self)
        if transport is None or transport.is_closing():
            raise NotSent("the instance closed its connection")
        return transport

    def abort(self) -> None:
        """Close at once; an answer that is under way is lost."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio.Protocol -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)
        self.open = True
        if self._on_open is not None:
            self._on_open(self)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, and tell whoever waits for it."""
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
                self._fail(MalformedAnswer(f"the instance's answer is not HTTP: {error}"))
            self._keep_alive = False
        except httptools.HttpParserUpgrade:
            self._keep_alive = False  # `on_headers_complete` has told that the instance switched protocols

    def _look(self) -> None:
        """Tell whoever waits what has come of the bytes that were parsed."""
        if self._failure is not None:
            return
        if self._head_done:
            self._wake()
        elif self.head_bytes > MAX_HEAD:
            self._fail(MalformedAnswer(f"the head of the instance's answer is over {MAX_HEAD} bytes"))

    def _wake(self) -> None:
        on_answer = self._on_answer
        if on_answer is not None:
            self._on_answer = None
            on_answer(None)
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
        """Close, as the other side has."""

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange. If a write failed, the instance may have answered all the same, and closed."""
        transport, self._transport = self._transport, None
        self.open = self._keep_alive = self._paused = False
        asked = self.busy and not self.complete and self._failure is None
        if asked and transport is not None and isinstance(exc, OSError):
            self._rest = b"".join((self._rest, kernel.unread(transport)))
        else:
            self._rest = b""
        if self.can_write is not None and not self.can_write.done():
            self.can_write.set_result(None)
        if self._rest:
            self._parse_slices()
        if isinstance(exc, ConnectionLost) and self.busy and not self.complete and self._failure is None:
            self._fail(exc)
        self._conclude()
        if self._on_lost is not None:
            self._on_lost(self)

    def _conclude(self) -> None:
        """End the exchange of a connection that is lost, once all that came over it is parsed."""
        if self._rest or not self.busy or self.complete or self._failure is not None:
            return
        if self._head_done and not self._framed:
            self.complete = True  # neither length nor chunks: the end of the connection is the end
            self._wake()
        else:
            self._fail(InstanceDied("the instance closed the connection before its answer was whole"))

    def pause_writing(self) -> None:
        """Have whoever sends wait: the instance reads more slowly than the client sends."""
        if self.can_write is None or self.can_write.done():
            self.can_write = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Have whoever sends go on."""
        if self.can_write is not None and not self.can_write.done():
            self.can_write.set_result(None)
        self.can_write = None

    # -- httptools callbacks --------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Let no call follow a second message within one exchange."""
        if self.complete:
            self._keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field of the head. Trailers, and the fields of an answer too many, are dropped."""
        if self._head_done:
            self._pieces += 1
            return
        name = name.lower()
        if name in FRAMING:
            self._framed = True
            self._chunked = name == b"transfer-encoding"
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Take the head of the answer; after a 1xx another one follows."""
        if self.complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self.headers = []  # 1xx: the answer is still to come
            self._framed = False
            if status == 101:
                self._fail(MalformedAnswer("the instance switched protocols without a request to do so"))
            return
        if status > 599:
            self._fail(
                MalformedAnswer(f"the instance answered with status {status}, which HTTP does not allow")
            )
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
        """Keep a piece of the body, and have the instance wait if too many wait here."""
        if self.complete:
            return
        self._pieces += 1
        self._chunks.append(body)
        self.buffered += len(body)
        if self.buffered > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Note the end of the answer."""
        if self._head_done:
            self.complete = True
