"""The Python shim: the first process of a handler's container. It serves one function to the gateway.

It dials two unix sockets on which the gateway listens: `log.sock` becomes stdout and stderr, and each
connection to `calls.sock` is one slot, over which the gateway sends HTTP/1.1 requests. The contract is
`docs/runtime-protocol.md`. A container's start waits for what is imported before the first dial: hence
`_socket` in place of `socket`, and everything else where it is used.
"""
# ruff: noqa: SIM105, PTH103, PTH112, PTH120, PTH123 - contextlib and pathlib are slow to import

from __future__ import annotations

import _socket
import io
import os
import sys
import time
from _thread import allocate_lock

TYPE_CHECKING = False  # `typing` itself would cost milliseconds
if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from typing import Any

SOCKET_DIR = os.environ.get("HEARTH_SOCKET_DIR", "/run/hearth")
CODE_DIR = os.environ.get("HEARTH_CODE_DIR", "/function")
DEPENDENCIES_DIR = "/opt/deps"

LOG_LIMIT = 256 * 1024  # bytes of output an invocation, unless specialising says otherwise
LOG_PATIENCE = 1  # seconds that output waits for a gateway that does not read
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0  # seconds between attempts to dial
HEAD_LIMIT = 64 * 1024  # bytes of a request line and its headers
PROCESS = os.getpid()
SIOCOUTQ, NONE_UNREAD = (
    0x5411,
    bytes(4),
)  # asks how many bytes the other end of a socket has not read (unix(7))
READ_SIZE, LARGE_READ_SIZE = 64 * 1024, 1024 * 1024
JOIN_LIMIT = 64 * 1024  # a body up to this size is copied, to leave in one piece with its head
MESSAGE_LIMIT = 8192  # characters of an exception's message that are sent
CONNECTION_HEADERS = ("connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade")
GATEWAY_HEADERS = {*CONNECTION_HEADERS, "content-length", "transfer-encoding", "x-invocation-id"}


class DisconnectedError(Exception):
    """The connection is of no more use: the other side closed it, or it must be closed."""


class OutcomeError(Exception):
    """A request ends with an error: the gateway is told `outcome`, and type and message of `error`."""

    def __init__(self, outcome: str, status: int, error: BaseException) -> None:
        self.outcome, self.status, self.error = outcome, status, error


# Output


class Log(io.RawIOBase):
    """Where stdout and stderr go: one socket to the gateway, with a budget of bytes for each invocation.

    Writing never raises into the handler. Output is dropped when nobody listens, when the gateway has not
    read for `LOG_PATIENCE` seconds, and when the budget is spent. Calls that run at once share the budget.
    """

    def __init__(self) -> None:
        self.limit = self.left = LOG_LIMIT  # below 0: the rest of the invocation's output is dropped
        self.lock = allocate_lock()
        self.sock: _socket.socket | None = None

    def connect(self) -> None:
        """Dial unless connected. Raises `OSError`."""
        with self.lock:
            if self._connected():
                return
            sock = dial("log.sock")
            import struct  # a stalled gateway may cost a call some time, but never hold it for ever

            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, struct.pack("ll", LOG_PATIENCE, 0))
            for descriptor in (1, 2):  # inheritable: what subprocesses print goes there too
                os.dup2(sock.fileno(), descriptor)
            if self.sock is None:
                text = io.TextIOWrapper(
                    io.BufferedWriter(self), "utf-8", "backslashreplace", line_buffering=True
                )
                sys.stdout = sys.stderr = text  # one for both keeps their lines in order
            else:
                self.sock.close()
            self.sock = sock

    def _connected(self) -> bool:
        try:
            peek = _socket.MSG_PEEK | _socket.MSG_DONTWAIT
            return self.sock is not None and self.sock.recv(1, peek) != b""
        except BlockingIOError:
            return True  # open, with nothing to read: the gateway never sends on it
        except OSError:
            return False

    def restart(self) -> None:
        """Give the next invocation its budget."""
        self.left = self.limit

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1

    def write(self, data: Any) -> int:
        if self.left >= 0 and self.sock is not None:
            kept = data[: self.left]
            self.left -= len(data)
            try:
                self.sock.sendall(kept)
                if len(kept) < len(data):
                    self.sock.sendall(b"\n[output truncated]\n")
            except OSError:
                self.left = -1
        return len(data)

    def flush_text(self) -> None:
        """Send what is printed and not yet sent: half a line, for example."""
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except Exception:  # noqa: S110 - the handler has put its own in their place, and there is no other
            pass

    def all_read(self) -> bool:
        """Return whether the gateway has read all output, also that of subprocesses; False if nobody can tell."""
        import fcntl

        try:
            return self.sock is not None and fcntl.ioctl(self.sock, SIOCOUTQ, NONE_UNREAD) == NONE_UNREAD
        except OSError:  # gVisor, for example, does not count it
            return False

    def traceback(self, error: BaseException) -> None:
        """Print an exception, without the frames of this file."""
        trace, own = error.__traceback__, Log.traceback.__code__.co_filename  # `__file__` names a `.pyc`
        while trace is not None and trace.tb_frame.f_code.co_filename == own:
            trace = trace.tb_next
        try:
            import traceback  # fails if the handler has left no file descriptor, or no memory, for it

            traceback.print_exception(type(error), error, trace)
        except Exception:  # noqa: S110 - as above
            pass


