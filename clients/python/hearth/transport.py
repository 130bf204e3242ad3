"""Carries conversations over httpx: one class for threads, one for asyncio. They decide nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, TypeVar

import httpx

from hearth._version import __version__
from hearth.address import Address
from hearth.errors import ConnectionLost, GatewayAbsent, HearthError, NoAnswer
from hearth.response import Response
from hearth.wire import ApiRequest, Conversation, Outcome, Pause, Step, advance

T = TypeVar("T")

CONNECT_TIMEOUT_SECONDS = 5.0
KEPT_CONNECTIONS = 64
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""Failures before there is a connection."""


class HeadWatch:
    """Knows whether the head of one request has gone out. Without its whole head no gateway begins a call.

    A pooled connection that the gateway has closed meanwhile fails in between: then nothing was sent either.
    """

    def __init__(self) -> None:
        self._began = self._sent = False

    def note(self, event: str) -> None:
        """Take an event of httpcore."""
        self._began = self._began or event.endswith("send_request_headers.started")
        self._sent = self._sent or event.endswith("send_request_headers.complete")

    def error_of(self, error: httpx.TransportError, address: Address) -> HearthError:
        """Return the error that tells a program of a failed request."""
        if isinstance(error, NEVER_SENT) or (self._began and not self._sent):
            return GatewayAbsent(f"no gateway answers at {address.url}; start one with `hearth serve`")
        if isinstance(error, httpx.TimeoutException):
            return NoAnswer(f"{address.url} did not answer in time; the function may be running")
        return lost(error, address)


def lost(error: httpx.TransportError, address: Address) -> ConnectionLost:
    """Return the error that tells a program of an answer that was cut."""
    return ConnectionLost(
        f"the connection to {address.url} ended before the whole answer was here ({error}); "
        "the function may have done its work"
    )


def options(address: Address) -> dict[str, Any]:
    """Return the options of an httpx client."""
    return {
        "base_url": address.url,
        "headers": {"accept-encoding": "identity", "user-agent": f"hearth-client/{__version__}"},
        "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=())),  # one function's are not another's
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=KEPT_CONNECTIONS),
        "trust_env": not address.is_loopback,
        "verify": not address.is_plain_loopback,
    }


def arguments(request: ApiRequest, address: Address) -> dict[str, Any]:
    """Return how httpx builds a request."""
    return {
        "method": request.method,
        "url": request.path,
        "content": request.body or None,
        "headers": address.fields(dict(request.headers)),
        "timeout": httpx.Timeout(request.timeout, connect=CONNECT_TIMEOUT_SECONDS, pool=None),
    }


class Transport:
    """Connections to one gateway, for threads."""

    def __init__(self, address: Address, transport: httpx.BaseTransport | None = None) -> None:
        self.address = address
        self._http = httpx.Client(transport=transport, **options(address))

    def run(self, conversation: Conversation[T]) -> T:
        """Have a conversation, and return what it returns."""
        step = advance(conversation, None)
        while not isinstance(step, Outcome):
            step = advance(conversation, self._take(step))
        return step.value

    def _take(self, step: Step) -> Response | HearthError | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            return self._send(step)
        except HearthError as error:
            return error

    def _send(self, request: ApiRequest) -> Response:
        with self.open(request) as answer:
            return Response(answer.status_code, answer.headers, b"".join(self.pieces(answer)))

    @contextmanager
    def open(self, request: ApiRequest) -> Iterator[httpx.Response]:
        """Send a request, and give its answer as soon as its head is here."""
        watch = HeadWatch()
        built = self._http.build_request(**arguments(request, self.address))
        built.extensions["trace"] = lambda event, info: watch.note(event)
        try:
            answer = self._http.send(built, stream=True)
        except httpx.TransportError as error:
            raise watch.error_of(error, self.address) from error
        try:
            yield answer
        finally:
            answer.close()

    def pieces(self, answer: httpx.Response) -> Iterator[bytes]:
        """Yield the body of an answer as it comes. Raises `ConnectionLost` if it is cut, and `NoAnswer`."""
        try:
            yield from answer.iter_bytes()
        except httpx.TimeoutException as error:
            raise NoAnswer(f"{self.address.url} fell silent in the middle of its answer") from error
        except httpx.TransportError as error:
            raise lost(error, self.address) from error

    def close(self) -> None:
        """Close all connections."""
        self._http.close()


class AsyncTransport:
    """Connections to one gateway, for asyncio."""

    def __init__(self, address: Address, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.address = address
        self._http = httpx.AsyncClient(transport=transport, **options(address))

    async def run(self, conversation: Conversation[T]) -> T:
        """Have a conversation, and return what it returns."""
        step = advance(conversation, None)
        while not isinstance(step, Outcome):
            step = advance(conversation, await self._take(step))
        return step.value

    async def _take(self, step: Step) -> Response | HearthError | None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            return await self._send(step)
        except HearthError as error:
            return error

    async def _send(self, request: ApiRequest) -> Response:
        async with self.open(request) as answer:
            body = b"".join([piece async for piece in self.pieces(answer)])
            return Response(answer.status_code, answer.headers, body)

    @asynccontextmanager
    async def open(self, request: ApiRequest) -> AsyncIterator[httpx.Response]:
        """Send a request, and give its answer as soon as its head is here."""
        watch = HeadWatch()

        async def trace(event: str, info: object) -> None:
            watch.note(event)

        built = self._http.build_request(**arguments(request, self.address))
        built.extensions["trace"] = trace
        try:
            answer = await self._http.send(built, stream=True)
        except httpx.TransportError as error:
            raise watch.error_of(error, self.address) from error
        try:
            yield answer
        finally:
            await answer.aclose()

    async def pieces(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        """Yield the body of an answer as it comes. Raises `ConnectionLost` if it is cut, and `NoAnswer`."""
        try:
            async for piece in answer.aiter_bytes():
                yield piece
        except httpx.TimeoutException as error:
            raise NoAnswer(f"{self.address.url} fell silent in the middle of its answer") from error
        except httpx.TransportError as error:
            raise lost(error, self.address) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()
