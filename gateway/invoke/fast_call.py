"""One call on the fast path (`gateway/edge/fast_path.py`): a slot, the request, the answer, each as it comes.

A call that needs more is handed over to the long way (`gateway/invoke/endpoint.py`) at any step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from uvicorn.protocols.http.flow_control import FlowControl

from gateway.access.access import OPEN, Access, Admission
from gateway.access.guard import Guard
from gateway.http.answer_headers import response_lines
from gateway.http.forwarding import DEADLINE, HeaderList
from gateway.http.problems import Problem
from gateway.invoke.body import Receive, Send
from gateway.invoke.endpoint import InvokeEndpoint
from gateway.invoke.invocation import HandedOver, Invocation
from gateway.invoke.outcome import CLIENT_GONE, Outcomes
from gateway.invoke.recent_calls import Failure
from gateway.memory.budget import BodyBudget
from gateway.memory.reservation import SMALL_REQUEST, busy, head_bytes
from pool.clock import Clock, LazyTimer
from pool.errors import NotSent
from pool.host.cpu_policy import set_policy
from pool.lease import Lease
from pool.observe.logs import LogStore
from pool.transport.connection import HttpConnection
from pool.transport.message import Answer
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.dispatch.errors import Gone, QueueFull
from scheduler.dispatch.function import Revision, Waiter

REMEMBERED_HEAD_BYTES = 2048
"""Bound of an answer's head whose fields are remembered."""


@dataclass(frozen=True, slots=True, eq=False)
class FastPath:
    """The parts of a gateway that its fast calls work with: all connections of clients share them."""

    endpoint: InvokeEndpoint
    guard: Guard
    access: Access
    dispatcher: Dispatcher
    outcomes: Outcomes
    logs: LogStore
    clock: Clock
    bodies: BodyBudget

    async def go_on(
        self, scope: Mapping[str, Any], receive: Receive, send: Send, state: HandedOver, admission: Admission
    ) -> None:
        """Serve the rest of a call, as ASGI."""
        try:
            await self.endpoint(scope, receive, send, state)
        finally:
            admission.ended()


class RequestHead:
    """A request's head that the fast path can serve, and the facts that follow from it.

    A client that keeps its connection sends the same head again and again: then nothing of it is parsed twice.
    """

    __slots__ = ("_held", "closed", "credentials", "function", "length", "passed", "raw", "scope")

    def __init__(
        self,
        scope: dict[str, Any],
        function: str,
        passed: bytes,
        length: int,
        credentials: HeaderList,
        closed: bool,
    ) -> None:
        self._held = 0
        self.scope = scope
        self.credentials = credentials
        """The fields that a key may be in. They are checked for each call: a key may be revoked, or used up."""
        self.closed = closed
        """Set if a key was needed when the head was read. If not, these fields are passed on with all others."""
        self.function = function
        self.passed = passed
        """Bytes that the function is sent: request line and fields, but for those that differ from call to call."""
        self.length = length
        """Bytes of the body."""
        self.raw = b""
        """The head as it came, if it is to be known again."""

    @property
    def held(self) -> int:
        """Return the memory that it takes, in bytes. It is worked out when a call first waits with it."""
        if not self._held:
            self._held = len(self.passed) + head_bytes(self.scope)
        return self._held


NO_HEAD = RequestHead({}, "", b"", 0, [], False)
"""The head of a call that is over."""


class Client(Protocol):
    """The one for whom a call is made: the connection that it came over, or a runner of accepted calls."""

    fast: FastPath
    timer: LazyTimer
    flow: FlowControl
    background: bool
    """Set if nobody waits for the answer."""

    def answer(self, call: FastCall, status: int, lines: bytes, body: bytes) -> None:
        """Pass the whole answer of a call on; `lines` are the function's header fields."""

    def take_long_way(self, call: FastCall, head: RequestHead, app: Any) -> None:
        """Let an ASGI application go on with a call."""


class _NoEvent:
    """An event that nobody waits for: uvicorn sets a cycle's event when the client leaves."""

    def set(self) -> None: ...


