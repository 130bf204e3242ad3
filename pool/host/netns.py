"""Sockets inside the network namespace of a container that has no network.

A socket belongs to the namespace of the thread that created it, and never changes it. So one thread enters the
namespace with setns(2), creates the socket and returns; then the socket is used like any other. This needs
CAP_SYS_ADMIN, and the engine must run on the same host (in a container: with its pid namespace and SYS_PTRACE).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CLONE_NEWNET = 0x40000000
ESTABLISHED, CLOSE_WAIT = "01", "08"
"""States of a connection in /proc/net/tcp."""
TABLES = ("tcp", "tcp6")
"""Files of /proc/net with a line for each TCP connection."""

_libc = ctypes.CDLL(None, use_errno=True)
_thread: ThreadPoolExecutor | None = None


class Namespace:
    """Network namespace of a process, held open: it stays the same when another process gets the pid.

    Raises `OSError` if the process is gone, if we may not look into it, or if it shares our own namespace: a
    connection to its loopback would then lead to this machine's. A caller that read the pid from the engine must ask
    the engine again after opening, and check that the container still runs with that pid.
    """

    def __init__(self, pid: int) -> None:
        self._file = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if os.path.samestat(os.fstat(self._file), os.stat("/proc/self/ns/net")):  # noqa: PTH116
            self.close()
            raise OSError(f"process {pid} is in our own network namespace")

    def open_socket(self, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
        """Return a new non-blocking stream socket inside. Takes about 0.2 ms, in another thread. Raises `OSError`."""
        if self._file < 0:
            raise OSError("the namespace is closed")
        return _worker().submit(_open_inside, self._file, family).result()

    async def dial(self, host: str, port: int) -> socket.socket:
        """Return a non-blocking socket, connected to an IP address and port inside. Raises `OSError`."""
        opened = self.open_socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            await asyncio.get_running_loop().sock_connect(opened, (host, port))
        except BaseException:
            opened.close()
            raise
        return opened

    def close(self) -> None:
        """Release the namespace; its sockets stay open. Safe to call twice."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            self.close()


def permitted() -> bool:
    """Return whether we may enter network namespaces at all. `can_enter` says it for one process."""
    try:
        _worker().submit(_enter_own).result()
    except OSError:
        return False
    return True


def enterable(pid: int) -> Namespace | None:
    """Return the network namespace of process `pid`, or None if we cannot create sockets inside."""
    try:
        namespace = Namespace(pid)
        namespace.open_socket().close()
    except OSError:
        return None
    return namespace


def can_enter(pid: int) -> bool:
    """Return whether we can create sockets inside the network namespace of process `pid`."""
    namespace = enterable(pid)
    if namespace is not None:
        namespace.close()
    return namespace is not None


def open_socket(pid: int, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    """Return a new non-blocking stream socket inside the network namespace of a process. Raises `OSError`."""
    with Namespace(pid) as namespace:
        return namespace.open_socket(family)


async def dial(pid: int, host: str, port: int) -> socket.socket:
    """Return a socket that is connected inside the network namespace of a process: see `Namespace.dial`."""
    with Namespace(pid) as namespace:
        return await namespace.dial(host, port)


def tables(pid: int) -> list[str]:
    """Return the kernel's tables of the TCP connections in the network namespace of a process. Raises OSError."""
    return [Path(f"/proc/{pid}/net/{name}").read_text() for name in TABLES]


def open_in(table: str, port: int) -> int:
    """Return how many connections to a local port are open by a table of the kernel, /proc/net/tcp or tcp6.

    Connections that only the other end has closed count. Lines of another form do not.
    """
    count = 0
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[3] in (ESTABLISHED, CLOSE_WAIT):
            count += fields[1].endswith(f":{port:04X}")
    return count


def _worker() -> ThreadPoolExecutor:
    global _thread
    if _thread is None:
        _thread = ThreadPoolExecutor(1, thread_name_prefix="netns")
    return _thread


def _open_inside(namespace: int, family: socket.AddressFamily) -> socket.socket:
    """Create a socket inside a namespace and return to our own. Runs in the one thread that changes namespaces."""
    global _thread
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(namespace)
        try:
            return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        finally:
            try:
                _enter(home)
            except OSError:
                _thread = None  # this thread is stuck inside, so the next socket gets a new thread
                raise
    finally:
        os.close(home)


def _enter_own() -> None:
    file = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(file)  # changes nothing, but needs the same right
    finally:
        os.close(file)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot enter a network namespace: {os.strerror(number)}")
