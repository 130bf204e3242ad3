"""The answer to clients that speak HTTP/2: it is told in their own protocol, as gRPC clients show nothing else.

Both a client of gRPC and one of plain HTTP/2 understand it: status 505, and gRPC's status UNIMPLEMENTED.
"""

from __future__ import annotations

import asyncio
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""Bytes that a client of HTTP/2 sends first (RFC 9113, 3.4)."""
WHAT_IS_SERVED = b"the gateway speaks HTTP/1.1, not HTTP/2 or gRPC; POST to /invoke/NAME over HTTP/1.1"
HEADERS, SETTINGS, GOAWAY = 1, 4, 7
"""Types of frames."""
END_STREAM, END_HEADERS = 1, 4
FRAME_HEAD_BYTES = 9
MOST_FRAME_BYTES = 16 * 1024
"""Bound of a frame's payload, as long as no side has said otherwise."""
MOST_FRAMES_BYTES = 4 * MOST_FRAME_BYTES
"""Bound of what a client may send before its first request: settings and windows are small."""
UNIMPLEMENTED = b"12"
"""gRPC's status of a method that a server does not have. Clients do not try such a call again."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return one frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def field(name: bytes, value: bytes) -> bytes:
    """Return a header field as HPACK has it: literal, without Huffman. Both parts are shorter than 127 bytes."""
    return b"\0%c%b%c%b" % (len(name), name, len(value), value)


def refusal(stream: int) -> bytes:
    """Return the whole answer to the request on a stream, and the end of the connection."""
    fields = (
        field(b":status", b"505"),
        field(b"content-type", b"application/grpc"),
        field(b"grpc-status", UNIMPLEMENTED),
        field(b"grpc-message", WHAT_IS_SERVED),
    )
    answer = frame(HEADERS, END_STREAM | END_HEADERS, stream, b"".join(fields))
    return answer + frame(GOAWAY, 0, 0, struct.pack(">II", stream, 0))


def behind_preface(data: bytes) -> bytes | None:
    """Return what follows the preface in data that ends it, or None if the data has no such end.

    The beginning of the preface may have come before.
    """
    ends = (PREFACE[at:] for at in range(len(PREFACE)))
    end = next((end for end in ends if data.startswith(end)), None)
    return None if end is None else data[len(end) :]


class Http2Refusal(asyncio.Protocol):
    """The rest of a connection whose client speaks HTTP/2. Its first request is refused, with what is served.

    `owner` is the protocol of the connection so far; it is told when the connection is lost.
    """

    def __init__(self, transport: asyncio.Transport, owner: asyncio.Protocol) -> None:
        self._transport = transport
        self._owner = owner
        self._unread = b""
        self._read_bytes = 0
        self._answered = False
        transport.set_protocol(self)
        transport.write(frame(SETTINGS, 0, 0, b""))

    def data_received(self, data: bytes) -> None:
        """Read frames up to the first request, and answer that."""
        if self._answered:
            return
        self._unread += data
        self._read_bytes += len(data)
        while len(self._unread) >= FRAME_HEAD_BYTES:
            length = int.from_bytes(self._unread[:3], "big")
            kind, stream = self._unread[3], int.from_bytes(self._unread[5:FRAME_HEAD_BYTES], "big")
            if kind == HEADERS:
                self._answered = True
                self._transport.write(refusal(stream))
                self._transport.write_eof()
                return
            if len(self._unread) < FRAME_HEAD_BYTES + length:
                break
            self._unread = self._unread[FRAME_HEAD_BYTES + length :]
        if self._read_bytes > MOST_FRAMES_BYTES:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner."""
        self._owner.connection_lost(exc)
