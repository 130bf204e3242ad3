"""The fast path: a small call of a function that is warm, from the client's socket to the instance's and back.

No task, no future, no ASGI cycle: every step is a callback of the loop. It serves what most calls are, a POST whose
body and answer are small and whole; as soon as a call needs anything else (a problem to tell, a stream, a connection
to be opened) it is handed over to the long way (`gateway/invoke/endpoint.py`), which can do everything. Both use the
same modules for the same facts: forwarding, outcome, invocation.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from gateway.access.credential import CARRIERS, take_credential
from gateway.edge.client_limits import ClientLimits
from gateway.edge.client_protocol import ClientProtocol
from gateway.http.forwarding import passed_headers
from gateway.http.preferences import CALLBACK
from gateway.http.problems import Problem
from gateway.invoke.endpoint import PREFIX
from gateway.invoke.fast_call import FastCall, FastPath, RequestHead
from gateway.invoke.invocation import Invocation
from gateway.invoke.outcome import CLIENT_GONE
from pool.clock import LazyTimer
from pool.transport.message import header_lines

MOST_BODY_BYTES = 64 * 1024
"""Bound of a request's body; longer ones take the long way, which streams."""
SMALL_BODY_SECONDS = 0.2
"""Time that a small body may take; a slower one takes the long way, which can refuse it."""
REMEMBERED_HEAD_BYTES = 4096
"""Bound of a request's head that is remembered."""
IDLE_HEAD_BYTES = 1024
"""Bound of a head that an idle connection may keep: its fields, if they are short, take 32 KiB."""


