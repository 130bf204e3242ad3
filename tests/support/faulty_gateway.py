"""A gateway in a thread, on a real socket, that closes each connection at the point that the test says."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Self

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nx-invocation-id: i-1\r\n\r\n42"
ACCEPTED = (
    b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: 34\r\n\r\n"
    b'{"id": "i-1", "status": "queued"} '
)

Act = Callable[["Conversation"], None]
"""Deals with one connection, from its accept to its end."""


class Conversation:
    """One connection of a client."""

    def __init__(self, sock: socket.socket, heads: list[bytes]) -> None:
        sock.settimeout(10)
        self._sock = sock
        self._file = sock.makefile("rb")
        self._heads = heads

    def read_head(self) -> int:
        """Read a request's head, and return the length of its body. `ConnectionError` if none comes."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self._file.readline()
            if not line:
                raise ConnectionError("the client left")
            head += line
        self._heads.append(head)
        lengths = [line[16:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: ")]
        return int(lengths[0]) if lengths else 0

    def read_request(self) -> None:
        """Read one request whole."""
        self._file.read(self.read_head())

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def reset(self) -> None:
        """Close so that the other side gets a reset, not an end."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        self._file.close()
        self._sock.close()


class FaultyGateway:
    """Deals with the connections in their order, each as one of `acts` says; the last one with all further ones."""

    def __init__(self, *acts: Act) -> None:
        self._acts = acts
        self.heads: list[bytes] = []
        """Heads of requests that have arrived whole."""
        self.connections = 0
        self.closed = threading.Event()
        """Set once a connection is closed: on loopback the other end knows it then."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads: list[threading.Thread] = [threading.Thread(target=self._accept)]

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            act = self._acts[min(self.connections, len(self._acts) - 1)]
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(Conversation(sock, self.heads), act))
            self._threads.append(thread)
            thread.start()

    def _serve(self, conversation: Conversation, act: Act) -> None:
        try:
            act(conversation)
        except OSError:
            pass
        finally:
            conversation.close()
            self.closed.set()

    def keys(self) -> Sequence[bytes]:
        """Return the idempotency keys of the requests."""
        fields = [line for head in self.heads for line in head.split(b"\r\n")]
        return [line[17:] for line in fields if line.lower().startswith(b"idempotency-key: ")]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


def answering(answer: bytes) -> Act:
    """Answer every request of a connection."""

    def act(conversation: Conversation) -> None:
        while True:
            conversation.read_request()
            conversation.send(answer)

    return act


def close_at_once(conversation: Conversation) -> None:
    """Close before anything is read: with a reset, if something has come meanwhile."""


def close_after_the_head(conversation: Conversation) -> None:
    conversation.read_head()


def close_after_the_request(conversation: Conversation) -> None:
    conversation.read_request()


def reset_after_the_request(conversation: Conversation) -> None:
    conversation.read_request()
    conversation.reset()


def close_in_the_answer_s_head(conversation: Conversation) -> None:
    conversation.read_request()
    conversation.send(OK[:20])


def close_in_the_answer_s_body(conversation: Conversation) -> None:
    conversation.read_request()
    conversation.send(OK[:-1])


def answer_once_and_close(conversation: Conversation) -> None:
    """Answer one request, and close the connection though nothing said so: the client keeps it in its pool."""
    conversation.read_request()
    conversation.send(OK)
