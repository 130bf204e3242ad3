"""The way over a folder with sockets: the gateway listens in it, and the container dials.

The folder is the instance's own and is mounted read-only in the container. One socket takes connections for calls,
a second one what the container prints. The engine must run on this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pool.clock import Clock, Timer
from pool.engine.base import ContainerSpec, Mount
from pool.engine.labels import SOCKETS_FOLDER
from pool.transport.way import WayEnds

LOG_SOCKET, CALLS_SOCKET = "log.sock", "calls.sock"
READ_SIZE = 64 * 1024
LOG_BYTES_PER_TICK = 512 * 1024
LOG_TICK_SECONDS = 0.1
"""Bounds how much output of an instance is read in each tick: only an instance that prints faster waits."""
DRAIN_BYTES = 512 * 1024
"""Bounds the output that is read at the end of a call: twice what the kernel lets wait in a socket by default."""


def listen(folder: Path, name: str) -> socket.socket:
    """Return a listening unix socket `name` in `folder`, open to every user of the container.

    It is bound through the folder's file descriptor: a path may have 107 bytes at most, and data folders can lie
    deeper.
    """
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            path = f"/proc/self/fd/{directory}/{name}"
            sock.bind(path)
            Path(path).chmod(0o666)
            sock.listen(16)
        except BaseException:
            sock.close()
            raise
        return sock
    finally:
        os.close(directory)


def hand_over(folder: Path, owner: int) -> bool:
    """Give an instance's folder and its sockets to the uid of its container alone.

    Return False where this process may not do that. The container can dial all the same, and so can other users.
    """
    modes = {folder / CALLS_SOCKET: 0o600, folder / LOG_SOCKET: 0o600, folder: 0o500}
    try:
        for path, mode in modes.items():
            os.chown(path, owner, -1)
            path.chmod(mode)
    except OSError:
        return False
    return True


class LogTap:
    """Reads what an instance prints, as plain sockets so that `drain` can read what has arrived at once."""

    def __init__(self, listener: socket.socket, clock: Clock, sink: Callable[[bytes], None]) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._sink = sink
        self._connection: socket.socket | None = None
        self._tick = 0.0
        self._read_this_tick = 0
        self._resume: Timer | None = None
        self._loop.add_reader(listener.fileno(), self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            self._drop_connection()  # the shim has one; it dials again after the gateway has gone away
            self._connection = connection
            self._loop.add_reader(connection.fileno(), self._readable)

    def _readable(self) -> None:
        self._read_once()
        if self._read_this_tick >= LOG_BYTES_PER_TICK and self._connection is not None:
            self._loop.remove_reader(self._connection.fileno())
            self._resume = self._clock.call_later(LOG_TICK_SECONDS, self._next_tick)

    def _next_tick(self) -> None:
        self._resume = None
        self._tick, self._read_this_tick = self._clock.now(), 0
        if self._connection is not None:
            self._loop.add_reader(self._connection.fileno(), self._readable)

    def _read_once(self) -> int:
        if self._connection is None:
            return 0
        try:
            data = self._connection.recv(READ_SIZE)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if not data:
            self._drop_connection()
            return 0
        now = self._clock.now()
        if now - self._tick >= LOG_TICK_SECONDS:
            self._tick, self._read_this_tick = now, 0
        self._read_this_tick += len(data)
        self._sink(data)
        return len(data)

    def drain(self) -> None:
        """Read all output that has arrived. Output of a call arrives before the end of its answer.

        The rate is not bounded here: output that stayed would be taken for that of the next call.
        """
        left = DRAIN_BYTES
        while left > 0 and (read := self._read_once()) == READ_SIZE:
            left -= read

    def _drop_connection(self) -> None:
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        if self._connection is not None:
            self._loop.remove_reader(self._connection.fileno())
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Stop listening and reading."""
        self.drain()
        self._drop_connection()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()


class SocketFolder:
    """A `Way` over sockets in a folder. `owner` is the uid that may dial, or None for every user."""

    mending = False

    def __init__(self, folder: Path, clock: Clock, owner: int | None = None) -> None:
        self.folder = folder
        self._clock = clock
        self._owner = owner
        self._server: asyncio.Server | None = None
        self._log: LogTap | None = None

    async def open(self, ends: WayEnds) -> None:
        """Make the folder and listen in it. Raises OSError."""
        self.folder.mkdir(parents=True, mode=0o755)
        with contextlib.suppress(PermissionError):  # other users of this machine cannot list the folders
            self.folder.parent.chmod(0o711)
        self.folder.chmod(0o755)
        await self._listen(ends)

    async def reopen(self, ends: WayEnds, container: str) -> None:
        """Listen again in the folder of a running container, in place of a process that is gone. Raises OSError.

        Only the folder that is mounted helps: nobody dials in another one.
        """
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder} is gone")
        for name in (LOG_SOCKET, CALLS_SOCKET):
            (self.folder / name).unlink(missing_ok=True)
        await self._listen(ends)

    async def _listen(self, ends: WayEnds) -> None:
        self._log = LogTap(listen(self.folder, LOG_SOCKET), self._clock, ends.log)
        self._server = await asyncio.get_running_loop().create_unix_server(
            ends.calls, sock=listen(self.folder, CALLS_SOCKET), start_serving=False
        )
        await (
            self._server.start_serving()
        )  # in a step of its own, so that one that is cancelled can be closed
        if self._owner is not None:
            hand_over(self.folder, self._owner)

    def container(self, spec: ContainerSpec) -> ContainerSpec:
        """Return a container that has the folder mounted."""
        return replace(spec, mounts=(*spec.mounts, Mount(str(self.folder.resolve()), SOCKETS_FOLDER)))

    async def started(self, container: str) -> None:
        """Do nothing: the container dials by itself."""

    def drain_log(self) -> None:
        """Read what the container has printed until now."""
        if self._log is not None:
            self._log.drain()

    async def close(self) -> None:
        """Stop listening, and read the last of the output. The next gateway can listen again in the folder."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._log is not None:
            self._log.close()
            self._log = None
