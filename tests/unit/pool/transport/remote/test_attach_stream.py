"""The way over the engine is made again when it breaks, as long as there is somebody at its other end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from pool.clock import VirtualClock
from pool.engine.base import EngineError, EngineUnreachable, NotFound
from pool.engine.hijack import FRAME
from pool.errors import ConnectionLost
from pool.transport.remote.attach_stream import HELLO_SECONDS, SILENT_EPOCHS, AttachStream
from pool.transport.remote.frame_wire import ANSWER_SECONDS, ASK
from pool.transport.remote.frames import HEAD, HELLO, KEY_BYTES, FrameType, frame, opening, seal_of
from pool.transport.way import WayEnds
from tests.support.relay import Peer

KEY = bytes(range(KEY_BYTES))


class FakeAttachment:
    """The engine's end of an attached connection, and a scripted init behind it."""

    def __init__(self, greets: bool) -> None:
        self.greets = greets
        self.written = bytearray()
        self.aborted = False
        self.protocol: asyncio.Protocol

    def hand_over(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol
        protocol.connection_made(self)  # type: ignore[arg-type]

    def write(self, data: bytes) -> None:
        self.written += data
        if self.greets and len(self.written) == len(opening(KEY, 0)):
            epoch = int.from_bytes(self.written[KEY_BYTES : KEY_BYTES + 8])
            self.say(KEY + of_init(FrameType.HELLO, 0, HELLO.pack(1, epoch)))

    def say(self, data: bytes) -> None:
        self.protocol.data_received(FRAME.pack(1, len(data)) + data)

    def abort(self) -> None:
        self.aborted = True

    def cut(self) -> None:
        self.protocol.connection_lost(OSError("cut"))


def of_init(type: FrameType, stream: int, payload: bytes = b"") -> bytes:
    return HEAD.pack(type << 24 | len(payload), stream) + payload


class FakeEngine:
    """An engine that attaches as it is told: each entry of `ends` is an error, or whether init greets."""

    def __init__(self) -> None:
        self.ends: list[EngineError | bool] = []
        self.attached: list[FakeAttachment] = []
        self.unpaused = 0

    async def unpause(self, container: str) -> None:
        self.unpaused += 1

    async def attach(self, container: str) -> FakeAttachment:
        end = self.ends.pop(0) if self.ends else True
        if isinstance(end, EngineError):
            raise end
        self.attached.append(FakeAttachment(end))
        return self.attached[-1]


class World:
    """A way to a container, with all that it touches."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.engine = FakeEngine()
        self.peers: list[Peer] = []
        self.printed = bytearray()

        async def prepare() -> Callable[..., object]:
            return lambda spec: spec

        self.way = AttachStream(self.engine, self.clock, KEY, prepare)  # type: ignore[arg-type]

    async def start(self) -> None:
        await self.way.open(WayEnds(self._peer, self.printed.extend))
        await self.way.started("c" * 64)

    def _peer(self) -> Peer:
        self.peers.append(Peer())
        return self.peers[-1]

    @property
    def init(self) -> FakeAttachment:
        return self.engine.attached[-1]

    def dial(self, stream: int = 1) -> Peer:
        self.init.say(of_init(FrameType.OPEN, stream, b"calls"))
        return self.peers[-1]


@pytest.fixture
async def world() -> World:
    made = World()
    await made.start()
    return made


async def test_calls_and_output_come_over_one_connection(world: World) -> None:
    peer = world.dial()
    world.init.say(of_init(FrameType.OPEN, 2, b"log") + of_init(FrameType.DATA, 2, b"printed"))
    world.init.say(of_init(FrameType.DATA, 1, b"answer") + of_init(FrameType.OPEN, 3, b"unknown"))
    assert (bytes(peer.data), bytes(world.printed)) == (b"answer", b"printed")
    assert world.init.written.endswith(frame(FrameType.CLOSE, 3, b"", seal_of(KEY)))
    await world.way.close()


async def test_a_cut_connection_is_made_again_and_a_frozen_container_runs(world: World) -> None:
    peer = world.dial()
    world.engine.ends = [EngineUnreachable("away"), EngineUnreachable("still away"), True]
    world.init.cut()
    assert world.way.mending
    await world.clock.advance(10)
    assert isinstance(peer.lost, ConnectionLost) and "cut" in str(peer.lost)
    assert len(world.engine.attached) == 2 and world.engine.unpaused == 3
    again = world.dial(2)
    again.transport.write(b"call")
    assert world.init.written.endswith(frame(FrameType.DATA, 2, b"call", seal_of(KEY)))
    assert not world.way.mending, "the time in which slots are dialled again is over"
    await world.way.close()


async def test_a_container_that_is_gone_is_given_up(world: World) -> None:
    world.engine.ends = [NotFound("no such container")]
    world.init.cut()
    await world.clock.advance(1)
    assert not world.way.mending
    assert len(world.engine.attached) == 1


async def test_an_init_that_never_begins_an_epoch_is_given_up(world: World) -> None:
    world.engine.ends = [False] * SILENT_EPOCHS
    world.init.cut()
    await world.clock.advance(HELLO_SECONDS * SILENT_EPOCHS + 5)
    assert not world.way.mending
    assert [attached.aborted for attached in world.engine.attached] == [True] * (SILENT_EPOCHS + 1)


async def test_init_is_asked_whether_it_is_there_while_a_call_waits(world: World) -> None:
    peer = world.dial()
    question = frame(FrameType.WINDOW, 0, ASK, seal_of(KEY))
    await world.clock.advance(10 * ANSWER_SECONDS)
    assert question not in world.init.written, "nobody waits"
    peer.transport.write(b"call")
    await world.clock.advance(ANSWER_SECONDS + 0.1)
    assert world.init.written.count(question) == 1
    world.init.say(of_init(FrameType.WINDOW, 0, ASK))
    await world.clock.advance(2 * ANSWER_SECONDS)
    assert peer.lost is False, "a call may take as long as it likes"
    assert world.init.written.count(question) == 2
    await world.clock.advance(ANSWER_SECONDS)
    assert isinstance(peer.lost, ConnectionLost)
    assert "init has not answered for 10 s" in str(peer.lost)
    await world.way.close()


async def test_a_closed_way_is_not_made_again(world: World) -> None:
    peer = world.dial()
    first = world.init
    await world.way.close()
    await world.way.close()
    await world.clock.advance(10)
    assert first.aborted and peer.lost is None
    assert len(world.engine.attached) == 1 and not world.way.mending


async def test_an_answer_to_an_earlier_opening_is_not_taken_for_this_one() -> None:
    world = World()
    world.engine.ends = [False]
    await world.start()
    attached = world.init
    epoch = int.from_bytes(attached.written[KEY_BYTES : KEY_BYTES + 8])
    attached.say(KEY + of_init(FrameType.HELLO, 0, HELLO.pack(1, 12345)))
    attached.say(of_init(FrameType.OPEN, 1, b"calls"))
    assert world.peers == []
    attached.say(
        KEY + of_init(FrameType.HELLO, 0, HELLO.pack(1, epoch)) + of_init(FrameType.OPEN, 2, b"calls")
    )
    assert len(world.peers) == 1
    await world.way.close()
