"""Facts about a connection that only the kernel knows: the process at the other end, and unread bytes."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios

PEER = struct.Struct("3i")
"""Result of SO_PEERCRED: process, user and group."""
COUNT = struct.Struct("i")
"""Result of FIONREAD: bytes that wait to be read."""


def peer_pid(transport: asyncio.BaseTransport) -> int:
    """Return the id of the process at the other end of a unix socket, or 0 if we cannot see it."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return 0
    pid, _, _ = PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
    return max(0, int(pid))


def unread(transport: asyncio.BaseTransport) -> bytes:
    """Return the bytes that arrived on a connection before it was lost; its transport reads no more.

    Only bytes that the kernel holds now are read, since the other end might never stop.
    """
    sock = transport.get_extra_info("socket")
    if sock is None:
        return b""
    try:
        (count,) = COUNT.unpack(fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(COUNT.size)))
        return os.read(sock.fileno(), count)
    except OSError:
        return b""