class FastPathProtocol(ClientProtocol):
    """One connection of a client, with the fast path in front of uvicorn's ASGI cycles."""

    background = False
    cycle: Any
    """The request that occupies the connection: a cycle of uvicorn's or a `FastCall`; the newest of several."""

    def __init__(self, fast: FastPath, limits: ClientLimits, **uvicorns: Any) -> None:
        super().__init__(limits, **uvicorns)
        self.fast = fast
        self.timer = LazyTimer(fast.clock, self._timer_rings)
        self._known: RequestHead | None = None
        """The head of the latest call, if it is likely to come again."""
        self._candidate: RequestHead | None = None
        """The head of the call whose body is being read."""
        self._body = b""
        self._fast_call: FastCall | None = None
        self._defaults: list[tuple[bytes, bytes]] = []
        self._default_lines = b""
        self._between = True
        """Set while the parser is between two requests."""
        self._begun = 0
        """Requests of which something was in the data that is being read."""

    @property
    def running(self) -> Invocation | None:
        """Return the call that it makes now on the fast path, or None if it makes none there."""
        return self._fast_call

    def connection_made(self, transport: Any) -> None:
        """Called by the loop."""
        super().connection_made(transport)
        self.fast.outcomes.recent.callers.add(self)

    # -- what comes in --------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        known = self._known
        if known is not None and self._between:
            raw = known.raw
            size = len(raw)
            if (
                data.startswith(raw)
                and len(data) == size + known.length
                and (self.cycle is None or self.cycle.response_complete)
                and not self._refused
            ):
                self._unset_keepalive_if_required()
                if self._call(known, data[size:]):
                    return
        between, self._begun, reading = self._between, 0, self._candidate
        if self._fast_call is None and reading is None:
            self.timer.stop()
        super().data_received(data)
        latest = self._candidate
        if latest is not None and self._between:
            self._candidate, self._body = None, b""
            if between and self._begun == 1:
                self._remember(latest, data)
            else:
                self._forget_head()
            if self._holds:
                self._hold(self._unread())
        elif latest is not None:
            self._await_rest(latest, reading)

    def _await_rest(self, head: RequestHead, reading: RequestHead | None) -> None:
        """Keep the beginning of a small body for a moment, if its sender may make the call."""
        if head is not reading:
            if not self.fast.access.would_admit(head.credentials, head.scope["raw_path"]):
                self._read_on()  # it is refused at once
                return
            # However many pieces follow, they have this time.
            self.timer.set(self.fast.clock.now() + SMALL_BODY_SECONDS)
        self._hold(self._unread())

    def _unread(self) -> int:
        return super()._unread() + len(self._body)

    def make_room(self) -> None:
        """Drop everything that nobody has asked for, and refuse its request."""
        self._candidate, self._body = None, b""
        super().make_room()

    def _remember(self, head: RequestHead, data: bytes) -> None:
        """Know a head again whose request was all of the data, and nothing else."""
        size = len(data) - head.length
        if size > IDLE_HEAD_BYTES:
            self._forget_head()
        raw = data[:size]
        if size <= REMEMBERED_HEAD_BYTES and raw.startswith(b"POST ") and raw.find(b"\r\n\r\n") == size - 4:
            head.raw = raw
            self._known = head

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._between = False
        self._begun += 1
        self._candidate = None
        self._body = b""
        super().on_message_begin()

    def _admit(self) -> None:
        if (self.cycle is None or self.cycle.response_complete) and (head := self._judge()) is not None:
            self._candidate = head
        else:
            super()._admit()

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        if self._candidate is not None:
            self._body += body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._between = True
        head = self._candidate
        if head is None or not self._call(head, self._body):
            if head is not None:
                self._read_on()
            super().on_message_complete()

    def _await_request(self) -> None:
        if self._candidate is None:
            super()._await_request()

    def _await_body(self) -> None:
        if self.cycle is not self._fast_call:  # else it has been read
            super()._await_body()

    def _read_on(self) -> None:
        """Let an ASGI cycle read the rest of a request, as if it had from the start."""
        self._candidate = None
        body, self._body = self._body, b""
        super()._admit()
        super().on_body(body)
        self._await_body()

    def _judge(self) -> RequestHead | None:
        """Return the head that was just read, or None if the call needs the long way."""
        parser, url = self.parser, self.url
        if (
            parser.get_method() != b"POST"
            or not url.startswith(PREFIX)
            or parser.get_http_version() != "1.1"
            or not parser.should_keep_alive()
            or parser.should_upgrade()
            or self.expect_100_continue
        ):
            return None
        name = url[len(PREFIX) :].decode("latin-1")
        route = self.fast.dispatcher.routes.get(name)  # a path, a query and all that is encoded are no names
        if route is None or route.function.private:
            return None
        length = 0
        for field, value in self.headers:
            if field == b"content-length":
                length = int(value)
            elif field in (b"transfer-encoding", b"prefer", CALLBACK):
                return None
        if length > MOST_BODY_BYTES:
            return None
        scope: dict[str, Any] = dict(self.scope)
        scope.update(method="POST", path=PREFIX.decode() + name, raw_path=url, query_string=b"")
        headers, closed = self.headers, self.fast.access.closed
        credentials = [field for field in headers if field[0] in CARRIERS]
        if closed and credentials:
            headers = scope["headers"] = headers.copy()
            take_credential(headers)
        try:
            passed = passed_headers(scope)
        except Problem:
            return None
        if self.fast.guard.fault(scope) is not None:
            return None
        lines = b"POST / HTTP/1.1\r\n" + header_lines(passed)
        return RequestHead(scope, name, lines, length, credentials, closed)

    def _call(self, head: RequestHead, body: bytes) -> bool:
        """Begin a call. Return whether it could; if not, it has to go the long way from the start."""
        fast = self.fast
        dispatcher = fast.dispatcher
        route = dispatcher.routes.get(head.function)
        if route is None:
            self.timer.stop()  # what it was set for is over: a body that was awaited, or a request
            return False
        revision = route.only or route.draw()
        if (
            dispatcher.draining
            or not revision.fast_path
            or len(body) > revision.limits.max_body
            or head.closed is not fast.access.closed
        ):
            self.timer.stop()
            return False
        call = FastCall(self, head, revision, body, fast.clock.now())
        self.cycle = self._fast_call = call
        call.begin()
        return True

    # -- what goes out --------------------------------------------------------------------------------------

    def answer(self, call: FastCall, status: int, lines: bytes, body: bytes) -> None:
        """Write the whole answer of a call, and be ready for the next request."""
        self._fast_call = None
        if call.disconnected:
            self._is_over()
            return
        defaults = self.server_state.default_headers
        if defaults is not self._defaults:  # there is a new list each second, for the date in it
            self._defaults, self._default_lines = defaults, header_lines(defaults)
        ending = b"" if call.keep_alive else b"connection: close\r\n"
        self.transport.write_now(  # type: ignore[attr-defined]
            b"%b%b%b%b%bcontent-length: %d\r\n\r\n%b"
            % (STATUS_LINE[status], self._default_lines, lines, call.own_lines(), ending, len(body), body)
        )
        if not call.keep_alive:
            self.transport.close()
        if not call.keep_alive or self.pipeline:
            self.timer.stop()
            self.on_response_complete()
        else:
            self.timer.set(self.fast.clock.now() + self.timeout_keep_alive)

    def take_long_way(self, call: FastCall, head: RequestHead, app: Any) -> None:
        """Let an ASGI cycle go on with a call that has been read whole."""
        self.timer.close()
        self._fast_call = None
        if call.disconnected:
            self._is_over()
        cycle = RequestResponseCycle(
            scope=head.scope,  # type: ignore[arg-type]
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=call.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.more_body = False
        cycle.disconnected = call.disconnected
        call.response_complete = True
        if isinstance(self.cycle, FastCall):  # and not the cycle of a request that waits behind this one
            self.cycle = cycle
        self._start_asgi_task(cycle, app)

    # -- what ends it ---------------------------------------------------------------------------------------

    def _timer_rings(self) -> None:
        """Called by the timer: the time of the call is over, or no request has come for long enough."""
        if self._candidate is not None:
            self._read_on()
        elif self._fast_call is not None:
            self._fast_call.take_long_way()  # which ends it
        elif self.cycle is None or self.cycle.response_complete:
            self.timeout_keep_alive_handler()

    def shutdown(self) -> None:
        """Called by the server: the connection ends with the answer to what is being read or served."""
        if self._candidate is not None:
            self._read_on()
        super().shutdown()
        if self._fast_call is not None:
            self._fast_call.take_long_way()  # there it is told if it has to be ended

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        super().connection_lost(exc)
        if self._fast_call is None or not self._fast_call.client_left():
            self._is_over()  # else the timer ends what runs when its time is over
        if self._candidate is not None:
            self.fast.outcomes.ended(Invocation(self.fast.clock.now(), self._candidate.function), CLIENT_GONE)

    def _is_over(self) -> None:
        """Nothing runs for its client any more, who has left."""
        self.timer.close()
        self.fast.outcomes.recent.callers.discard(self)
