"""Runs in a container: sends and takes long bodies, each connection in a thread of its own.

`GET …/N` is answered with N bytes of the pattern, `POST …` with how many bytes came, or with 400 if they were not the
pattern's. Started as `bench/responder.py` is.
"""

from __future__ import annotations

import socket
import sys
import threading
from hashlib import sha256
from pathlib import Path

BLOCK = 64 * 1024


def pattern() -> bytes:
    """Twice the block of which long bodies are made: a piece from any place of a body is a slice of it."""
    block = b"".join(sha256(number.to_bytes(4, "big")).digest() for number in range(BLOCK // 32))
    return block * 2


def is_pattern(piece: bytes, at: int, twice: bytes) -> bool:
    """Whether `piece`, at most a block, is what a body has from its byte `at` on."""
    begin = at % BLOCK
    return piece == twice[begin : begin + len(piece)]


def serve(connection: socket.socket) -> None:
    """Answer a connection's requests until it ends."""
    twice = pattern()
    with connection, connection.makefile("rb") as stream:
        while line := stream.readline():
            method, target, _ = line.split()
            length = 0
            while (field := stream.readline().strip()) != b"":
                name, _, value = field.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if method == b"POST":
                at, right = 0, True
                while at < length:
                    piece = stream.read1(min(BLOCK, length - at))
                    if not piece:
                        return
                    right = right and is_pattern(piece, at, twice)
                    at += len(piece)
                answer(connection, b"200 OK" if right else b"400 Bad Request", b"%d" % at)
            else:
                send(connection, int(target.rpartition(b"/")[2]), twice)


def answer(connection: socket.socket, status: bytes, body: bytes) -> None:
    """Send a short answer."""
    connection.sendall(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))


def send(connection: socket.socket, size: int, twice: bytes) -> None:
    """Send `size` bytes of the pattern."""
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n" % size
    )
    for at in range(0, size, BLOCK):
        connection.sendall(twice[: min(BLOCK, size - at)])


def main(address: str) -> None:
    """Serve for ever."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from bench.responder import listen

    listener = listen(address)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1])