# The connection


def dial(name: str) -> _socket.socket:
    """Connect to one of the gateway's sockets. Raises `OSError`."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.connect(f"{SOCKET_DIR}/{name}")
    except BaseException:
        sock.close()
        raise
    return sock


class Connection:
    """One connection to the gateway, with what has been read from it and not yet used.

    Its methods raise `DisconnectedError`.
    """

    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray()
        self.served = 0

    def close(self) -> None:
        try:
            self.sock.shutdown(_socket.SHUT_RDWR)  # a child that the handler forked may hold a copy
        except OSError:
            pass
        self.sock.close()

    def send(self, data: bytes) -> None:
        if os.getpid() != PROCESS:
            os._exit(0)  # a child that the handler forked has come back: the answer is its parent's to give
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise DisconnectedError from error

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        while (missing := size - len(self.buffer)) > 0:
            self._fill(min(max(missing, READ_SIZE), LARGE_READ_SIZE))
        with memoryview(self.buffer) as view:
            taken = bytes(view[:size])
        del self.buffer[:size]
        return taken

    def take_until(self, mark: bytes) -> bytes:
        """What comes before `mark`, which is dropped. Raises `OutcomeError` beyond `HEAD_LIMIT` bytes."""
        while (end := self.buffer.find(mark)) < 0 and len(self.buffer) <= HEAD_LIMIT:
            self._fill(READ_SIZE)
        if not 0 <= end <= HEAD_LIMIT:
            raise OutcomeError("bad-request", 431, ValueError(f"More than {HEAD_LIMIT} bytes of headers"))
        return self.take(end + len(mark))[:end]

    def _fill(self, size: int) -> None:
        try:
            data = self.sock.recv(size)
        except OSError as error:
            raise DisconnectedError from error
        if not data:
            raise DisconnectedError
        self.buffer += data


class Headers(dict):  # type: ignore[type-arg]  # dict[str, str] would be evaluated at every start
    """A request's headers: a dict with lower-case names, asked in any case; repeated ones are joined."""

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


class Request:
    """One HTTP request, read whole."""

    def __init__(self, method: str, target: str, headers: Headers, body: bytes) -> None:
        self.method, self.target, self.headers, self.body = method, target, headers, body


def read_request(connection: Connection) -> Request:
    """The next request. Raises `DisconnectedError`, and `ValueError` for what is not HTTP/1.1."""
    line, *fields = connection.take_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
    method, target, _version = line.split(" ")
    found: dict[str, str] = {}
    for field in fields:
        name, colon, value = field.partition(":")
        if not colon:
            raise ValueError("A header without a colon")
        name, value = name.lower(), value.strip(" \t")
        if name in found:
            value = found[name] + ("; " if name == "cookie" else ", ") + value
        found[name] = value
    length = found.get("content-length")
    if "transfer-encoding" in found:
        if length is not None or found["transfer-encoding"].lower() != "chunked":
            raise ValueError("A body has either one length or chunks")
        body = b"".join(read_chunks(connection))
    elif length is None:
        body = b""
    elif length.isascii() and length.isdigit():
        body = connection.take(int(length))
    else:
        raise ValueError("Content-Length is not a number")
    return Request(method, target, Headers(found), body)


