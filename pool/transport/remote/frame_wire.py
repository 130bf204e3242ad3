"""One attached connection to a container's init: an epoch of frames, and the streams in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from pool.clock import Clock, Timer
from pool.errors import ConnectionLost
from pool.transport.remote.frames import (
    HELLO,
    NUMBER,
    VERSION,
    BadFrame,
    Frame,
    FrameReader,
    FrameType,
    frame,
    opening,
    seal_of,
)
from pool.transport.remote.stream import Bytes, LogStream, Stream, StreamTransport
from pool.transport.way import WayEnds

ANSWER_SECONDS = 5.0
"""Time after which init is asked whether it is there, if nothing came since it was sent something; and then the time
for its answer. A handler may take longer than this, init does not."""
ASK = NUMBER.pack(0)
"""Payload of the question: a window of stream 0, which init sends back."""
CALLS, LOG = b"calls", b"log"


class FrameWire(asyncio.Protocol):
    """One connection to a container's streams, which is an epoch of its init.

    `hello` is set when init has begun the epoch, or never will. `on_lost` is told once why the connection is over.
    """

    def __init__(
        self, ends: WayEnds, key: bytes, epoch: int, clock: Clock, on_lost: Callable[[FrameWire, str], None]
    ) -> None:
        self.full = False
        self.hello = asyncio.Event()
        self._ends = ends
        self._opening = opening(key, epoch)
        self._epoch = epoch
        self._seal = seal_of(key)
        self._clock = clock
        self._on_lost = on_lost
        self._reader = FrameReader(key, self._take, ends.log)
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Stream] = {}
        self._waiting: dict[int, Stream] = {}
        """Streams that wait until the connection takes more, in their order."""
        self._heard = False
        self._asked = False
        self._watch: Timer | None = None
        self.over = False
        """True once the connection is gone."""

    # -- asyncio.Protocol -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the epoch."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._opening)

    def data_received(self, data: bytes) -> None:
        """Take frames."""
        self._heard = True
        try:
            self._reader.feed(data)
        except BadFrame as error:
            self._lose(str(error))

    def eof_received(self) -> None:
        """Close, as the engine has."""

    def connection_lost(self, exc: Exception | None) -> None:
        """End every stream."""
        self._lose(str(exc) if exc is not None else "the engine closed the connection")

    def pause_writing(self) -> None:
        """Have streams keep what they are given."""
        self.full = True

    def resume_writing(self) -> None:
        """Let the streams that wait send, each in its turn."""
        self.full = False
        while self._waiting and not self.full:
            self._waiting.pop(next(iter(self._waiting))).send_on()

    # -- frames of init -------------------------------------------------------------------------------------

    def _take(self, frame: Frame) -> None:
        if self.over:
            return
        type, id, payload = frame
        stream = self._streams.get(id)
        if type == FrameType.DATA:
            if stream is not None:  # else it was closed here before init knew
                stream.received(payload)
        elif not self.hello.is_set():
            self._take_hello(frame)
        elif type == FrameType.OPEN:
            self._open(id, payload)
        elif type == FrameType.LOST:
            raise BadFrame("init has lost the order of frames")
        elif type not in (FrameType.WINDOW, FrameType.END, FrameType.CLOSE):
            raise BadFrame(f"init sends a frame of the unknown type {type}")
        elif stream is None:
            return
        elif type == FrameType.WINDOW:
            if len(payload) != NUMBER.size:
                raise BadFrame("init sends a malformed window")
            stream.granted(*NUMBER.unpack(payload))
        elif type == FrameType.END:
            stream.ended()
        else:
            stream.closed()

    def _take_hello(self, frame: Frame) -> None:
        if frame.type != FrameType.HELLO or len(frame.payload) < HELLO.size:
            raise BadFrame("init does not begin its epoch")
        version, epoch = HELLO.unpack_from(frame.payload)
        if version != VERSION:
            raise BadFrame(f"init speaks version {version} of the frames; remove the instance")
        if epoch != self._epoch:
            self._reader.keyed = False  # an earlier one, whose connection broke before init answered
        else:
            self.hello.set()

    def _open(self, id: int, name: bytes) -> None:
        if id in self._streams or id == 0:
            raise BadFrame("init opens a stream twice")
        if name == LOG:
            self._streams[id] = LogStream(self, id, self._clock, self._ends.log)
        elif name == CALLS:
            protocol = self._ends.calls()
            stream = self._streams[id] = StreamTransport(self, id, protocol)
            protocol.connection_made(stream)
        else:
            self.send(FrameType.CLOSE, id)

    # -- frames to init -------------------------------------------------------------------------------------

    def send(self, type: FrameType, stream: int, payload: Bytes = b"") -> None:
        """Send a frame."""
        if self.over or self._transport is None:
            return
        self._transport.write(frame(type, stream, payload, self._seal))
        if self._watch is None and type is FrameType.DATA:
            self._heard = self._asked = False
            self._watch = self._clock.call_later(ANSWER_SECONDS, self._look)

    def waits(self, stream: Stream) -> None:
        """Let a stream send on when the connection takes more."""
        self._waiting[stream.id] = stream

    def forget(self, stream: Stream) -> None:
        """Forget a stream that is over."""
        self._streams.pop(stream.id, None)
        self._waiting.pop(stream.id, None)

    def _look(self) -> None:
        """Ask init whether it is there, if it owes an answer. If it has not answered that either, give up."""
        self._watch = None
        if self.over or not any(stream.waiting for stream in self._streams.values()):
            return
        if not self._heard and self._asked:
            self._lose(f"init has not answered for {2 * ANSWER_SECONDS:g} s")
            return
        self._asked = not self._heard
        if self._asked:
            self.send(FrameType.WINDOW, 0, ASK)
        self._heard = False
        self._watch = self._clock.call_later(ANSWER_SECONDS, self._look)

    # -- the end --------------------------------------------------------------------------------------------

    def _lose(self, why: str) -> None:
        if not self.over:
            self.end(ConnectionLost(f"the connection to the instance over the engine broke: {why}"))
            self._on_lost(self, why)

    def end(self, fault: Exception | None = None) -> None:
        """Close the connection and every stream. `fault` is what the protocols of streams are told."""
        if self.over:
            return
        self.over = True
        self.hello.set()  # who waits for it sees `over`
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()
        for stream in list(self._streams.values()):
            stream.lost(fault)
