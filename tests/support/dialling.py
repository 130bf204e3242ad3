"""The container's end of a folder with sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path


class Shim:
    """The instance's end: dials as the shim does, by a short path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sockets: list[socket.socket] = []

    async def dial(self, name: str = "calls.sock") -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        self.sockets.append(sock)
        directory = os.open(self.folder, os.O_RDONLY)  # its path may be longer than a socket's may be
        try:
            await asyncio.get_running_loop().sock_connect(sock, f"/proc/self/fd/{directory}/{name}")
        finally:
            os.close(directory)
        await asyncio.sleep(0.01)
        return sock

    async def hears_the_end(self, sock: socket.socket) -> bool:
        try:
            return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1), 1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
