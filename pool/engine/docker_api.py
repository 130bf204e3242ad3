"""Requests to the Docker Engine API over aiohttp: JSON, streams of bytes, and hijacked connections."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar
from urllib.parse import urlencode

import aiohttp

from pool.clock import Clock
from pool.engine.access.address import EngineAddress, refusal
from pool.engine.access.tls import client_tls
from pool.engine.hijack import FRAME, HijackedConnection

ANSWER_TIMEOUT = 60.0
"""Seconds for a request that does not wait for a container or a build."""
CONNECT_TIMEOUT = 8.0
"""Seconds for opening a connection."""
UNLIMITED = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)
"""For a request that lasts as long as a build, or as long as somebody listens."""

Params = Mapping[str, str]
A = TypeVar("A")
T = TypeVar("T")


class EngineRefused(Exception):
    """The engine answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        """Its HTTP status."""
        self.message = message


class DockerApi:
    """An engine's API. Make it inside a running event loop, and `close` it. Raises `BadAddress`.

    Every request may raise `EngineRefused`, `aiohttp.ClientError`, `OSError` and `TimeoutError`. The number of
    connections is not limited: whoever is attached, waits or watches holds one as long as a container runs."""

    def __init__(self, address: EngineAddress, clock: Clock) -> None:
        self._clock = clock
        self.address = address
        self._tls = client_tls(address)
        connector: aiohttp.BaseConnector
        if address.path is not None:
            connector = aiohttp.UnixConnector(address.path, limit=0)
        else:
            connector = aiohttp.TCPConnector(limit=0, ssl=self._tls or True)
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT, sock_connect=CONNECT_TIMEOUT)
        self._session = aiohttp.ClientSession(address.origin, connector=connector, timeout=timeout)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        body: object = None,
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> Any:
        """Send a request, with `body` as JSON; return the answer's JSON, None if it has no body.

        Raises ValueError too: the answer is not JSON, so whatever answered is no Docker Engine."""
        async with self.stream(method, path, params, body=body, timeout=timeout) as response:
            answer = await response.read()
        return json.loads(answer) if answer else None

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        *,
        body: object = None,
        data: bytes | None = None,
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request, with `body` as JSON or `data` as a tar, and give the response while its body comes.

        An answer that was not read to its end has its connection closed."""
        content: dict[str, Any] = {"json": body} if body is not None else {}
        if data is not None:
            content = {"data": io.BytesIO(data), "headers": {"Content-Type": "application/x-tar"}}
        if timeout is not None:
            content["timeout"] = timeout
        async with self._session.request(method, path, params=params, **content) as response:
            if response.status >= 400:
                raise EngineRefused(response.status, refusal(await response.read()))
            try:
                yield response
            finally:
                if not response.content.at_eof():
                    response.close()

    async def hijack(self, path: str, params: Params) -> HijackedConnection:
        """POST to `path` on a connection of its own, which carries bytes both ways from there on.

        Raises ValueError too, as `call` does."""
        loop, where = asyncio.get_running_loop(), self.address
        async with self._clock.timeout(CONNECT_TIMEOUT):
            if where.path is not None:
                _, connection = await loop.create_unix_connection(HijackedConnection, where.path)
            else:
                _, connection = await loop.create_connection(
                    HijackedConnection, where.host, where.port, ssl=self._tls
                )
        try:
            async with self._clock.timeout(ANSWER_TIMEOUT):
                status, body = await connection.upgrade(f"{path}?{urlencode(params)}")
        except BaseException:
            await connection.close()
            raise
        if status >= 400:
            await connection.close()
            raise EngineRefused(status, refusal(body))
        return connection


class Readable(Protocol):
    """A stream of bytes, of asyncio or of aiohttp."""

    async def readexactly(self, n: int) -> bytes: ...


async def next_piece(output: Readable) -> tuple[int, bytes] | None:
    """Return the next piece of a container's output with its stream (1 stdout, 2 stderr); None at the end.

    Half a piece at the end is lost with its container."""
    try:
        number, length = FRAME.unpack(await output.readexactly(FRAME.size))
        return number, await output.readexactly(length)
    except asyncio.IncompleteReadError:
        return None


async def gather_bounded(ask: Callable[[A], Awaitable[T]], items: Sequence[A], at_once: int) -> list[T]:
    """Return `ask` of each item, in their order; at most `at_once` are under way at a time.

    Raises what the first of them raises that fails; the others are cancelled."""
    free = asyncio.Semaphore(at_once)

    async def one(item: A) -> T:
        async with free:
            return await ask(item)

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