def read_chunks(connection: Connection) -> Iterator[bytes]:
    while True:
        digits = connection.take_until(b"\r\n").partition(b";")[0].strip()
        if not digits.isalnum():  # int() would take signs
            raise ValueError("A chunk without a size")
        if not (size := int(digits, 16)):
            break
        yield connection.take(size)
        if connection.take(2) != b"\r\n":
            raise ValueError("A chunk longer than its size")
    while connection.take_until(b"\r\n"):
        pass  # trailers


# What the handler is given


class Context:
    """What a handler is told about its invocation, beside the event."""

    def __init__(self, function: Function, request: Request) -> None:
        self.function, self.version = function.name, function.version
        self.method, self.headers = request.method, request.headers
        self.path, _, self.query_string = request.target.partition("?")  # both as sent, percent-encoded
        self.invocation_id: str = self.headers.get("x-invocation-id", "")
        try:
            seconds = float(self.headers.pop("x-hearth-deadline", "inf"))
        except ValueError as error:
            raise OutcomeError("bad-request", 400, error) from None
        self.deadline = time.time() + seconds  # Unix time at which the gateway destroys the instance
        self._ends = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds until the deadline, never below 0."""
        return max(0.0, self._ends - time.monotonic())

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters, decoded; of those with the same name, the last one."""
        from urllib.parse import parse_qsl

        return dict(parse_qsl(self.query_string, keep_blank_values=True))


class StandIn:
    """Finds a module `hearth` where none is installed: handlers name the type `hearth.Context`."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        if name != "hearth":
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, self)  # type: ignore[arg-type]  # the class of loaders is slow to import

    def create_module(self, spec: Any) -> None:
        """Leave it to Python."""

    def exec_module(self, module: Any) -> None:
        module.Context, module.__getattr__ = Context, self.explain

    def explain(self, name: str) -> Any:
        if name.startswith("__"):  # Python itself asks for `__path__`
            raise AttributeError(name)
        raise ImportError(f"hearth.{name} is not here; add hearth-client to the function's requirements.txt")


def read_event(request: Request, parse: Callable[[str], Any]) -> Any:
    """The event that a body stands for. Raises `OutcomeError` if it is declared to be JSON and is not."""
    if not request.body:
        return None
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    declared = content_type == "application/json" or content_type.endswith("+json")
    if not declared and content_type not in ("", "application/x-www-form-urlencoded"):
        return request.body
    try:
        return parse(request.body.decode())
    except (ValueError, RecursionError) as error:
        if declared:
            raise OutcomeError("bad-json", 400, error) from None
        return request.body


def reject_constant(name: str) -> Any:
    """Python would read NaN and Infinity, which are not JSON."""
    raise ValueError(f"{name} is not JSON")


# What the handler gives back


class Head:
    """Status and headers of a response. Raises `OutcomeError` for what HTTP cannot carry."""

    def __init__(self, status: Any, headers: Any = (), head_only: bool = False) -> None:
        if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 599:
            raise bad_result(f"The status must be an int from 200 to 599, not {status!r}")
        self.status = int(status)
        self.head_only = head_only or status in (204, 304)
        self.typed = False
        self.lines = ""
        self.report = ""  # our own lines, behind all others: the gateway then finds them at once
        if headers:
            self._add(headers)

    def _add(self, headers: Any) -> None:
        import re

        try:
            pairs = [(n, str(v)) for n, v in (headers.items() if hasattr(headers, "items") else headers)]
        except Exception as error:
            raise bad_result(f"Headers must be a mapping or a list of (name, value): {error}") from None
        for name, value in pairs:
            if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name)):
                raise bad_result(f"{name!r} is not the name of a header")
            if not re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", value):
                raise bad_result(f"The value of header {name} has characters that no header can carry")
            lower = name.lower()
            if lower not in GATEWAY_HEADERS and not lower.startswith("x-hearth-"):
                self.lines += f"{name}: {value}\r\n"
                self.typed = self.typed or lower == "content-type"

    def encode(self, content_type: str, framing: str) -> bytes:
        """The head's bytes. `content_type` counts if the handler gave none."""
        typed = "" if self.typed else f"Content-Type: {content_type}\r\n"
        framing = "" if self.status in (204, 304) else f"{framing}\r\n"
        return f"HTTP/1.1 {self.status} \r\n{typed}{self.lines}{framing}{self.report}\r\n".encode("latin-1")


