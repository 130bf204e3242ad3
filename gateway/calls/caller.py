"""Runs an accepted call as a direct one is run: on the fast path as far as that goes, else through the invoke
endpoint, as if a client that reads everything at once had sent it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import lru_cache, partial
from typing import Any

from gateway.access.access import ADMISSION
from gateway.calls.kept_body import KeptBody
from gateway.http.answer_headers import without_added_type
from gateway.http.forwarding import HeaderList, passed_headers, target_of
from gateway.http.problems import Problem
from gateway.invoke.background import BACKGROUND, Background, background_headers, behalf_of, phases_of
from gateway.invoke.body import Message
from gateway.invoke.endpoint import PREFIX, InvokeEndpoint
from gateway.invoke.fast_call import FastCall, FastPath, RequestHead
from gateway.invoke.invocation import Invocation
from gateway.invoke.outcome import interruption
from pool.clock import LazyTimer
from pool.transport.message import header_lines
from scheduler.calls.model import Claim, Result
from scheduler.calls.running.running import Ended, Run, TaskRun
from scheduler.calls.store import CallStore, StoreFull
from scheduler.dispatch.function import Revision
from scheduler.work import NewCall, Request

LARGEST_PLAIN = 64 * 1024
"""Bytes of a request's body that is sent on in one piece with its head."""
OWN = (b"x-invocation-id", b"x-hearth-start", b"server-timing", b"content-length")
"""Header fields of an answer that are not kept: what is shown of the call has them."""
App = Callable[..., Awaitable[None]]


class Caller:
    """Runs the calls of a `Worker`, each as a direct call would be."""

    def __init__(self, endpoint: InvokeEndpoint, fast: FastPath, store: CallStore) -> None:
        self.fast = fast
        self._store = store
        self._coming: set[int] = set()
        """Payloads of answers that are coming now."""
        self._endpoint = endpoint
        self._free: list[_Seat] = []

    def __call__(self, claim: Claim, ended: Ended) -> Run:
        """Begin a run."""
        revision = self.fast.dispatcher.revision_for(claim.call.function)
        if revision is not None and is_plain(claim.call, revision):
            try:
                head = head_of(claim, revision)
            except Problem:  # the long way finds the same, and answers with it
                return self.long_way(self._endpoint, claim, ended)
            seat = self._free.pop() if self._free else _Seat(self)
            seat.take(claim, revision, head, ended)
            return seat
        return self.long_way(self._endpoint, claim, ended)

    def free(self, seat: _Seat) -> None:
        """Keep a seat for the next run."""
        self._free.append(seat)

    def long_way(self, app: App, claim: Claim, ended: Ended) -> Run:
        """Return a run, or the rest of one, as a task."""
        return TaskRun(self._invoke(app, claim), ended)

    async def _begin_payload(self, claim: Claim, expected: int) -> int:
        now = self.fast.clock.wall()
        return await self._store.begin_payload(claim.lease_owner, claim.call.id, expected, now)

    async def _invoke(self, app: App, claim: Claim) -> Result:
        call = claim.call
        background = Background(call.id, claim.attempt, call.overrides.timeout, call.overrides.context)
        answer = KeptBody(self._store, partial(self._begin_payload, claim), self.fast.clock, self._coming)
        pieces = None if call.payload is None else self._store.pieces(call.payload.id)
        exchange = _Exchange(call.body, pieces, answer)
        try:
            await app(scope_of(call, background), exchange.receive, exchange.send)
            if background.problem is None:
                data, payload = await answer.end()
        except StoreFull as full:  # for the last of its answer
            background.problem = _not_kept(full)
        except BaseException:
            answer.discard()
            raise
        log = self.fast.logs.read(call.id) or b""
        phases, problem = background.phases, background.problem
        if problem is not None:
            answer.discard()
            body = problem.body(call.id)
            headers = problem.response_headers(body)
            return Result(
                problem.status, headers, body, problem.slug, problem.detail, problem.blame, log, phases
            )
        headers = without_added_type([pair for pair in exchange.headers if pair[0] not in OWN])
        return Result(exchange.status, headers, data, log=log, phases=phases, payload=payload)


def _not_kept(full: StoreFull) -> Problem:
    return Problem("not-kept", f"the answer was not kept: {full}")


def scope_of(call: NewCall, background: Background) -> dict[str, Any]:
    """Return an accepted call as an ASGI request."""
    request = call.request
    path = PREFIX + call.function.encode() + (b"/" + request.sub_path if request.sub_path else b"")
    return {
        "type": "http",
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": path.decode("latin-1"),
        "raw_path": path,
        "query_string": request.query,
        "headers": list(request.headers),
        "client": (request.client, 0) if request.client else None,
        "server": None,
        BACKGROUND: background,
        ADMISSION: behalf_of(call.owner, background.attempt),
    }


