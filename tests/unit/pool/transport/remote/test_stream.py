"""A stream of frames is a transport as asyncio has it, within its windows."""

from __future__ import annotations

import asyncio

import pytest

from pool.clock import VirtualClock
from pool.transport.remote.frames import FIRST_WINDOW, LARGEST_PAYLOAD, NUMBER, BadFrame, FrameType
from pool.transport.remote.stream import LOG_WINDOW, LogStream, Stream, StreamTransport
from tests.support.relay import Peer


class FakeWire:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.full = False
        self.sent: list[tuple[FrameType, bytes]] = []
        self.forgotten: list[Stream] = []
        self.waiting: list[Stream] = []

    def send(self, type: FrameType, stream: int, payload: bytes | bytearray | memoryview = b"") -> None:
        self.sent.append((type, bytes(payload)))

    def forget(self, stream: Stream) -> None:
        self.forgotten.append(stream)

    def waits(self, stream: Stream) -> None:
        self.waiting.append(stream)

    def data(self) -> bytes:
        return b"".join(payload for type, payload in self.sent if type is FrameType.DATA)

    def types(self) -> list[FrameType]:
        return [type for type, _ in self.sent]


@pytest.fixture
def wire() -> FakeWire:
    return FakeWire()


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
def stream(wire: FakeWire, peer: Peer) -> StreamTransport:
    made = StreamTransport(wire, 5, peer)
    peer.connection_made(made)
    return made


async def test_no_more_is_sent_than_init_takes(stream: StreamTransport, wire: FakeWire, peer: Peer) -> None:
    data = bytes(range(256)) * 1024
    stream.write(data)
    assert wire.data() == data[:FIRST_WINDOW]
    assert max(len(payload) for _, payload in wire.sent) == LARGEST_PAYLOAD
    assert peer.paused and stream.get_write_buffer_size() == len(data) - FIRST_WINDOW
    stream.granted(1000)
    assert wire.data() == data[: FIRST_WINDOW + 1000]
    stream.granted(len(data))
    assert wire.data() == data and not peer.paused


async def test_a_full_connection_has_the_stream_wait_for_its_turn(
    stream: StreamTransport, wire: FakeWire
) -> None:
    wire.full = True
    stream.write(b"later")
    assert wire.data() == b"" and wire.waiting == [stream]
    wire.full = False
    stream.send_on()
    assert wire.data() == b"later"


async def test_the_window_is_renewed_in_large_steps_as_the_protocol_reads(
    stream: StreamTransport, wire: FakeWire, peer: Peer
) -> None:
    stream.received(b"x" * 100)
    assert wire.sent == []
    stream.received(b"x" * LARGEST_PAYLOAD)
    assert wire.sent == [(FrameType.WINDOW, NUMBER.pack(LARGEST_PAYLOAD + 100))]
    stream.pause_reading()
    stream.received(b"y" * LARGEST_PAYLOAD)
    stream.received(b"z" * LARGEST_PAYLOAD)
    assert b"y" not in peer.data and len(wire.sent) == 1
    with pytest.raises(BadFrame, match="more than it may"):
        stream.received(b"!")
    stream.resume_reading()
    await asyncio.sleep(0)
    assert peer.data.endswith(b"y" * LARGEST_PAYLOAD + b"z" * LARGEST_PAYLOAD)
    assert wire.types() == [FrameType.WINDOW] * 3


async def test_the_end_comes_after_what_was_not_read_yet(stream: StreamTransport, peer: Peer) -> None:
    stream.pause_reading()
    stream.received(b"last words")
    stream.ended()
    stream.closed()
    await asyncio.sleep(0)
    assert not peer.ended and peer.lost is False
    stream.resume_reading()
    await asyncio.sleep(0)
    assert (bytes(peer.data), peer.ended) == (b"last words", True)
    await asyncio.sleep(0)
    assert peer.lost is None


async def test_close_sends_what_was_written_then_the_end_and_forgets_when_init_has(
    stream: StreamTransport, wire: FakeWire, peer: Peer
) -> None:
    stream.write(bytes(FIRST_WINDOW + 10))
    stream.close()
    stream.write(b"too late")
    assert FrameType.END not in wire.types() and peer.lost is False
    stream.granted(10)
    assert (len(wire.data()), wire.types()[-1]) == (FIRST_WINDOW + 10, FrameType.END)
    await asyncio.sleep(0)
    assert peer.lost is None and wire.forgotten == []
    stream.received(b"nobody reads this")
    stream.ended()
    assert wire.types()[-1] is FrameType.CLOSE and wire.forgotten == [stream]
    assert not peer.data


async def test_abort_closes_at_once_and_twice_is_harmless(
    stream: StreamTransport, wire: FakeWire, peer: Peer
) -> None:
    stream.write(bytes(FIRST_WINDOW + 10))
    stream.abort()
    stream.abort()
    stream.lost(OSError())
    await asyncio.sleep(0)
    assert wire.types().count(FrameType.CLOSE) == 1 and wire.forgotten == [stream]
    assert peer.lost is None
    stream.write(b"x")
    assert stream.is_closing() and len(wire.data()) == FIRST_WINDOW


async def test_each_direction_ends_by_itself(stream: StreamTransport, wire: FakeWire, peer: Peer) -> None:
    peer.keep_open = True
    stream.ended()
    stream.write(b"still")
    stream.write_eof()
    stream.write(b"never")
    assert wire.data() == b"still" and wire.types() == [FrameType.DATA, FrameType.END]
    assert peer.lost is False


async def test_a_lost_connection_says_why(stream: StreamTransport, wire: FakeWire, peer: Peer) -> None:
    fault = OSError("cut")
    stream.lost(fault)
    await asyncio.sleep(0)
    assert peer.lost is fault and wire.sent == []


async def test_output_is_taken_at_a_bounded_rate(wire: FakeWire) -> None:
    clock, taken = VirtualClock(), bytearray()
    log = LogStream(wire, 1, clock, taken.extend)
    assert wire.sent == [(FrameType.WINDOW, NUMBER.pack(LOG_WINDOW - FIRST_WINDOW))]

    def granted() -> int:
        return FIRST_WINDOW + sum(NUMBER.unpack(p)[0] for t, p in wire.sent if t is FrameType.WINDOW)

    sent = 0
    while sent + LARGEST_PAYLOAD <= granted() and sent < 2**22:
        log.received(bytes(LARGEST_PAYLOAD))
        sent += LARGEST_PAYLOAD
    assert sent < 2**21, "a flood waits for the next tick"
    assert len(taken) == sent
    with pytest.raises(BadFrame, match="more output than it may"):
        log.received(bytes(LARGEST_PAYLOAD))
