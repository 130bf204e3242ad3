"""The invoke endpoint: raw ASGI, ahead of all routing, since every warm call goes this way.

Admit, lease a slot, send the call over the instance's connection, stream the answer back, end the lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, Protocol

from gateway.access.access import ADMISSION, OPEN, Admission
from gateway.http.answer_headers import response_headers
from gateway.http.deadline import Deadline
from gateway.http.forwarding import cgi_variables, request_headers, target_of
from gateway.http.problems import Problem, problem_of
from gateway.invoke.background import BACKGROUND, Background, phases_of
from gateway.invoke.body import ClientGone, Receive, RequestBody, Send, client_leaves
from gateway.invoke.checked_input import read_checked
from gateway.invoke.deaths import Deaths
from gateway.invoke.invocation import HandedOver, Invocation
from gateway.invoke.methods import check_method
from gateway.invoke.outcome import CLIENT_GONE, Outcomes, interruption
from gateway.invoke.recent_calls import Failure
from gateway.invoke.refusal_log import RefusalLog
from pool.clock import Clock
from pool.errors import AnswerTooLarge, InstanceDied, MalformedAnswer, NotSent
from pool.host.cpu_policy import set_policy
from pool.lease import Lease
from pool.states import Reason
from pool.transport.message import Answer, Call
from pool.workload import is_private
from scheduler.calls.store import LARGEST_KEPT
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.dispatch.function import Revision
from scheduler.dispatch.queued import Queued

PREFIX = b"/invoke/"
MOST_LEASES = 3
"""Leases that a call may use up before anything of it was sent: instances can die one after the other."""
UNWATCHED_SECONDS = 0.02
"""Time of waiting for a slot until the client is watched for leaving: a watch costs a task."""


class Faults(Protocol):
    """Knows why a declared function is not in service. `loaded` is set once the declared ones are known."""

    loaded: bool

    def fault_of(self, function: str, private: bool = True) -> str | None:
        """Return why a function is not in service; empty while it is set up, None if there is none of this name."""


class InvokeEndpoint:
    """Serves everything below /invoke/."""

    def __init__(
        self, dispatcher: Dispatcher, faults: Faults, outcomes: Outcomes, clock: Clock, deaths: Deaths
    ) -> None:
        self.dispatcher = dispatcher
        self.deaths = deaths
        self._faults = faults
        self.outcomes = outcomes
        self.clock = clock
        self._refusals = RefusalLog(clock)

    async def __call__(
        self, scope: Mapping[str, Any], receive: Receive, send: Send, handed_over: HandedOver | None = None
    ) -> None:
        """Serve one call, as ASGI. `scope["raw_path"]` starts with /invoke/.

        `handed_over` is the state of a call that began on the fast path.
        """
        invocation = _Invocation(self, scope, receive, send, handed_over)
        recent = self.outcomes.recent
        recent.running[invocation.id] = invocation
        try:
            await invocation.run()
        except ClientGone:
            self.outcomes.ended(invocation, CLIENT_GONE)
        except asyncio.CancelledError:
            if not self.dispatcher.draining:
                if invocation.background is not None:
                    self.outcomes.ended(invocation, interruption(draining=False))
                raise
            detail = "the gateway is shutting down, and the call did not end in time"
            await self._refuse(invocation, Problem("draining", detail, retry_after=5.0))
        except Exception as error:
            await self._refuse(invocation, error)
        finally:
            recent.runs_no_more(invocation)
            if invocation.background is not None:
                invocation.background.phases = phases_of(invocation)

    async def refuse(
        self, scope: Mapping[str, Any], receive: Receive, send: Send, problem: Exception
    ) -> None:
        """Answer a call that may not be made at all; it counts as an invocation nevertheless."""
        await self._refuse(_Invocation(self, scope, receive, send), problem)

    async def _refuse(self, invocation: _Invocation, error: Exception) -> None:
        problem = problem_of(error)
        self._refusals.note(invocation.id, invocation.name, problem, error)
        end = Failure(problem.slug, problem.blame, problem.detail)
        self.outcomes.ended(invocation, end, problem.status)
        if invocation.background is not None:
            invocation.background.problem = problem
        if invocation.head_sent:
            return  # the server closes the connection without a final chunk: nobody takes half for whole
        body = problem.body(invocation.id)
        headers = problem.response_headers(body) + invocation.own_headers()
        await invocation.send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await invocation.send({"type": "http.response.body", "body": body})

    def find_revision(
        self, invocation: _Invocation, scope: Mapping[str, Any], name: str, sub_path: bytes
    ) -> Revision:
        revision = self.dispatcher.revision_for(name)
        accepted = invocation.background is not None
        if revision is not None and revision.function.private and not accepted:
            revision = None  # accepted calls alone reach a job's private function
        fault = self._faults.fault_of(name, private=accepted) if revision is None else None
        if revision is not None or fault is not None:
            invocation.name = name  # only what is declared becomes a label: callers cannot make up metrics
            invocation.private = is_private(name) if revision is None else revision.function.private
            invocation.revision = revision
        if self.dispatcher.draining:
            raise Problem("draining", "the gateway is shutting down", retry_after=5.0)
        if revision is None:
            if fault == "" or not self._faults.loaded:
                raise Problem("no-capacity", f"{name} is still being set up", retry_after=2.0)
            if fault is not None:
                raise Problem("function-failed", f"{name} is not in service: {fault}")
            raise Problem("no-such-function", f"there is no function {name!r}; GET /functions lists them")
        check_method(revision.workload.contract, name, scope["method"], sub_path)
        return revision


class _Invocation(Invocation):
    """One call on its way through the gateway."""

    __slots__ = (
        "_end",
        "_handed_over",
        "_receive",
        "_scope",
        "admission",
        "background",
        "head_sent",
        "private",
        "revision",
        "send",
        "sending",
        "timeout",
    )

    def __init__(
        self,
        endpoint: InvokeEndpoint,
        scope: Mapping[str, Any],
        receive: Receive,
        send: Send,
        handed_over: HandedOver | None = None,
    ) -> None:
        super().__init__(endpoint.clock.now())
        self._end = endpoint
        self._scope = scope
        self._receive = receive
        self._handed_over = handed_over
        self.send = send
        self.private = False
        self.revision: Revision | None = None
        self.admission: Admission = scope.get(ADMISSION, OPEN)
        self.head_sent = False
        self.sending = False
        """Set while the client must read before anything else can be sent."""
        self.timeout = 0.0
        """Seconds that it may execute, once its function is known."""
        self.background: Background | None = scope.get(BACKGROUND)
        if self.background is not None:
            self.id = self.background.id
        if handed_over is not None:
            before = handed_over.invocation
            self.id, self.name, self.arrived = before.id, before.name, before.arrived
            self.revision, self.admission = handed_over.revision, before.admission

    async def run(self) -> None:
        """Serve the call from its head to the answer's last byte. Raises errors that `problem_of` understands."""
        scope, end, before = self._scope, self._end, self._handed_over
        raw_name, _, sub_path = scope["raw_path"][len(PREFIX) :].partition(b"/")
        name = raw_name.decode("latin-1")
        revision = end.find_revision(self, scope, name, sub_path) if before is None else before.revision
        target = target_of(sub_path, scope["query_string"])
        self.timeout = revision.limits.timeout
        if self.background is not None and self.background.timeout is not None:
            self.timeout = self.background.timeout
        headers = request_headers(scope, self.id.encode(), self.timeout)
        if self.background is not None:
            headers += self.background.headers()
        body = RequestBody(self._receive, scope, revision.limits.max_body)
        if before is None:
            if (check := revision.limits.check) is None:
                await body.read_ahead()
            else:
                await read_checked(body, check, scope, self.timeout, name)
            lease = end.dispatcher.try_lease(revision, self.id, self.arrived)
        else:  # nothing may be awaited before its lease is in the hands of `_call`
            if before.fault is not None:
                raise before.fault
            body.fill(before.body)
            lease = before.lease
        attempts = 1
        while True:
            if lease is None:
                lease = await self._wait(revision, body)
            self.note_lease(lease)
            background = self.background is not None
            if lease.instance.background is not background:
                set_policy(lease.instance, background)
            first = body.take()
            call = Call(scope["method"].encode(), target, headers, first)
            if not body.complete:
                call.more, call.length = body.more, body.length
            contract = lease.workload.contract
            if contract.cgi_variables:
                call.meta = cgi_variables(scope, name, self.id, body.length)
                if self.background is not None:
                    call.meta |= self.background.variables()
            try:
                await self._call(revision, lease, call, body)
                return
            except NotSent as error:
                if not contract.resends:
                    raise
                if attempts == MOST_LEASES:
                    raise InstanceDied(str(error)) from error
            attempts += 1
            body.put_back(first)
            lease = end.dispatcher.try_lease(revision, self.id, self.arrived)

    async def _wait(self, revision: Revision, body: RequestBody) -> Lease:
        """Wait for a slot. A client that leaves meanwhile frees its place in the queue.

        Most waits are shorter than a task is worth: the client is watched from `UNWATCHED_SECONDS` on.
        """
        queued = Queued(self._end.dispatcher, revision, self.id, self.arrived)
        watches: list[asyncio.Task[None]] = []

        def client_left(watch: asyncio.Task[None]) -> None:
            if not watch.cancelled() and (fault := watch.exception()) is not None:
                queued.refuse(fault if isinstance(fault, Exception) else ClientGone())

        def watch_client() -> None:
            watches.append(asyncio.ensure_future(body.watch()))
            watches[0].add_done_callback(client_left)

        timer = self._end.clock.call_later(UNWATCHED_SECONDS, watch_client)
        try:
            return await queued.collect()
        finally:
            timer.cancel()
            if watches:
                watches[0].cancel()
                await asyncio.wait(watches)

    async def _call(self, revision: Revision, lease: Lease, call: Call, body: RequestBody) -> None:
        """Send the call on a lease and its answer to the client. The lease is ended, whatever happens."""
        end, clock = self._end, self._end.clock
        fatal: Reason | None = None
        sent = True
        try:
            if lease.connection is None:
                before = clock.now()
                await lease.connect(call)
                self.start_seconds += clock.now() - before
            connection = lease.connection
            assert connection is not None
            state, self._handed_over = self._handed_over, None
            exchange: Awaitable[Answer]
            if state is not None and state.answer is not None:
                began, exchange = state.began, state.answer
            else:
                began, exchange = clock.now(), connection.exchange(call)
            deadline = Deadline(clock, began + self.timeout - clock.now())
            try:
                answer = await exchange
                if answer.feeding is None:
                    body.waiting = False  # it has answered: the rest of the request is not waited for
                self.exec_seconds = clock.now() - began
                await lease.workload.contract.check_answer(answer)
                lease.workload.contract.note_answer(lease, answer)
                await self._respond(revision, answer)
            except asyncio.CancelledError:
                if not deadline.caught():
                    if self.background is not None and not end.dispatcher.draining:
                        fatal = Reason.REQUESTED  # cancelled: it shall not run on unseen
                    raise
                if body.waiting:
                    raise Problem(
                        "body-timeout", "the rest of the request's body did not come in time"
                    ) from None
                if self.sending:
                    raise Problem("read-timeout", "the answer was not read in time") from None
                fatal = Reason.TIMEOUT
                self.exec_seconds = clock.now() - began
                raise Problem("timeout", f"{self.name} ran past its timeout of {self.timeout:g} s") from None
            finally:
                deadline.disarm()
        except NotSent:
            fatal, sent = Reason.DEAD, False
            raise
        except MalformedAnswer:
            fatal = Reason.BROKEN
            raise
        except InstanceDied:
            if self.head_sent:
                raise
            death = await end.deaths.of(lease)
            fatal = Reason.DEAD if death.ended else None
            raise InstanceDied(death.words) from None
        finally:
            if fatal is None and lease.connection is not None and not lease.connection.reusable:
                # Closed in mid-call: nobody may read the rest later. A shim dials again after what still runs.
                lease.instance.silent_until = clock.now() + self.timeout
            end.dispatcher.release(lease, fatal, used=sent)

    async def _respond(self, revision: Revision, answer: Answer) -> None:
        """Send the answer on: in one piece if it is whole, else as it comes, no faster than the client reads."""
        limits = revision.limits
        send, status = self.send, answer.status
        bodiless = self._scope["method"] == "HEAD" or status in (204, 304)
        told = answer.headers
        if limits.content_type is not None:
            told = [*told, (b"content-type", limits.content_type.encode())]
        headers = response_headers(told, limits.web, typed=status not in (204, 304))
        headers += self.own_headers()
        if answer.complete and not bodiless:
            body = answer.take()
            most, why = self._most_of_an_answer(revision)
            if len(body) > most:
                raise AnswerTooLarge(f"the answer is over {most} bytes ({why})")
            headers.append((b"content-length", b"%d" % len(body)))
            self.head_sent = self.sending = True
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await self._stream(revision, answer, headers, bodiless)
        self._end.outcomes.served(self, status, self._end.clock.now() - self.arrived)  # type: ignore[arg-type]

    async def _stream(
        self, revision: Revision, answer: Answer, headers: list[tuple[bytes, bytes]], bodiless: bool
    ) -> None:
        limit, why = self._most_of_an_answer(revision)
        declared = next((value for name, value in answer.headers if name == b"content-length"), None)
        if declared is not None and not (bodiless and answer.status in (204, 304)):
            if int(declared) > limit and not bodiless:
                raise AnswerTooLarge(f"the answer is {int(declared)} bytes long, over {limit} ({why})")
            headers.append((b"content-length", declared))
        self.head_sent = self.sending = True
        await self.send({"type": "http.response.start", "status": answer.status, "headers": headers})
        size = 0
        watch = asyncio.ensure_future(client_leaves(self._receive, answer.feeding))
        try:
            while not bodiless and (piece := await self._next(answer, watch)):
                size += len(piece)
                if size > limit:
                    raise AnswerTooLarge(f"the answer is over {limit} bytes ({why})")
                await self.send({"type": "http.response.body", "body": piece, "more_body": True})
        finally:
            watch.cancel()
        await self.send({"type": "http.response.body", "body": b""})

    def _most_of_an_answer(self, revision: Revision) -> tuple[int, str]:
        """Return the limit of an answer in bytes, and the name of that limit."""
        most = revision.limits.max_response
        if self.background is None or most <= LARGEST_KEPT:
            return most, "max_response"
        return LARGEST_KEPT, "no more is kept of an accepted call's"

    async def _next(self, answer: Answer, watch: asyncio.Future[None]) -> bytes:
        """Return the next piece of a streamed answer. Raises `ClientGone` if the client leaves meanwhile."""
        if piece := answer.take():
            return piece
        reading = asyncio.ensure_future(answer.read())
        self.sending = False
        try:
            await asyncio.wait((reading, watch), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                raise ClientGone
            self.sending = True
            return reading.result()
        finally:
            reading.cancel()
