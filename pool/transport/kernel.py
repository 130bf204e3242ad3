"""What the kernel knows of a connection and its transport does not: who is at the other end, what is unread."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios

PEER = struct.Struct("3i")
"""What SO_PEERCRED gives: process, user and group."""
COUNT = struct.Struct("i")
"""What FIONREAD gives."""


def peer_pid(transport: asyncio.BaseTransport) -> int:
    """The process at the other end of a unix socket, in our own numbers; 0 if it is not to be seen from here."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return 0
    pid, _, _ = PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
    return max(0, int(pid))


def unread(transport: asyncio.BaseTransport) -> bytes:
    """What had arrived on a connection before it was lost; its transport is not closed yet, but reads no more.

    No more than the kernel holds at this moment: the other end may be able to send for ever.
    """
    sock = transport.get_extra_info("socket")
    if sock is None:
        return b""
    try:
        (count,) = COUNT.unpack(fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(COUNT.size)))
        return os.read(sock.fileno(), count)
    except OSError:
        return b""