def split_result(result: Any) -> tuple[Any, Any, Any]:
    """A result as (body, status, headers)."""
    if not isinstance(result, tuple):
        return result, 200, ()
    if len(result) not in (2, 3):
        raise bad_result("A tuple must be (body, status) or (body, status, headers)")
    return result[0], result[1], result[2] if len(result) == 3 else ()


def bad_result(message: str) -> OutcomeError:
    return OutcomeError("bad-result", 500, TypeError(message))


def reply(connection: Connection, head: Head, content_type: str, body: bytes) -> None:
    """Send a response of known length."""
    start = head.encode(content_type, f"Content-Length: {len(body)}")
    if head.head_only or not body:
        connection.send(start)
    elif len(body) <= JOIN_LIMIT:
        connection.send(start + body)
    else:
        connection.send(start)
        connection.send(body)


class Loop:
    """The event loop of `async def` handlers, in a thread of its own that starts when first needed."""

    def __init__(self) -> None:
        self.lock = allocate_lock()
        self.loop: asyncio.AbstractEventLoop | None = None

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """Wait, in the slot's thread, for what comes of `awaitable`; raises what it raises."""
        import asyncio
        import threading

        with self.lock:
            if self.loop is None:
                self.loop = asyncio.new_event_loop()
                threading.Thread(target=self._run_forever, args=(self.loop,), daemon=True).start()
        result, error = asyncio.run_coroutine_threadsafe(self._outcome(awaitable), self.loop).result()
        if error is not None:
            raise error
        return result

    async def _outcome(self, awaitable: Awaitable[Any]) -> tuple[Any, BaseException | None]:
        try:
            return await awaitable, None
        except BaseException as error:  # SystemExit, let through, would end the loop under all other calls
            return None, error

    def _run_forever(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            try:
                loop.run_forever()
            except BaseException as error:  # from a task that a handler left behind
                print(f"The event loop goes on after {error!r}", file=sys.stderr)

    def iterate(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        """An asynchronous iterator as a plain one."""
        try:
            while True:
                try:
                    item = self.run(items.__anext__())
                except StopAsyncIteration:
                    return
                yield item
        finally:
            if hasattr(items, "aclose"):
                self.run(items.aclose())


# The function


class Function:
    """The function that an instance becomes. `load` imports its handler; until then `handler` is None."""

    def __init__(self, order: dict[str, Any]) -> None:
        from binascii import a2b_base64
        from json import JSONDecoder, JSONEncoder

        self.name, self.version = str(order["function"]), str(order["version"])
        self.entry = str(order["handler"])
        self.slots = max(1, int(order.get("concurrency", 1)))
        self.log_limit = int(order.get("log_limit", LOG_LIMIT))
        self.env = {str(name): str(value) for name, value in order.get("env", {}).items()}
        self.files = [(name, a2b_base64(content)) for name, content in order.get("files", [])]
        for name, _ in self.files:
            if "\0" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
                raise ValueError(f"{name!r} is not a relative path inside the function's folder")
        self.handler: Callable[[Any, Context], Any] | None = None
        self.failure: BaseException | None = None
        self.parse = JSONDecoder(parse_constant=reject_constant).decode
        self.dump = JSONEncoder(allow_nan=False, separators=(",", ":")).encode

    def load(self) -> None:
        """Put code and environment in place and import the handler. Raises whatever that raises."""
        import importlib

        for name, content in self.files:
            path = f"{CODE_DIR}/{name}"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
        self.files.clear()
        for name in [name for name in os.environ if name.startswith("HEARTH_")]:
            del os.environ[name]
        os.environ["HOME"] = "/tmp"  # noqa: S108 - the one folder of a container that is surely writable
        os.environ.setdefault("LANG", "C.UTF-8")
        os.environ.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
        os.environ.update(self.env)
        time.tzset()
        os.chdir(CODE_DIR)
        sys.dont_write_bytecode = True  # it would fill the tmpfs for a single import
        sys.path[:0] = [CODE_DIR, *(path for path in (DEPENDENCIES_DIR,) if os.path.isdir(path))]
        sys.meta_path.append(StandIn())  # the last to be asked
        module, _, attributes = self.entry.partition(":")
        if not (module and attributes):
            raise ValueError(f"The handler must be module:callable, not {self.entry!r}")
        handler: Any = importlib.import_module(module)
        for attribute in attributes.split("."):
            handler = getattr(handler, attribute)
        if not callable(handler):
            raise TypeError(f"{self.entry} is not callable")
        self.handler = handler

    def encode(self, value: Any) -> tuple[bytes, str]:
        """A body and its content type by default. Raises `OutcomeError`."""
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value), "application/octet-stream"
        try:
            if isinstance(value, str):
                return value.encode(), "text/plain; charset=utf-8"
            return self.dump(value).encode(), "application/json"
        except Exception as error:
            raise OutcomeError("bad-result", 500, error) from None

    def encode_stream(self, head: Head, items: Iterator[Any]) -> Iterator[bytes]:
        """The pieces of a chunked response but the last. The first has the head too, and waits for an item:
        a failure before it is a whole answer."""
        start, empty = b"", True
        for item in items:
            data, content_type = self.encode(item)
            if content_type == "application/json":
                data, content_type = data + b"\n", "application/x-ndjson"
            if empty:
                start, empty = head.encode(content_type, "Transfer-Encoding: chunked"), False
                if head.head_only:
                    break
            if piece := start + (b"%x\r\n%b\r\n" % (len(data), data) if data else b""):  # none ends the body
                yield piece
            start = b""
        if empty:
            start = head.encode("application/octet-stream", "Transfer-Encoding: chunked")
        if start:
            yield start


# The instance


class Instance:
    """This process: generic at first, then for ever the one function to which it was specialised."""

    def __init__(self) -> None:
        self.log = Log()
        self.loop = Loop()
        self.function: Function | None = None

    def run_slot(self) -> None:
        """Dial, serve until the connection ends, and begin again, for ever."""
        pause = 0.0
        while True:
            connection = None
            try:
                time.sleep(pause)
                self.log.connect()
                connection = Connection(dial("calls.sock"))
                self.serve(connection)
            except (OSError, DisconnectedError):
                pass
            except BaseException as error:  # for example what a handler's own signal handler raises
                self.log.traceback(error)
            pause = min(max(pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
            if connection is not None:
                connection.close()
                if connection.served:  # a gateway that accepts and hangs up is not dialled in a busy loop
                    pause = 0.0

    def serve(self, connection: Connection) -> None:
        """Answer a connection's requests. Raises `DisconnectedError` at its end."""
        if self.function is None:
            prepare()
        while True:
            try:
                request = read_request(connection)
            except (OutcomeError, ValueError) as error:
                wrong = error if isinstance(error, OutcomeError) else OutcomeError("bad-request", 400, error)
                self.fail(connection, wrong)
                raise DisconnectedError from error
            connection.served += 1
            try:
                function = self.function
                if function is None or "x-hearth-control" in request.headers:
                    self.control(connection, request)
                elif function.failure is not None:
                    raise OutcomeError("import-error", 500, function.failure)
                else:
                    self.invoke(connection, request, function)
            except OutcomeError as error:
                self.fail(connection, error)

    def control(self, connection: Connection, request: Request) -> None:
        """Answer a request that is the gateway's own."""
        import json

        asked = f"{request.method} {request.target}"
        if asked == "POST /specialise":
            answer = {"slots": self.specialise(request.body)}
        elif asked == "GET /hearth/status":
            answer = self.status()
        else:
            raise OutcomeError(
                "not-specialised", 409, ValueError(f"A generic instance does not know {asked}")
            )
        self.log.flush_text()
        reply(connection, Head(200), "application/json", json.dumps(answer).encode())
        if asked == "POST /specialise":
            self.open_slots(answer["slots"] - 1)

    def status(self) -> dict[str, Any]:
        if (function := self.function) is None:
            return {"specialised": False}
        return {
            "specialised": True,
            "function": function.name,
            "version": function.version,
            "slots": function.slots,
            "failed": function.failure is not None,
        }

    def specialise(self, body: bytes) -> int:
        """Become a function; returns how many slots it has."""
        import json

        if self.function is not None:
            raise OutcomeError(
                "already-specialised", 409, ValueError(f"This is {self.function.name} already")
            )
        try:
            function = Function(json.loads(body))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise OutcomeError("bad-request", 400, error) from None
        self.function = function
        self.log.limit = function.log_limit
        self.log.restart()
        try:
            function.load()
        except BaseException as error:
            function.failure = error
            raise OutcomeError("import-error", 500, error) from None
        return function.slots

    def open_slots(self, count: int) -> None:
        """Serve so many more connections at once, each in a thread of its own."""
        if not count:
            return  # most functions have one slot, and their first call would wait for the import
        import threading

        for _ in range(count):
            threading.Thread(target=self.run_slot, daemon=True).start()

    def invoke(self, connection: Connection, request: Request, function: Function) -> None:
        """Call the handler and send what it gives back. Raises `OutcomeError` as long as nothing is sent."""
        assert function.handler is not None
        self.log.restart()
        event = read_event(request, function.parse)
        context = Context(function, request)
        began = time.perf_counter()
        try:
            result = function.handler(event, context)
            if hasattr(result, "__await__"):
                result = self.loop.run(result)
        except BaseException as error:
            raise OutcomeError("raised", 500, error) from None
        body, status, headers = split_result(result)
        head = Head(status, headers, request.method == "HEAD")
        if hasattr(body, "__next__"):
            self.stream(connection, function, head, body)
        elif hasattr(body, "__anext__"):
            self.stream(connection, function, head, self.loop.iterate(body))
        else:
            data, content_type = function.encode(body)
            head.report = f"X-Hearth-Exec: {time.perf_counter() - began:.6f}\r\n"
            self.log.flush_text()
            if self.log.all_read():
                head.report = f"X-Hearth-Silent: 1\r\n{head.report}"
            reply(connection, head, content_type, data)

    def stream(self, connection: Connection, function: Function, head: Head, items: Iterator[Any]) -> None:
        """Send each item as it comes. Raises `DisconnectedError` after a failure in mid-stream: the response
        must not look complete."""
        sent = False
        try:
            try:
                for piece in function.encode_stream(head, items):
                    connection.send(piece)
                    sent = True
            finally:
                if hasattr(items, "close"):
                    items.close()
        except DisconnectedError:
            raise
        except BaseException as error:
            wrong = error if isinstance(error, OutcomeError) else OutcomeError("raised", 500, error)
            if not sent:
                raise wrong from None
            self.log.traceback(wrong.error)
            self.log.flush_text()
            raise DisconnectedError from error
        self.log.flush_text()
        if not head.head_only:
            connection.send(b"0\r\n\r\n")

    def fail(self, connection: Connection, wrong: OutcomeError) -> None:
        """Answer with an error's type and message. The traceback, if the function is to blame, is logged."""
        import json

        if wrong.status == 500:
            self.log.traceback(wrong.error)
        try:
            message = str(wrong.error)[:MESSAGE_LIMIT]
        except Exception:
            message = ""
        if wrong.outcome == "import-error":
            message += place_of(wrong.error)
        body = json.dumps({"type": type(wrong.error).__qualname__, "message": message}).encode()
        head = Head(wrong.status)
        head.lines = f"X-Hearth-Outcome: {wrong.outcome}\r\n"
        self.log.flush_text()
        reply(connection, head, "application/json", body)


def place_of(error: BaseException) -> str:
    """Where in the function's own code an exception arose, in the words of Python's syntax errors; else nothing."""
    if isinstance(error, SyntaxError):
        return ""  # its message says it already
    trace, place = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file.startswith(f"{CODE_DIR}/"):
            place = f" ({file.removeprefix(f'{CODE_DIR}/')}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return place


def prepare() -> None:
    """What need not come before the first dial, but should come before the first request."""
    import binascii  # noqa: F401
    import fcntl  # noqa: F401
    import importlib  # noqa: F401
    import json  # noqa: F401
    import signal

    # The first process of a container ignores SIGTERM unless it handles it.
    signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(0))


if __name__ == "__main__":
    Instance().run_slot()
