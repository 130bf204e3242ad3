"""Clients that stand still, many at once."""

from __future__ import annotations

import resource
import socket
from collections import Counter

from harness import Gateway

HOST = b" HTTP/1.1\r\nHost: localhost\r\n"


def allow_many_files() -> None:
    """Let this process, and the gateways that it starts, have as many files open as the system allows."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def head(target: bytes, length: int, key: str, *fields: bytes) -> bytes:
    """Return the head of a POST, with a key unless it is empty."""
    lines = [b"POST " + target + HOST, b"Content-Length: %d\r\n" % length, *fields]
    if key:
        lines.append(b"X-Hearth-Key: %b\r\n" % key.encode())
    return b"".join(lines) + b"\r\n"


class Crowd:
    """Clients that send as much as is taken of what they have, and read nothing until they are asked."""

    def __init__(self, gateway: Gateway) -> None:
        host, _, port = gateway.url.removeprefix("http://").partition(":")
        self._address = host, int(port)
        self._gateway = gateway
        self._left: dict[socket.socket, memoryview] = {}
        self.clients: list[socket.socket] = []
        self.peak = gateway.memory()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()

    def come(self, count: int, data: bytes) -> None:
        """So many more clients, each of which begins to send this."""
        for number in range(count):
            client = socket.create_connection(self._address)
            client.setblocking(False)
            self.clients.append(client)
            self._left[client] = memoryview(data)
            self._send(client)
            if number % 50 == 0:
                self.look()

    def _send(self, client: socket.socket) -> None:
        try:
            sent = client.send(self._left[client])
        except BlockingIOError:
            return
        except OSError:
            del self._left[client]
            return
        self._left[client] = self._left[client][sent:]
        if not self._left[client]:
            del self._left[client]

    def look(self) -> bool:
        """Send on, and note the most memory that the gateway has had. Whether all has been sent, or was refused."""
        for client in list(self._left):
            self._send(client)
        self.peak = max(self.peak, self._gateway.memory())
        return not self._left

    def answers(self) -> Counter[bytes]:
        """First lines of what was answered to each; empty for those that wait, `gone` for those cut off."""
        found = Counter[bytes]()
        for client in self.clients:
            try:
                said = client.recv(65536, socket.MSG_PEEK)
                found[said.partition(b"\r\n")[0] or b"gone"] += 1
            except BlockingIOError:
                found[b""] += 1
            except OSError:
                found[b"gone"] += 1
        return found
