"""Bytes as peers send them, right, nearly right and not at all, and transports that hand them over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

TOKENS = [
    b"a",
    b"x-one",
    b"Host",
    b"Content-Length",
    b"Transfer-Encoding",
    b"Connection",
    b"Upgrade",
    b"Expect",
]
VALUES = [
    b"",
    b"0",
    b"2",
    b"02",
    b"+2",
    b"5, 5",
    b"99999999999999999999",
    b"chunked",
    b"Chunked",
    b"gzip, chunked",
    b"identity",
    b"close",
    b"keep-alive",
    b"upgrade, x-one",
    b"h2c",
    b"100-continue",
    b"localhost",
    b"a\tb",
    b"\xe9",
]
ODD = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"0",
    b"\x0b",
    b"\xff",
    b"ab",
    b"HTTP/1.1 ",
]
CHUNKS = [
    b"2\r\nab\r\n",
    b"02\r\nab\r\n",
    b"2;x=y\r\nab\r\n",
    b"3\r\nab\r\n",
    b"0\r\n\r\n",
    b"0\r\nx-trailer: 1\r\n\r\n",
    b"0\r\nContent-Length: 3\r\n\r\n",
    b"g\r\n",
    b"ffffffffffffffffffff\r\n",
]


def fields() -> st.SearchStrategy[bytes]:
    """Some header fields and the empty line."""
    field = st.builds(
        b"%b%b%b\r\n".__mod__,
        st.tuples(st.sampled_from(TOKENS), st.sampled_from([b": ", b":", b" : "]), st.sampled_from(VALUES)),
    )
    return st.lists(field, max_size=5).map(lambda found: b"".join(found) + b"\r\n")


def bodies() -> st.SearchStrategy[bytes]:
    """Chunks or plain bytes."""
    chunks = st.lists(st.sampled_from(CHUNKS), max_size=4).map(b"".join)
    return st.one_of(st.just(b""), st.just(b"ab"), st.just(b"ab0\r\n\r\n"), chunks, st.binary(max_size=20))


@st.composite
def spoiled(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    """Some of these messages, one after the other, with up to three faults."""
    data = bytearray(b"".join(draw(st.lists(messages, min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.sampled_from([0, 0, 1, 3]))] = draw(st.sampled_from(ODD))
    return bytes(data)


LOOK_HARDER = settings(max_examples=3 * settings().max_examples)
"""For fuzzers, whose examples are cheap."""
CUTS = st.lists(st.integers(0, 300), max_size=8)
"""Where bytes are cut into pieces."""


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The same bytes in other pieces."""
    places = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]
    return [data[begin:end] for begin, end in pairwise(places) if begin < end]


class Wire(asyncio.Transport):
    """A transport whose other end is the test. Once closed it tells its protocol, as the loop would."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = bytearray()
        self.closed = False
        self._loop = asyncio.get_running_loop()
        protocol.connection_made(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: Any) -> None:
        self.written += data

    def write_eof(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._loop.call_soon(self.protocol.connection_lost, None)

    abort = close

    async def receive(self, data: bytes) -> None:
        """Hand bytes to the protocol, as long as it listens, and let everybody react."""
        if not self.closed:
            self.protocol.data_received(data)
        await turns()


async def turns(count: int = 8) -> None:
    """Let everything happen that can happen now."""
    for _ in range(count):
        await asyncio.sleep(0)