class FastCall(Invocation):
    """One call. To uvicorn it is the cycle that occupies the connection."""

    __slots__ = (
        "_answer",
        "_body",
        "_client",
        "_head",
        "_lease",
        "_queued",
        "_waiter",
        "admission",
        "began",
        "disconnected",
        "keep_alive",
        "over",
        "response_complete",
        "revision",
    )
    _queued: int
    """Bytes of the budget that it holds while it is queued."""
    revision: Revision
    message_event = _NoEvent()
    more_body = False
    response_started = False

    def __init__(
        self, client: Client, head: RequestHead, revision: Revision, body: bytes, now: float, id: str = ""
    ) -> None:
        super().__init__(now, revision.name, id)
        self.revision = revision
        self.began = 0.0
        self.keep_alive = True
        self.disconnected = False
        self.response_complete = False
        self._client = client
        self._head = head
        self._body = body
        self.admission: Admission = OPEN
        self._lease: Lease | None = None
        self._waiter: Waiter | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self.over = False
        """Set when it was answered, handed over or left by its client."""

    @property
    def request(self) -> tuple[RequestHead, bytes]:
        """Return the head and the body that it keeps. Both are empty after its answer."""
        return self._head, self._body

    def begin(self) -> None:
        """Take a slot that is free, or wait for one, if the call is admitted at all."""
        fast, head = self._client.fast, self._head
        if head.closed:  # as the gateway is; where it is open, everybody is admitted
            admission = fast.access.admit_call(head.credentials.copy(), head.scope["raw_path"])
            if isinstance(admission, Problem):
                self.over = True
                self._client.take_long_way(self, head, partial(fast.endpoint.refuse, problem=admission))
                return
            self.admission = admission
        self.take_slot()

    def take_slot(self) -> None:
        """Take a slot that is free, or wait for one."""
        dispatcher = self._client.fast.dispatcher
        lease = dispatcher.try_lease(self.revision, self.id, self.arrived)
        if lease is not None:
            self._settle(lease, None)
            return
        self._client.timer.stop()  # whatever it was set for is over
        self._queued, settle = 0, self._settle
        fast = self._client.fast
        if not self._client.background and (size := len(self._body) + self._head.held) > SMALL_REQUEST:
            if not fast.bodies.take(self.admission.caller, size, in_turn=False):
                fast.bodies.on_refused("call")
                self._hand_over(busy())
                return
            self._queued, settle = size, self._settle_queued
        try:
            waiter = dispatcher.enqueue(self.revision, self.id, self.arrived, settle)
        except (QueueFull, Gone) as fault:
            self._leave_queue()
            self._hand_over(fault)
            return
        self._waiter = None if waiter.left else waiter

    def _leave_queue(self) -> None:
        """Give back the memory of a body that waited in the queue."""
        size, self._queued = self._queued, 0
        if size:
            self._client.fast.bodies.give_back(self.admission.caller, size)

    def _settle_queued(self, lease: Lease | None, fault: Exception | None) -> None:
        """Go on after a wait in the queue."""
        self._leave_queue()
        self._settle(lease, fault)

    def _settle(self, lease: Lease | None, fault: Exception | None) -> None:
        """Send the request over a lease, or hand the call over with the reason why there is none."""
        self._waiter = None
        if lease is None:
            self._hand_over(fault)
            return
        self._lease = lease
        self.note_lease(lease)
        connection: HttpConnection | None = lease.connection  # type: ignore[assignment]  # by `Contract.fast_path`
        if connection is None:
            self._hand_over()  # it has to be opened, or the instance is being thawed over the engine
            return
        client = self._client
        if lease.instance.background is not client.background:
            set_policy(lease.instance, client.background)
        timeout = self.revision.limits.timeout
        request = b"%bx-invocation-id: %b\r\n%b: %.3f\r\ncontent-length: %d\r\n\r\n%b" % (
            self._head.passed,
            self.id.encode(),
            DEADLINE,
            timeout,
            len(self._body),
            self._body,
        )
        try:
            connection.send(request, self._answered)
        except NotSent:
            self._hand_over()  # the long way finds the same, and takes another
            return
        self.began = client.fast.clock.now()
        client.timer.set(self.began + timeout)

    def _answered(self, fault: Exception | None) -> None:
        """Pass the answer on if it is whole, or hand the call over. `fault`: the head will never come."""
        lease: Lease = self._lease  # type: ignore[assignment]  # it was sent over its connection
        connection: HttpConnection = lease.connection  # type: ignore[assignment]
        if self._answer is not None:  # handed over before
            if fault is not None and not self._answer.done():
                self._answer.set_exception(fault)
            elif not self._answer.done():
                self._answer.set_result(connection)
            return
        limits, client = self.revision.limits, self._client
        contract, status = lease.workload.contract, connection.status
        if (
            fault is not None
            or not connection.whole
            or status in contract.long_way_statuses
            or connection.buffered > limits.max_response
            or client.flow.write_paused
        ):
            self._hand_over(fault)
            return
        fast = client.fast
        self.exec_seconds = fast.clock.now() - self.began
        contract.note_answer(lease, connection)
        known = (
            response_lines if connection.head_bytes < REMEMBERED_HEAD_BYTES else response_lines.__wrapped__
        )
        lines = known(tuple(connection.headers), limits.web)
        body = connection.take()
        fast.dispatcher.release(lease)
        fast.outcomes.served(self, status)
        self.admission.ended()
        self.over = self.response_complete = True
        self._head, self._body = NO_HEAD, b""  # an idle connection keeps the call, and not what it took
        client.answer(self, status, lines, body)

    def take_long_way(self) -> None:
        """Hand it over if it runs: its time is over, or soon will be."""
        if self._lease is not None and not self.over:
            self._hand_over()

    def client_left(self) -> bool:
        """Free its place in the queue. A call that runs goes on to its end or timeout. Return whether it runs."""
        self.disconnected = True
        return self.leave(CLIENT_GONE)

    def leave(self, end: Failure) -> bool:
        """Free its place in the queue and note its end, if it waits. Return whether it runs."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self.over = True
            fast = self._client.fast
            self._leave_queue()
            fast.dispatcher.leave(waiter)
            fast.outcomes.ended(self, end)
            self.admission.ended()
        return not self.over

    def _hand_over(self, fault: Exception | None = None) -> None:
        """Go on as a task on the long way."""
        self.over = True
        state = HandedOver(self, self.revision, self._body, self._lease, began=self.began)
        if self._lease is None:
            state.fault = fault
        elif self.began:
            connection: HttpConnection = self._lease.connection  # type: ignore[assignment]  # as in `_settle`
            answer = self._answer = asyncio.get_running_loop().create_future()
            state.answer = answer
            if fault is not None:
                answer.set_exception(fault)
            elif connection.status:
                answer.set_result(connection)
        app = partial(self._client.fast.go_on, state=state, admission=self.admission)
        self._client.take_long_way(self, self._head, app)
