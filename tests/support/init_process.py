"""The real init program with a gateway that a test plays: it listens on the sockets that init dials."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import quote_from_bytes

PATIENCE_SECONDS = 20.0
SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")
"""Characters that a field of init carries as they are."""


class Answer(NamedTuple):
    """An answer of init: trailers are among the fields."""

    status: int
    fields: dict[str, str]
    body: bytes


def encoded(text: str | bytes) -> str:
    """Return a value as `x-hearth-env` and its kind carry it."""
    return quote_from_bytes(os.fsencode(text), safe=SAFE)


def run_request(
    *argv: str | bytes, env: Mapping[str, str] | None = None, cwd: str | None = None, body: bytes | None = b""
) -> bytes:
    """Return a `POST /run`; without a body if it is None, for one that the test sends in chunks."""
    lines = ["POST /run HTTP/1.1"]
    lines += [f"x-hearth-arg: {encoded(argument)}" for argument in argv]
    lines += [f"x-hearth-env: {encoded(f'{name}={value}')}" for name, value in (env or {}).items()]
    lines += [f"x-hearth-cwd: {encoded(cwd)}"] if cwd is not None else []
    lines += ["transfer-encoding: chunked" if body is None else f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


class Slot:
    """A connection that init has dialled, as the gateway has it."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE_SECONDS)
        self.socket = connection
        self._read = bytearray()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def close(self) -> None:
        self.socket.close()

    def ended(self) -> bool:
        """Wait for more; return whether the connection has ended instead."""
        try:
            return not self.socket.recv(1)
        except ConnectionResetError:
            return True

    def ask(self, request: bytes) -> Answer:
        """Send a request and return its answer."""
        self.send(request)
        return self.answer()

    def run(self, *argv: str | bytes, **keys: object) -> Answer:
        return self.ask(run_request(*argv, **keys))  # type: ignore[arg-type]

    def answer_rest(self) -> bytes:
        """Read the rest of a chunked body, and its trailers."""
        body = b"".join(iter(self.chunk, b""))
        self._fields()
        return body

    def answer(self) -> Answer:
        """Read an answer whole."""
        status, fields = self.head()
        if fields.get("transfer-encoding") == "chunked":
            body = b"".join(iter(self.chunk, b""))
            fields |= self._fields()
        else:
            body = self.exactly(int(fields.get("content-length", 0)))
        return Answer(status, fields, body)

    def head(self) -> tuple[int, dict[str, str]]:
        """Read the head of an answer."""
        version, status, _ = self._line().split(b" ", 2)
        assert version == b"HTTP/1.1"
        return int(status), self._fields()

    def chunk(self) -> bytes:
        """Read a chunk of a body; the last one is empty, and its trailers follow."""
        size = int(self._line(), 16)
        if size == 0:
            return b""
        data = self.exactly(size + 2)
        assert data.endswith(b"\r\n")
        return data[:-2]

    def exactly(self, size: int) -> bytes:
        """Read so many bytes."""
        while len(self._read) < size:
            self._more()
        data = bytes(self._read[:size])
        del self._read[:size]
        return data

    def _fields(self) -> dict[str, str]:
        fields = {}
        while line := self._line():
            name, _, value = line.decode().partition(":")
            fields[name.lower()] = value.strip()
        return fields

    def _line(self) -> bytes:
        while b"\r\n" not in self._read:
            self._more()
        line = bytes(self._read[: self._read.index(b"\r\n")])
        del self._read[: len(line) + 2]
        return line

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError("init closed the connection", bytes(self._read))
        self._read += data


class GatewaySide:
    """The gateway's ends of init's sockets, in a folder of their own."""

    def __init__(self, listening: bool = True) -> None:
        # Paths of sockets are short, and pytest's folders are not.
        self.folder = Path(tempfile.mkdtemp(prefix="init-"))
        self.folder.chmod(0o777)  # init may run as any user
        self._servers: dict[str, socket.socket] = {}
        self._slots: list[Slot] = []
        self._log: socket.socket | None = None
        if listening:
            self.listen("log")
            self.listen("calls")

    def close(self) -> None:
        """Close all, and remove the folder."""
        for open_end in (*self._servers.values(), *self._slots, *filter(None, [self._log])):
            open_end.close()
        shutil.rmtree(self.folder)

    def listen(self, name: str) -> None:
        """Listen on a socket that init dials."""
        path = self.folder / f"{name}.sock"
        path.unlink(missing_ok=True)
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        path.chmod(0o777)
        server.listen(64)
        server.settimeout(PATIENCE_SECONDS)
        self._servers[name] = server

    def stop_listening(self, name: str) -> None:
        """Refuse what init dials from now on."""
        self._servers.pop(name).close()

    def slot(self, name: str = "calls") -> Slot:
        """Return the next connection that init dials."""
        self._slots.append(Slot(self._servers[name].accept()[0]))
        return self._slots[-1]

    @property
    def log(self) -> socket.socket:
        """The connection of the log."""
        if self._log is None:
            self._log = self._servers["log"].accept()[0]
            self._log.settimeout(PATIENCE_SECONDS)
        return self._log

    def close_log(self) -> None:
        """Close the log's connection; the next one that init dials takes its place."""
        self.log.close()
        self._log = None

    def line(self) -> bytes:
        """Read a line of the log, without its end."""
        line = b""
        while not line.endswith(b"\n"):
            byte = self.log.recv(1)
            assert byte, f"init closed the log after {line!r}"
            line += byte
        return line[:-1]

    def printed_so_far(self) -> bytes:
        """Return what lies in the log's socket, without waiting."""
        self.log.setblocking(False)
        data = b""
        try:
            while more := self.log.recv(65536):
                data += more
        except BlockingIOError:
            pass
        finally:
            self.log.settimeout(PATIENCE_SECONDS)
        return data

    def printed_to_the_end(self) -> bytes:
        """Read the log until init has closed it."""
        return b"".join(iter(lambda: self.log.recv(65536), b""))


class InitProcess(GatewaySide):
    """A running init, with a gateway that the test plays. `wrapper` is a command that runs it, such as `ALONE`."""

    ALONE = ("unshare", "--user", "--map-current-user", "--pid", "--fork", "--kill-child")
    """Makes init the first process of a PID namespace, which is the only place where it kills everything."""

    def __init__(
        self,
        program: Sequence[str],
        flags: Sequence[str],
        argv: Sequence[str] = (),
        wrapper: Sequence[str] = (),
        listening: bool = True,
    ) -> None:
        super().__init__(listening)
        self.process = subprocess.Popen(
            [*wrapper, *program, *flags, "--", *argv],
            env={"PATH": os.environ["PATH"], "HEARTH_SOCKET_DIR": str(self.folder)},
            stdin=subprocess.DEVNULL,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)
        self.close()

    @staticmethod
    def children(pid: int) -> list[int]:
        """Return the children of a process."""
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    @staticmethod
    def is_zombie(pid: int) -> bool:
        """Return whether a process has ended and was not reaped."""
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return False

    def status(self) -> int:
        """Wait for the end of init, and return its exit status."""
        return self.process.wait(PATIENCE_SECONDS)


def until(condition: Callable[[], object], message: str = "it did not come true") -> None:
    """Wait until a function returns something true."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, message
        time.sleep(0.005)
