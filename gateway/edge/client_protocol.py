"""uvicorn's HTTP protocol, with limits for clients that are slow, greedy or do not speak HTTP.

Added are a time for a request's head and for the beginning of its body, a limit to the head and to pipelined
requests, and the rules of RFC 9112 that the parser leaves to us. A request that is refused here never becomes an
invocation. A request that comes in one piece pays a few comparisons and no timer.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from gateway.edge.client_limits import ClientLimits
from gateway.edge.head_rules import (
    MOST_FIELDS,
    MOST_HEAD_BYTES,
    SHORT_HEAD_BYTES,
    WATCHED,
    Refusal,
    check_host,
    check_size,
    head_without_upgrade,
    problem_of,
    too_long,
)
from gateway.edge.http2_refusal import Http2Refusal, behind_preface
from gateway.edge.slices import SLICE_BYTES, HoldableFlow, has_many_lines, rest_of_declared
from gateway.edge.slow_reader import SlowReaderProtocol
from gateway.http.problems import Problem
from gateway.invoke.body import LATE, READ_AHEAD, Message, Receive
from gateway.memory.reservation import FIELD_BYTES, busy, head_bytes
from pool.transport.message import header_lines

WRITE_BUFFER_BYTES = 16 * 1024
"""Bytes of an answer that may wait in a connection before they count and the function is made to wait."""
SMALL_BODY_BYTES = 4 * 1024
"""Bytes of a whole body that wait uncounted for the one turn of the loop until somebody asks for them."""
MOST_PIPELINED = 64
"""Requests that may wait on one connection for the answer to the one before them."""
LINGER_SECONDS = 2.0
"""Seconds for which we go on reading after a refusal: closed at once, the client might not see why."""
NO_SCOPE: Any = {}
"""The scope of a request that is over."""


class ClientProtocol(SlowReaderProtocol):
    """One connection of a client."""

    _reading: HoldableFlow

    def __init__(self, limits: ClientLimits, **uvicorns: Any) -> None:
        super().__init__(limits, **uvicorns)
        self._late_timer: asyncio.TimerHandle | None = None
        """Runs while a head, or the beginning of a body, is awaited."""
        self._running: RequestResponseCycle | None = None
        """The request that is being answered; `cycle` is the latest to arrive."""
        self._refused = False
        self._in_head = False
        self._head_bytes = 0
        """Bytes of a head that did not come in one piece."""
        self._head_begin = 0
        """Bytes of the piece in which the latest incomplete head began."""
        self._holds = False
        """Set while a part of the budget is held for bytes that nobody has asked for yet."""
        self._body_bytes = 0
        """Bytes of the latest request's body, read so far."""
        self._aside = b""
        """Data that came and waits to be parsed in slices."""
        self._piece_bytes = 0
        """Bytes that came last, in one piece."""
        self._hosts = 0
        self._upgrade = False

    # -- the connection -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by the loop."""
        super().connection_made(transport)
        self.flow = self._reading = HoldableFlow(transport)
        transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        if len(self.connections) > self._limits.connections:
            self.transport.abort()
        else:
            self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop. The request that runs must learn of it, not only the latest."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._stop_late_timer()
        self._aside = b""
        self._hold(0)
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        # Who refers to whom goes in circles here: what is large would wait for the garbage collector.
        self.pipeline.clear()
        self.cycle = self._running = None  # type: ignore[assignment]
        self.headers, self.url, self.scope = [], b"", NO_SCOPE

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        size = len(data)
        if self._refused or (size > SLICE_BYTES and self._set_aside(data)):
            return
        self._unset_keepalive_if_required()
        if self._in_head:
            self._head_bytes += size
        self._piece_bytes = size
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as asked:
                data = self._without_upgrade() + data[asked.args[0] :]
                continue
            except httptools.HttpParserError as error:
                if self.parser.get_method() == b"PRI" and (rest := behind_preface(data)) is not None:
                    self._refused = True
                    self._stop_late_timer()
                    seconds = self._limits.timeout_seconds
                    self._late_timer = self.loop.call_later(seconds, self.transport.abort)
                    Http2Refusal(self.transport, self).data_received(rest)
                else:
                    self._refuse(problem_of(error))
                return
            break
        if self._in_head:
            if self._head_bytes > MOST_HEAD_BYTES or len(self.headers) > MOST_FIELDS:
                self._refuse(too_long().problem)
                return
            if self._late_timer is None:
                self._late_timer = self.loop.call_later(self._limits.timeout_seconds, self._head_is_late)
                self._head_begin = len(data)
            self._hold(self._unread())
        elif self.cycle is None or self.cycle.response_complete:
            self._await_request()
        else:
            self._await_body()

    def _set_aside(self, data: bytes) -> bool:
        """Have data parsed in slices if it has many lines, and read nothing more meanwhile; return whether it has."""
        if not has_many_lines(data) or len(data) <= rest_of_declared(self.cycle, self._body_bytes):
            return False
        self._unset_keepalive_if_required()
        self._aside = data
        self._reading.hold()
        self._hold(self._unread())
        if self._aside:
            self._limits.slices.put(self._parse_slice)
        return True

    def _parse_slice(self) -> bool:
        """Parse one slice of what was set aside; return whether something is left."""
        if not self._aside:
            return False
        data, self._aside = self._aside[:SLICE_BYTES], self._aside[SLICE_BYTES:]
        self.data_received(data)
        if not self._aside:
            self._reading.release()
        return bool(self._aside)

    def _await_request(self) -> None:
        if self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self._limits.timeout_seconds, self.timeout_keep_alive_handler
            )

    def _await_body(self) -> None:
        """Read no more of a body before somebody asks for it."""
        if self.cycle.more_body:
            self.flow.pause_reading()
            if self._late_timer is None and self._body_bytes < READ_AHEAD:
                self._late_timer = self.loop.call_later(
                    self._limits.timeout_seconds, self._body_is_late, self.cycle
                )
            self._hold(self._unread())
        elif self._holds or self._body_bytes > SMALL_BODY_BYTES or self.pipeline:
            self._hold(self._unread())

    # -- time -----------------------------------------------------------------------------------------------

    def _stop_late_timer(self) -> None:
        if self._late_timer is not None:
            self._late_timer.cancel()
            self._late_timer = None

    def _head_is_late(self) -> None:
        self._late_timer = None
        detail = f"the request's head did not come within {self._limits.timeout_seconds:g} s"
        self._refuse(Problem("head-timeout", detail))

    def _body_is_late(self, cycle: RequestResponseCycle) -> None:
        """Tell whoever reads the body, who answers; if nobody does, refuse it ourselves."""
        self._late_timer = None
        if cycle is not self.cycle or not cycle.more_body or cycle.response_complete:
            return
        if cycle is not self._running or self.flow.read_paused:
            self._late_timer = self.loop.call_later(self._limits.timeout_seconds, self._body_is_late, cycle)
        elif LATE not in cycle.scope:
            cycle.scope[LATE] = True  # type: ignore[literal-required]
            cycle.message_event.set()
            self._late_timer = self.loop.call_later(LINGER_SECONDS, self._body_is_late, cycle)
        elif not cycle.response_started:
            detail = f"the body's beginning did not come within {self._limits.timeout_seconds:g} s"
            self._refuse(Problem("body-timeout", detail))

    # -- memory ---------------------------------------------------------------------------------------------

    def _unread(self) -> int:
        """Return the bytes that nobody has asked for: of half a head, of bodies, and of requests that wait."""
        size = len(self._aside)
        if self._in_head:
            size += self._head_begin + self._head_bytes + FIELD_BYTES * len(self.headers)
        if self._running is not None:
            size += len(self._running.body)
        for cycle, _ in self.pipeline:
            size += head_bytes(cycle.scope) + len(cycle.body)
        return size

    def _hold(self, size: int) -> None:
        """Have so many bytes counted; without room for them, refuse the requests that hold them."""
        if size:
            self._holds = self._limits.memory.unread.hold(self, size, self.make_room)
            if not self._holds:
                self.make_room()
        elif self._holds:
            self._holds = False
            self._limits.memory.unread.let_go(self)

    def make_room(self) -> None:
        """Drop everything that nobody has asked for, and refuse its request.

        The memory of connections calls this for the longest waiting one when another has no room.
        """
        self._holds = False
        if self.pipeline:
            self.transport.abort()
            return
        running = self._running
        if running is not None and running.body:
            running.more_body = True  # else the rest would be taken for the whole
        self._refuse(busy())
        if running is not None:
            running.body = bytearray()

    async def _serve(self, app: Any, scope: Any, receive: Receive, send: Any) -> None:
        """Run an application that is given one piece of the body at a time: none comes before it asks."""

        async def receive_piece() -> Message:
            message = await receive()
            if message.get("more_body") and not self.transport.is_closing():
                self.flow.pause_reading()
            if self._holds:
                self._hold(self._unread())
            return message

        await app(scope, receive_piece, send)

    # -- refusing -------------------------------------------------------------------------------------------

    def _refuse(self, problem: Problem) -> None:
        """Read no further request. Answer those that are whole, then the problem if it has a place."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._aside = b""
        self._reading.release()
        self.headers, self.url, self.scope = [], b"", NO_SCOPE
        self.parser = None  # type: ignore[assignment]  # it keeps the field that is not whole
        self._in_head = False
        self._stop_late_timer()
        self._unset_keepalive_if_required()
        latest, running = self.cycle, self._running
        if latest is None or latest.response_complete:
            self._answer(problem)
        elif not latest.more_body:
            latest.keep_alive = False  # the connection ends with the answer to it
        elif latest is running and not running.response_started:
            self._answer(problem)
        else:
            self.transport.close()
        if latest is not None and latest.more_body and not latest.response_complete:
            latest.disconnected = True
            latest.waiting_for_100_continue = False  # nothing may be written behind the answer
            latest.body = bytearray()
            latest.message_event.set()
        if self._holds:
            self._hold(self._unread())

    def _answer(self, problem: Problem) -> None:
        """Write the problem and our end of the connection, then read for a while whatever is still on its way."""
        body = problem.body()
        lines = header_lines([*problem.response_headers(body), (b"connection", b"close")])
        self.transport.write(STATUS_LINE[problem.status] + lines + b"\r\n" + body)
        self.transport.write_eof()
        self.flow.resume_reading()
        self._late_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    # -- the parser's callbacks -----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Called by the parser."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = self._body_bytes = self._hosts = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser; also for trailers, which are dropped: who checked the head did not see them."""
        if not self._in_head:
            return
        name = name.lower()
        if name in WATCHED:
            if name == b"host":
                self._hosts += 1
            elif name == b"expect":
                self.expect_100_continue = value.lower() == b"100-continue"
            elif value.lower() != b"chunked":
                raise Refusal("bad-request", "of all transfer codings only chunked is understood")
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._in_head = False
        if self._late_timer is not None:
            self._stop_late_timer()
        if self._piece_bytes > SHORT_HEAD_BYTES or self._head_bytes:
            if len(self.headers) > MOST_FIELDS:
                raise too_long()
            if self._piece_bytes > MOST_HEAD_BYTES or self._head_bytes:
                check_size(self.url, self.headers)
        if self._hosts != 1:
            check_host(self._hosts, self.parser.get_http_version())
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise Refusal("bad-request", "CONNECT is not served")
            self._upgrade = True
            return
        if len(self.pipeline) >= MOST_PIPELINED:
            raise Refusal("bad-request", "too many requests are waiting for the answer to the first")
        self._admit()

    def _admit(self) -> None:
        """Begin with the request, whose head is in order."""
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body_bytes += len(body)
        if self._late_timer is not None and self._body_bytes >= READ_AHEAD:
            self._stop_late_timer()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._late_timer is not None:
            self._stop_late_timer()
        if not self._upgrade:
            super().on_message_complete()
            self._forget_head()

    def _forget_head(self) -> None:
        """Keep no large head while the connection is idle: whoever serves the request has it."""
        self.headers, self.scope, self.url = [], NO_SCOPE, b""

    def _without_upgrade(self) -> bytes:
        """Return the head once more, without the wish for another protocol, which we do not grant.

        The parser takes what follows such a head for that other protocol: the body would be lost, and the next
        request never seen.
        """
        self._upgrade = False
        parser = self.parser
        head = head_without_upgrade(parser.get_method(), self.url, parser.get_http_version(), self.headers)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return head

    # -- answers --------------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, partial(self._serve, app))

    def on_response_complete(self) -> None:
        """Called by the cycle whose answer is written. Further requests are read when those here are answered."""
        running = self._running
        if running is not None and running.response_complete:
            running.body, running.scope = bytearray(), NO_SCOPE  # nobody asks for them any more
        super().on_response_complete()
        if self._holds:
            self._hold(self._unread())
        if self.pipeline:
            self.flow.pause_reading()
        elif self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._watch_reader()