def is_plain(call: NewCall, revision: Revision) -> bool:
    """Return whether a call may take the fast path."""
    contract, request, size = revision.workload.contract, call.request, len(call.body)
    return (
        size <= LARGEST_PLAIN
        and call.payload is None
        and not revision.function.private
        and size <= revision.limits.max_body
        and call.overrides.timeout is None
        and revision.fast_path
        and request.method != "HEAD"
        and contract.allows(request.method, request.sub_path)
    )


class _NoFlow:
    """The flow of a reader that takes everything at once."""

    write_paused = False


class _Seat:
    """A run on the fast path, and who it is made for. The next run takes it again, with its timer: none is set and
    cancelled for each run."""

    flow: Any = _NoFlow()
    background = True

    def __init__(self, caller: Caller) -> None:
        self.fast = caller.fast
        self.timer = LazyTimer(caller.fast.clock, self._too_late)
        self._callers = caller.fast.outcomes.recent.callers
        self._callers.add(self)
        self._caller = caller
        self._claim: Claim
        self._ended: Ended
        self._call: FastCall
        self._rest: Run | None = None

    @property
    def running(self) -> Invocation | None:
        """Return the call that it makes now on the fast path, or None if it makes none there."""
        return None if self._call.over else self._call

    def take(self, claim: Claim, revision: Revision, head: RequestHead, ended: Ended) -> None:
        """Begin a run."""
        call = claim.call
        self._claim, self._ended = claim, ended
        self._call = FastCall(self, head, revision, call.body, self.fast.clock.now(), call.id)
        self._call.admission = behalf_of(call.owner, claim.attempt)
        self._call.take_slot()

    def answer(self, call: FastCall, status: int, lines: bytes, body: bytes) -> None:
        """Called by the call: it has its answer."""
        self.timer.stop()
        log = self.fast.logs.read(call.id) or b""
        ended = self._ended
        self._caller.free(self)
        ended(Result(status, fields(lines), body, log=log, phases=phases_of(call)))

    def take_long_way(self, call: FastCall, head: RequestHead, app: App) -> None:
        """Called by the call: it needs more than the fast path has. This seat is not taken again."""
        self.timer.close()
        self._callers.discard(self)
        self._rest = self._caller.long_way(app, self._claim, self._ended)

    def interrupt(self) -> None:
        """End the run. If it was sent, the long way ends it."""
        self._call.take_long_way()
        if self._rest is not None:
            self._rest.interrupt()
            return
        self.timer.close()
        self._callers.discard(self)
        self._call.leave(interruption(self.fast.dispatcher.draining))
        self._ended(None)

    def _too_late(self) -> None:
        self._call.take_long_way()  # which ends it


def head_of(claim: Claim, revision: Revision) -> RequestHead:
    """Return the head of the request that a function is sent. Raises `Problem`."""
    call = claim.call
    lines: bytes | None = call.request.prepared
    if lines is None:
        lines = call.request.prepared = _passed(call.request)
    # Of a head nothing but this is asked for: what goes on after a hand-over makes a request of its own.
    return RequestHead({}, revision.name, lines + _told(claim.attempt, call.overrides.context), 0, [], False)


def _passed(request: Request) -> bytes:
    """Return the lines that a function is sent, but for those that differ from run to run. Raises `Problem`."""
    scope = {"headers": request.headers, "client": (request.client, 0) if request.client else None}
    return b"%b %b HTTP/1.1\r\n%b" % (
        request.method.encode(),
        target_of(request.sub_path, request.query),
        header_lines(passed_headers(scope)),
    )


@lru_cache(maxsize=64)
def _told(attempt: int, context: tuple[tuple[str, str], ...]) -> bytes:
    """Return the lines that tell a function of a run."""
    return header_lines(background_headers(attempt, context))


@lru_cache(maxsize=512)
def _fields(lines: bytes) -> tuple[tuple[bytes, bytes], ...]:
    pairs = (line.partition(b": ") for line in lines.split(b"\r\n")[:-1])
    return tuple(without_added_type([(name, value) for name, _, value in pairs]))


def fields(lines: bytes) -> HeaderList:
    """Return the header fields of lines. They are remembered: most functions answer with the same each time."""
    return list(_fields(lines))


class _Exchange:
    """Both ends of a client that has sent everything and stays."""

    def __init__(self, body: bytes, pieces: AsyncIterator[bytes] | None, answer: KeptBody) -> None:
        """Make one of a call. `pieces` are its body if that is not in memory."""
        self._body: bytes | None = body
        self._pieces = pieces
        self._answer = answer
        self.status = 0
        self.headers: HeaderList = []

    async def receive(self) -> Message:
        """Return the next message of the request, as ASGI."""
        if self._pieces is not None:
            piece = await anext(self._pieces, None)
            if piece is not None:
                return {"type": "http.request", "body": piece, "more_body": True}
            self._pieces = None
        if self._body is None:
            await asyncio.get_running_loop().create_future()  # it never leaves
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        """Take the next message of the answer, as ASGI."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
            self._answer.expect(self.headers)
        elif piece := message.get("body"):
            try:
                await self._answer.add(bytes(piece))
            except StoreFull as full:
                raise _not_kept(full) from full
