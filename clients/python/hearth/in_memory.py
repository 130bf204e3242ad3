"""A gateway in this process: handlers answer `Client` and `AsyncClient` without a container and without a socket.

It calls functions, streams their answers, and runs an accepted call once, without retries. It has no other route.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Thread
from typing import Any
from urllib.parse import unquote

import httpx

from hearth import _gateway_part as gateway
from hearth._gateway_part import Answer, Refusal
from hearth._instance import CapturedLog, Handler, HandlerAnswer, HandlerInstance, request_bytes
from hearth.async_client import AsyncClient
from hearth.client import Client
from hearth.response import Response

URL = "http://in-memory.invalid"
CUT = "the instance closed the connection before its answer was whole"
ENDED = frozenset({"succeeded", "failed", "timed_out", "cancelled"})


@dataclass
class AcceptedCall:
    """A call that was sent with `Prefer: respond-async`."""

    id: str
    function: str
    status: str = "queued"
    response: Response | None = None
    accepted: datetime = field(default_factory=lambda: datetime.now(UTC))

    def record(self) -> dict[str, Any]:
        """Return the call as the API shows it."""
        problem = self.response.problem if self.response else None
        return {
            "id": self.id,
            "function": self.function,
            "status": self.status,
            "attempts": 0 if self.status == "queued" else 1,
            "accepted": self.accepted.isoformat(),
            "error": problem.slug if problem else None,
            "detail": problem.detail if problem else "",
            "blame": problem.blame if problem else "none",
            "result": f"/invocations/{self.id}/result" if self.status in ENDED else None,
        }

    def end(self, response: Response) -> None:
        """Take the answer, unless the call was cancelled."""
        if self.status not in ENDED:
            self.response = response
            late = response.problem is not None and response.problem.slug == "timeout"
            self.status = "timed_out" if late else "succeeded" if response.status < 400 else "failed"


class InMemoryGateway:
    """Functions by name, each a handler of this process.

    `timeout` bounds the silence of each, in seconds. A handler that runs past it is left to itself.
    """

    def __init__(self, functions: Mapping[str, Handler], timeout: float = 30.0) -> None:
        self._functions = dict(functions)
        self._timeout = timeout
        self._calls: dict[str, AcceptedCall] = {}
        self._keys: dict[str, AcceptedCall] = {}
        self._logs: dict[str, CapturedLog] = {}
        self._routes: list[tuple[str, str, Callable[..., Answer]]] = [
            (r"\w+", r"/invoke/([^/]+)(/.*)?", self._invoke),
            ("GET", r"/functions", self._list_functions),
            ("GET", r"/invocations/([^/]+)", self._show),
            ("DELETE", r"/invocations/([^/]+)", self._cancel),
            ("GET", r"/invocations/([^/]+)/result", self._result),
            ("GET", r"/invocations/([^/]+)/logs", self._log),
            ("GET", r"/healthz|/readyz", lambda request: as_json({"status": "ok"})),
        ]

    def client(self) -> Client:
        """Return a client of this gateway."""
        return Client(URL, transport=InMemoryTransport(self))

    def async_client(self) -> AsyncClient:
        """Return a client for asyncio of this gateway."""
        return AsyncClient(URL, transport=InMemoryTransport(self))

    def answer(self, request: httpx.Request) -> Answer:
        """Answer a request whose body was read."""
        path = request.url.raw_path.partition(b"?")[0].decode()
        try:
            for methods, pattern, route in self._routes:
                if re.fullmatch(methods, request.method) and (found := re.fullmatch(pattern, path)):
                    return route(request, *(unquote(part or "") for part in found.groups()))
            raise Refusal(
                "not-found", f"the gateway in memory has no {request.method} {path}; use a real one"
            )
        except Refusal as refusal:
            return gateway.refuse(refusal)

    def _invoke(self, request: httpx.Request, function: str, path: str) -> Answer:
        invocation = secrets.token_hex(16)
        try:
            if function not in self._functions:
                detail = f"there is no function {function!r}; GET /functions lists them"
                raise Refusal("no-such-function", detail)
            gateway.check_method(function, request.method, path)
        except Refusal as refusal:
            return gateway.refuse(refusal, invocation)
        if "respond-async" not in request.headers.get("prefer", ""):
            return self._run(request, function, invocation)
        key = request.headers.get("idempotency-key", invocation)
        call = self._keys.setdefault(key, AcceptedCall(invocation, function))
        if call.id == invocation:
            self._calls[call.id] = call
            Thread(target=self._run_accepted, args=(request, call), daemon=True).start()
        return as_json(call.record(), 202, [(b"location", f"/invocations/{call.id}".encode())])

    def _run_accepted(self, request: httpx.Request, call: AcceptedCall) -> None:
        call.status = "running" if call.status == "queued" else call.status
        status, headers, pieces = self._run(request, call.function, call.id)
        try:
            call.end(Response(status, httpx.Headers(headers), b"".join(pieces)))
        except ConnectionError:
            cut = gateway.refuse(Refusal("instance-died", CUT), call.id)
            call.end(Response(cut.status, httpx.Headers(cut.headers), b"".join(cut.pieces)))

    def _run(self, request: httpx.Request, function: str, invocation: str) -> Answer:
        """Have a handler answer in a thread of its own, over a connection as in a container."""
        ours, theirs = socket.socketpair()
        log = self._logs[invocation] = CapturedLog()
        instance = HandlerInstance(function, "in-memory", self._functions[function], log)

        def serve() -> None:
            with closing(theirs):
                instance.answer(theirs)

        Thread(target=serve, daemon=True).start()
        given = [(name.lower(), value) for name, value in request.headers.raw]
        told = gateway.told_headers(given, invocation, self._timeout)
        began = time.perf_counter()
        ours.settimeout(self._timeout)
        ours.sendall(request_bytes(request.url.query.decode(), told, request.content))
        ours.shutdown(socket.SHUT_WR)
        try:
            answer = HandlerAnswer(ours)
        except ConnectionError:
            ours.close()
            late = gateway.ran_out(function, self._timeout)
            return gateway.refuse(late, invocation, time.perf_counter() - began)
        status, headers, pieces = gateway.pass_on(answer, invocation, time.perf_counter() - began)
        return Answer(status, headers, ConnectedPieces(pieces, ours))

    def _list_functions(self, request: httpx.Request) -> Answer:
        listed = [{"name": name, "kind": "handler", "state": "ready"} for name in sorted(self._functions)]
        return as_json(listed)

    def _find(self, invocation: str) -> AcceptedCall:
        if invocation not in self._calls:
            raise Refusal("not-found", f"no invocation {invocation!r} was accepted")
        return self._calls[invocation]

    def _show(self, request: httpx.Request, invocation: str) -> Answer:
        return as_json(self._find(invocation).record())

    def _cancel(self, request: httpx.Request, invocation: str) -> Answer:
        call = self._find(invocation)
        if call.status in ENDED:
            raise Refusal("conflict", f"the invocation is {call.status} already")
        call.status = "cancelled"
        return as_json(call.record())

    def _result(self, request: httpx.Request, invocation: str) -> Answer:
        call = self._find(invocation)
        if call.status not in ENDED:
            raise Refusal("conflict", f"the invocation is {call.status}; it has no result yet")
        if call.response is None:
            raise Refusal("not-found", f"the invocation is {call.status} and has no result: it was not run")
        return Answer(call.response.status, call.response.headers.raw, iter((call.response.body,)))

    def _log(self, request: httpx.Request, invocation: str) -> Answer:
        if invocation not in self._logs:
            raise Refusal("not-found", f"no invocation {invocation!r} is remembered")
        return Answer(
            200,
            [(b"content-type", b"text/plain; charset=utf-8")],
            iter((bytes(self._logs[invocation].kept),)),
        )


class ConnectedPieces:
    """Pieces that come over a connection, which ends with them, or when no more of them is wanted."""

    def __init__(self, pieces: Iterator[bytes], sock: socket.socket) -> None:
        self._pieces = pieces
        self._sock = sock

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection. The handler is told at its next piece."""
        self._sock.close()


def as_json(value: Any, status: int = 200, headers: gateway.Pairs | None = None) -> Answer:
    """Return an answer of the API."""
    fields = [(b"content-type", b"application/json"), *(headers or ())]
    return Answer(status, fields, iter((json.dumps(value).encode(),)))


class PieceStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of an answer, for both kinds of clients."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._pieces
        except ConnectionError as error:
            raise httpx.RemoteProtocolError(str(error)) from error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = iter(self)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece

    def close(self) -> None:
        """Want no more."""
        if hasattr(self._pieces, "close"):
            self._pieces.close()

    async def aclose(self) -> None:
        """Want no more."""
        self.close()


class InMemoryTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Brings the requests of httpx to a gateway in memory."""

    def __init__(self, of: InMemoryGateway) -> None:
        self._gateway = of

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        request.read()
        return self._response(self._gateway.answer(request))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        await request.aread()
        return self._response(await asyncio.to_thread(self._gateway.answer, request))

    def _response(self, answer: Answer) -> httpx.Response:
        return httpx.Response(answer.status, headers=answer.headers, stream=PieceStream(answer.pieces))
