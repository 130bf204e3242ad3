"""Frames between the real init and the gateway's end: streams, windows, epochs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pool.errors import ConnectionLost
from pool.transport.remote.frames import HEAD, FrameReader, FrameType, frame, opening, seal_of
from pool.transport.remote.stream import StreamTransport
from tests.support.init_builds import BUILDS, native
from tests.support.relay import RelayProcess, over, until

MIB = 2**20


@pytest_asyncio.fixture(params=BUILDS)
async def relay(request: pytest.FixtureRequest) -> AsyncIterator[RelayProcess]:
    async with RelayProcess(BUILDS[request.param]()) as process:
        await process.attach()
        yield process


async def test_bytes_go_both_ways_and_the_end_of_each_is_told(relay: RelayProcess) -> None:
    reader, writer, peer = await relay.pair()
    peer.keep_open = True
    writer.write(b"asked")
    assert await until(peer, 5) == b"asked"
    writer.write_eof()
    peer.transport.write(b"answered")
    assert await reader.readexactly(8) == b"answered"
    peer.transport.write(b" and more")
    peer.transport.write_eof()
    assert await reader.read() == b" and more"
    assert peer.ended


async def test_a_megabyte_each_way_is_whole(relay: RelayProcess) -> None:
    reader, writer, peer = await relay.pair()
    there, back = random.Random(1).randbytes(3 * MIB), random.Random(2).randbytes(3 * MIB)
    peer.transport.write(back)
    assert peer.paused, "more waits than a window"
    writing = relay.send(writer, there)
    assert await reader.readexactly(len(back)) == back
    assert await until(peer, len(there)) == there
    await writing


async def test_a_slow_reader_of_one_stream_stalls_no_other(relay: RelayProcess) -> None:
    slow_reader, slow_writer, slow = await relay.pair()
    slow.transport.pause_reading()
    slow.transport.write(bytes(MIB))  # nobody reads it in the container either
    stuck = relay.send(slow_writer, bytes(2 * MIB))
    reader, writer, peer = await relay.pair()
    for number in range(200):
        text = b"%4d" % number * 1000
        writer.write(text)
        assert (await until(peer, len(text)))[-len(text) :] == text
        peer.data.clear()
        peer.transport.write(text)
        assert await reader.readexactly(len(text)) == text
    assert not stuck.done() and not slow.data
    slow.transport.resume_reading()
    await until(slow, 2 * MIB)
    assert len(await slow_reader.readexactly(MIB)) == MIB
    await stuck


async def test_what_was_printed_comes_before_the_answer(relay: RelayProcess) -> None:
    _, log = await relay.dial("log")
    _, writer, peer = await relay.pair()
    for number in range(300):
        log.write(b"line %d\n" % number * 50)
        writer.write(b"answer\n")
        await until(peer, 7)
        assert relay.printed.count(b"line %d\n" % number) == 50
        peer.data.clear()


async def test_who_prints_without_end_does_not_hold_calls_up(relay: RelayProcess) -> None:
    _, log = await relay.dial("log")
    flood = relay.send(log, bytes(64 * MIB))
    reader, writer, peer = await relay.pair()
    for _ in range(50):
        peer.transport.write(b"ask")
        await reader.readexactly(3)
        writer.write(b"tell")
        await until(peer, 4)
        peer.data.clear()
    assert not flood.done(), "the rate of output is bounded"


async def test_an_aborted_stream_ends_the_other_side_though_it_reads_nothing(relay: RelayProcess) -> None:
    reader, _writer, peer = await relay.pair()
    peer.transport.write(bytes(MIB))
    peer.transport.abort()
    assert len(await asyncio.wait_for(reader.read(), 20)) < MIB
    await over(peer)
    assert peer.lost is None


async def test_a_closed_stream_has_all_that_was_written_delivered(relay: RelayProcess) -> None:
    reader, writer, peer = await relay.pair()
    peer.transport.write(bytes(MIB))
    peer.transport.close()
    assert len(await reader.read()) == MIB
    await over(peer)
    writer.write(b"nobody hears this")
    writer.close()
    assert await relay.attach()


async def test_a_new_epoch_ends_every_stream_and_begins_with_none(relay: RelayProcess) -> None:
    reader, _, peer = await relay.pair()
    first = peer.transport
    assert isinstance(first, StreamTransport)
    await relay.attach()
    assert await reader.read() == b""
    await over(peer)
    _, writer, again = await relay.pair()
    assert isinstance(again.transport, StreamTransport)
    assert again.transport.id > first.id, "frames of the earlier epoch name no stream of this one"
    writer.write(b"x")
    assert await until(again, 1) == b"x"


async def test_a_lost_connection_tells_the_streams(relay: RelayProcess) -> None:
    _, _, peer = await relay.pair()
    assert relay.wire is not None
    relay.wire.connection_lost(OSError("cut"))
    await over(peer)
    assert isinstance(peer.lost, ConnectionLost)
    assert relay.why == ["cut"]


async def test_no_half_frame_is_ever_filled_up_by_the_key(relay: RelayProcess) -> None:
    """Cut a frame of the gateway at every place; what was not sent whole never reaches the program."""
    whole = 40
    for missing in [*range(1, 60), 100, 1000]:
        reader, writer, peer = await relay.pair()
        stream = peer.transport
        assert isinstance(stream, StreamTransport)
        payload = b"x" * max(whole, missing)
        data = frame(FrameType.DATA, stream.id, payload, seal_of(relay.key))
        if missing >= len(data):
            continue
        relay.stdin.write(data[:-missing])
        await relay.attach()
        assert await reader.read() == b"", missing
        writer.close()


async def test_a_key_that_comes_byte_by_byte_begins_an_epoch(relay: RelayProcess) -> None:
    reader, _, peer = await relay.pair()
    stream = peer.transport
    assert isinstance(stream, StreamTransport) and relay.wire is not None
    half = frame(FrameType.DATA, stream.id, b"y" * 20, seal_of(relay.key))[:-20]
    relay.wire.end()
    for byte in half + opening(relay.key, 77):
        relay.stdin.write(bytes([byte]))
        await relay.stdin.drain()
        await asyncio.sleep(0.0005)
    assert await reader.read() == b""
    await relay.attach()
    assert await relay.pair()


async def test_frames_of_an_earlier_connection_after_the_key_are_not_taken(relay: RelayProcess) -> None:
    _, _, old = await relay.pair()
    assert isinstance(old.transport, StreamTransport)
    late = frame(FrameType.DATA, old.transport.id, b"late", seal_of(relay.key))
    await relay.attach()
    reader, _writer, peer = await relay.pair()
    relay.stdin.write(late)
    peer.transport.write(b"new")
    assert await reader.readexactly(3) == b"new"
    relay.stdin.write(late[: len(late) // 2])
    peer.transport.write(b"never understood")
    await over(peer)
    assert relay.why == ["init has lost the order of frames"]
    assert await reader.read() == b""
    await relay.attach()
    assert await relay.pair()


@pytest.mark.parametrize("seed", range(4))
async def test_rubbish_never_ends_init_and_a_key_always_helps(relay: RelayProcess, seed: int) -> None:
    chance = random.Random(seed)
    seal = seal_of(relay.key)
    for _ in range(25):
        _, _, peer = await relay.pair()
        assert isinstance(peer.transport, StreamTransport) and relay.wire is not None
        relay.wire.end()
        for _ in range(30):
            kind = chance.randrange(6)
            payload = chance.randbytes(chance.choice((0, 1, 4, 4, 4, 30, 32768)))
            number = chance.choice((0, peer.transport.id, chance.randrange(2**32)))
            if kind == 0:
                relay.stdin.write(chance.randbytes(chance.randrange(1, 500)))
            elif kind == 1:
                relay.stdin.write(HEAD.pack(chance.randrange(2**32), number) + payload)
            elif kind == 2:
                relay.stdin.write(opening(relay.key, chance.randrange(2**64))[: chance.randrange(45)])
            else:
                type = chance.randrange(10)
                relay.stdin.write(HEAD.pack(type << 24 | len(payload), number) + payload + seal)
        await relay.stdin.drain()
        await relay.attach()
    assert relay.process.returncode is None


async def test_hundreds_of_connections_are_kept_apart_and_more_wait_for_one_to_end(
    relay: RelayProcess,
) -> None:
    pairs = [await relay.pair() for _ in range(511)]  # init's own log is one more
    _, waiting = await relay.dial()
    for number, (_, writer, _) in enumerate(pairs):
        writer.write(b"%6d" % number)
    for number, (_, _, peer) in enumerate(pairs):
        assert await until(peer, 6) == b"%6d" % number
    assert relay.peers.empty()
    pairs[7][1].close()
    waiting.write(b"at last")
    async with asyncio.timeout(20):
        assert await until(await relay.peers.get(), 7) == b"at last"
    for _, writer, _ in pairs:
        writer.close()


async def test_the_end_of_stdin_ends_init(relay: RelayProcess) -> None:
    relay.stdin.close()
    assert await asyncio.wait_for(relay.process.wait(), 20) == 0


async def test_init_answers_the_question_whether_it_is_there(relay: RelayProcess) -> None:
    assert relay.wire is not None
    heard: list[bytes] = []
    reader = FrameReader(
        relay.key,
        lambda got: heard.append(got.payload) if got.type == FrameType.WINDOW else None,
        heard.append,
    )
    reader.keyed = True
    relay.listens = reader.feed
    relay.wire.send(FrameType.WINDOW, 0, b"1234")
    async with asyncio.timeout(20):
        while not heard:
            await asyncio.sleep(0.001)
    assert heard == [b"1234"]


async def test_a_first_key_may_come_after_the_first_dial() -> None:
    async with RelayProcess(native(), "--calls", "2") as relay:
        await relay.attach()
        async with asyncio.timeout(20):
            slots = [await relay.peers.get(), await relay.peers.get()]
        slots[0].transport.write(b"GET /hearth/status HTTP/1.1\r\n\r\n")
        await until(slots[0], 60)
        assert slots[0].data.startswith(b"HTTP/1.1 200 ")
