"""A handler run in this process by the code of the shim that runs it in a container."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any, Protocol, cast

from hearth import _shim

Handler = Callable[[Any, Any], Any]


class Socket(Protocol):
    """One end of a connection, as the shim uses it."""

    def recv(self, size: int, /) -> bytes: ...
    def sendall(self, data: bytes, /) -> None: ...
    def close(self) -> None: ...


class BufferSocket:
    """A connection that brings one request, and keeps the answer."""

    def __init__(self, request: bytes) -> None:
        self._request = io.BytesIO(request)
        self.answer = bytearray()

    def recv(self, size: int, /) -> bytes:
        """Return the next bytes of the request; empty at its end."""
        return self._request.read(size)

    def sendall(self, data: bytes, /) -> None:
        """Keep bytes of the answer."""
        self.answer += data

    def shutdown(self, how: int, /) -> None:
        """Do nothing: there is no other end."""

    def close(self) -> None:
        """Do nothing: what came is kept."""


class HandlerConnection(_shim.Connection):
    """The shim's end of a connection."""

    def __init__(self, sock: Socket) -> None:
        super().__init__(cast(Any, sock))

    def send(self, data: bytes) -> None:
        """Send bytes. Unlike a container's first process, this one may have been forked."""
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise _shim.DisconnectedError from error


class CapturedLog(_shim.Log):
    """Output of one call: kept within the limit of a container, and shown by this process too."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = bytearray()
        self.fault: BaseException | None = None
        """The exception that the handler raised."""
        self.sock = cast(Any, self)
        self.text = io.TextIOWrapper(
            io.BufferedWriter(self), "utf-8", "backslashreplace", line_buffering=True
        )

    def sendall(self, data: bytes) -> None:
        """Keep bytes that the limit leaves."""
        self.kept += data
        OUTPUT.show(bytes(data).decode(errors="replace"))

    def flush_text(self) -> None:
        """Take what is printed and not yet here: half a line, for example."""
        self.text.flush()

    def all_read(self) -> bool:
        """Return True: output is here at once."""
        return True

    def traceback(self, error: BaseException) -> None:
        """Print an exception, and note it."""
        self.fault = error
        super().traceback(error)

    def close(self) -> None:
        """Keep what came: the text's end must not end it."""


class Output:
    """`sys.stdout` and `sys.stderr` while calls run: what a call prints goes to the call's own log.

    Others may put streams of their own in its place meanwhile, as pytest does between two tests.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._calls = 0
        self._out: Any = sys.stdout
        self._err: Any = sys.stderr
        self._log: ContextVar[CapturedLog | None] = ContextVar("log", default=None)

    def __getattr__(self, name: str) -> Any:
        log = self._log.get()
        return getattr(self._out if log is None else log.text, name)

    @contextmanager
    def to(self, log: CapturedLog) -> Iterator[None]:
        """Bring to `log` what this thread prints within the block, and the tasks that it starts."""
        with self._lock:
            self._calls += 1
            self._install()
        token = self._log.set(log)
        try:
            yield
        finally:
            self._log.reset(token)
            with self._lock:
                self._calls -= 1
                if not self._calls:
                    self._uninstall()

    def _install(self) -> None:
        if sys.stdout is not self:
            self._out, sys.stdout = sys.stdout, cast(Any, self)
        if sys.stderr is not self:
            self._err, sys.stderr = sys.stderr, cast(Any, self)

    def _uninstall(self) -> None:
        if sys.stdout is self:
            sys.stdout = self._out
        if sys.stderr is self:
            sys.stderr = self._err

    def show(self, text: str) -> None:
        """Print text where this process prints."""
        self._out.write(text)


OUTPUT = Output()
LOOP = _shim.Loop()
"""The event loop of all `async def` handlers: an instance has one for all its calls, too."""


class HandlerInstance(_shim.Instance):
    """An instance of one function, in this process."""

    def __init__(self, name: str, version: str, handler: Handler, log: CapturedLog) -> None:
        super().__init__()
        self.log = self._captured = log
        self.loop = LOOP
        self.function = _shim.Function({"function": name, "version": version, "handler": "handler:handle"})
        self.function.handler = handler

    def answer(self, sock: Socket) -> None:
        """Serve one connection to its end. Output goes to the log."""
        with OUTPUT.to(self._captured):
            try:
                self.serve(HandlerConnection(sock))
            except _shim.DisconnectedError:
                self.log.flush_text()


class HandlerAnswer:
    """An answer of a shim, read from a connection. `pieces` raises `ConnectionError` if it was cut."""

    def __init__(self, sock: Socket) -> None:
        self._connection = HandlerConnection(sock)
        with _cut():
            line, *fields = self._connection.take_until(b"\r\n\r\n").split(b"\r\n")
        self.status = int(line.split(b" ")[1])
        pairs = (field.partition(b":") for field in fields)
        self.headers = [(name.lower(), value.strip(b" \t")) for name, _, value in pairs]
        self._field = dict(self.headers)

    @property
    def length(self) -> int | None:
        """Return the length of the body in bytes, or None if it is streamed or there is none."""
        return int(self._field[b"content-length"]) if b"content-length" in self._field else None

    @property
    def exec_seconds(self) -> float | None:
        """Return how long the handler ran, or None if the answer does not say."""
        return float(self._field[b"x-hearth-exec"]) if b"x-hearth-exec" in self._field else None

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it comes."""
        with _cut():
            if self.status in (204, 304):
                return
            if b"transfer-encoding" in self._field:
                yield from _shim.read_chunks(self._connection)
            elif self.length:
                yield self._connection.take(self.length)


@contextmanager
def _cut() -> Iterator[None]:
    try:
        yield
    except _shim.DisconnectedError:
        raise ConnectionError("the handler failed in the middle of its answer") from None


def request_bytes(query: str, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    """Return a call as the gateway sends it to an instance."""
    target = f"/?{query}" if query else "/"
    fields = b"".join(b"%b: %b\r\n" % pair for pair in headers)
    return b"POST %b HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n%b" % (target.encode(), fields, len(body), body)
