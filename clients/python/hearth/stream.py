"""Answers that come piece by piece, and the messages in them."""

from __future__ import annotations

import codecs
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import Any

import httpx

from hearth.response import Response
from hearth.transport import AsyncTransport, Transport
from hearth.values import parse
from hearth.wire import ApiRequest


@dataclass(frozen=True)
class ServerEvent:
    """One server-sent event."""

    data: str
    event: str = "message"
    id: str = ""
    retry: int | None = None
    """Milliseconds after which to connect again, if the event says so."""

    def json(self) -> Any:
        """Return the data parsed from JSON. Raises `ValueError` if it is not JSON."""
        return parse(self.data)


class LineReader:
    """Cuts pieces of a body into lines, which may end in CR, LF or both."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""
        self._after_return = False

    def feed(self, piece: bytes) -> list[str]:
        """Return the lines that are complete with this piece."""
        if not (text := self._decode(piece)):
            return []
        ends_with_return = text.endswith("\r")
        if self._after_return:
            text = text.removeprefix("\n")
        self._after_return = ends_with_return
        *lines, self._rest = (self._rest + text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        return lines

    def end(self) -> list[str]:
        """Return the last line, if it has no end."""
        return [self._rest] if self._rest else []


class EventReader:
    """Makes server-sent events of lines, as the HTML standard says."""

    _retry: int | None

    def __init__(self) -> None:
        self._id = ""
        self._forget()

    def _forget(self) -> None:
        self._data: list[str] = []
        self._event, self._retry = "", None

    def feed(self, line: str) -> ServerEvent | None:
        """Return the event that a line completes, or None if it completes none."""
        if not line:
            data, event, retry = self._data, self._event, self._retry
            self._forget()
            return ServerEvent("\n".join(data), event or "message", self._id, retry) if data else None
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
            case "event":
                self._event = value
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdigit():
                self._retry = int(value)
        return None


class StreamHead:
    """Status and header fields of an answer that comes piece by piece."""

    def __init__(self) -> None:
        self._head: Response | None = None

    @property
    def head(self) -> Response:
        """Return the answer without its body. Raises `RuntimeError` before the stream is open."""
        if self._head is None:
            raise RuntimeError("the stream is not open yet: iterate over it, or enter it with `with`")
        return self._head

    @property
    def invocation_id(self) -> str | None:
        """Return the id of the call."""
        return self.head.invocation_id


def head_of(answer: httpx.Response) -> Response:
    """Return an answer without its body."""
    return Response(answer.status_code, answer.headers, b"")


class Stream(StreamHead):
    """An answer that comes piece by piece. It opens when it is entered or iterated over, and closes at its end.

    Errors are raised as `Client.call` raises them. `ConnectionLost` means that the answer was cut.
    """

    def __init__(self, transport: Transport, request: ApiRequest) -> None:
        super().__init__()
        self._transport = transport
        self._request = request
        self._stack = ExitStack()
        self._pieces: Iterator[bytes] = iter(())

    def __enter__(self) -> Stream:
        if self._head is None:
            answer = self._stack.enter_context(self._transport.open(self._request))
            self._head = head_of(answer)
            self._pieces = self._transport.pieces(answer)
            if not self._head.ok:
                with self._stack:
                    Response(answer.status_code, answer.headers, b"".join(self._pieces)).result()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the rest of the answer. The function is told at its next piece."""
        self._stack.close()

    def __iter__(self) -> Iterator[bytes]:
        with self:
            yield from self._pieces

    def lines(self) -> Generator[str, None, None]:
        """Yield the lines of the answer."""
        reader = LineReader()
        for piece in self:
            yield from reader.feed(piece)
        yield from reader.end()

    def values(self) -> Generator[Any, None, None]:
        """Yield the values of an answer that has a line of JSON for each."""
        for line in self.lines():
            if line.strip():
                yield parse(line)

    def events(self) -> Generator[ServerEvent, None, None]:
        """Yield the server-sent events of the answer."""
        reader = EventReader()
        for line in self.lines():
            if (event := reader.feed(line)) is not None:
                yield event


class AsyncStream(StreamHead):
    """A `Stream` for asyncio."""

    def __init__(self, transport: AsyncTransport, request: ApiRequest) -> None:
        super().__init__()
        self._transport = transport
        self._request = request
        self._stack = AsyncExitStack()
        self._pieces: AsyncIterator[bytes] | None = None

    async def __aenter__(self) -> AsyncStream:
        if self._pieces is None:
            answer = await self._stack.enter_async_context(self._transport.open(self._request))
            self._head = head_of(answer)
            self._pieces = self._transport.pieces(answer)
            if not self._head.ok:
                async with self._stack:
                    body = b"".join([piece async for piece in self._pieces])
                    Response(answer.status_code, answer.headers, body).result()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave the rest of the answer. The function is told at its next piece."""
        await self._stack.aclose()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async with self:
            assert self._pieces is not None
            async for piece in self._pieces:
                yield piece

    async def lines(self) -> AsyncGenerator[str, None]:
        """Yield the lines of the answer."""
        reader = LineReader()
        async for piece in self:
            for line in reader.feed(piece):
                yield line
        for line in reader.end():
            yield line

    async def values(self) -> AsyncGenerator[Any, None]:
        """Yield the values of an answer that has a line of JSON for each."""
        async for line in self.lines():
            if line.strip():
                yield parse(line)

    async def events(self) -> AsyncGenerator[ServerEvent, None]:
        """Yield the server-sent events of the answer."""
        reader = EventReader()
        async for line in self.lines():
            if (event := reader.feed(line)) is not None:
                yield event
