"""A stream of frames as a transport of asyncio: what a container has dialled, over the engine.

Each stream has a window of its own each way, so a slow reader of one stalls no other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from pool.clock import Clock, Timer
from pool.transport.remote.frames import FIRST_WINDOW, LARGEST_PAYLOAD, NUMBER, BadFrame, FrameType

Bytes = bytes | bytearray | memoryview
WINDOW_STEP = FIRST_WINDOW // 2
"""Bytes after which a window is renewed: a small call then costs no frame more."""
HIGH_WATER = 64 * 1024
"""Unsent bytes of a stream above which its protocol is asked to pause, as asyncio has it."""

LOG_WINDOW = 512 * 1024
"""Bytes of output that may wait for the gateway: more than a socket of the kernel holds, so that all that a call has
printed comes before its answer."""
LOG_TICK_SECONDS = 0.1
LOG_BYTES_PER_TICK = 512 * 1024
"""Bounds how much output of a container is taken in each tick: only one that prints faster waits."""


class Stream(Protocol):
    """One stream of frames, as its connection sees it."""

    id: int
    waiting: bool
    """True if init has answered nothing yet to what it was sent last."""

    def received(self, data: bytes) -> None: ...
    def granted(self, size: int) -> None: ...
    def send_on(self) -> None: ...
    def ended(self) -> None: ...
    def closed(self) -> None: ...
    def lost(self, fault: Exception | None) -> None: ...


class Wire(Protocol):
    """The connection that the frames of all streams go over."""

    full: bool
    """True while it takes no more."""

    def send(self, type: FrameType, stream: int, payload: Bytes = b"") -> None:
        """Send a frame. The payload is copied at once."""

    def forget(self, stream: Stream) -> None:
        """Note that a stream is over."""

    def waits(self, stream: Stream) -> None:
        """Call `send_on` of this stream when the connection takes more."""


class StreamTransport(asyncio.Transport):
    """One stream. `protocol` gets what init sends on it; what it writes goes to init as far as its window allows."""

    def __init__(self, wire: Wire, id: int, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.id = id
        self.waiting = False
        self._wire = wire
        self._protocol = protocol
        self._credit = FIRST_WINDOW
        """Bytes that init takes."""
        self._unsent = bytearray()
        self._high, self._low = HIGH_WATER, HIGH_WATER // 4
        self._writing_paused = False
        self._arrived: deque[bytes] = deque()
        """Pieces that came while the protocol did not read."""
        self._granted = FIRST_WINDOW
        """Bytes that init may still send."""
        self._taken = 0
        """Bytes that the protocol has taken since the window was renewed."""
        self._reading_paused = False
        self._peer_ended = False
        self._told_end = False
        """True once init was told that no more bytes come."""
        self._ending = False
        """True if the last byte was written, which may wait to be sent."""
        self._closing = False
        self._over = False

    # -- from init ------------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Take a piece. Raises `BadFrame` if init sends more than it may."""
        self.waiting = False
        self._granted -= len(data)
        if self._granted < 0 or self._peer_ended:
            raise BadFrame("init sends more than it may")
        if self._closing:
            self._renew(len(data))
        elif self._reading_paused or self._arrived:
            self._arrived.append(data)
        else:
            self._protocol.data_received(data)
            self._renew(len(data))

    def _renew(self, size: int) -> None:
        self._taken += size
        if self._taken >= WINDOW_STEP and not self._peer_ended and not self._over:
            self._granted += self._taken
            self._wire.send(FrameType.WINDOW, self.id, NUMBER.pack(self._taken))
            self._taken = 0

    def ended(self) -> None:
        """Take the end of what init sends."""
        self._peer_ended = True
        if self._closing:
            self._let_go()
        elif not self._arrived and not self._reading_paused:
            self._tell_end()

    def _tell_end(self) -> None:
        if not self._protocol.eof_received() and not self._closing:
            self.close()

    def closed(self) -> None:
        """Take init's word that the stream is over. What has come before is still read."""
        self._peer_ended = True
        if self._arrived and not self._closing:
            self._unsent.clear()
            self._told_end = True  # nobody is left to be told
            self._ending = True
            return
        self.lost(None)

    def granted(self, size: int) -> None:
        """Send on: init takes so many bytes more."""
        self._credit += size
        self.send_on()

    def _deliver(self) -> None:
        """Give the protocol what came while it did not read."""
        while self._arrived and not self._reading_paused and not self._closing:
            data = self._arrived.popleft()
            self._protocol.data_received(data)
            self._renew(len(data))
        if self._peer_ended and not self._arrived and not self._reading_paused and not self._closing:
            self._tell_end()

    # -- to init --------------------------------------------------------------------------------------------

    def write(self, data: Bytes) -> None:
        """Send bytes, or keep them until init takes them."""
        if self._ending or self._closing or not data:
            return
        if (
            not self._unsent
            and len(data) <= self._credit
            and len(data) <= LARGEST_PAYLOAD
            and not self._wire.full
        ):
            self._credit -= len(data)
            self.waiting = True
            self._wire.send(FrameType.DATA, self.id, data)
            return
        self._unsent += data
        self.send_on()
        if len(self._unsent) > self._high and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[Bytes]) -> None:
        """Send several pieces as one."""
        self.write(b"".join(list_of_data))

    def send_on(self) -> None:
        """Send what waits, as far as init and the connection take it."""
        unsent, wire = self._unsent, self._wire
        while unsent and self._credit and not wire.full:
            piece = bytes(unsent[: min(self._credit, LARGEST_PAYLOAD)])
            del unsent[: len(piece)]
            self._credit -= len(piece)
            self.waiting = True
            wire.send(FrameType.DATA, self.id, piece)
        if unsent and self._credit:
            wire.waits(self)
        if self._writing_paused and len(unsent) <= self._low and not self._over:
            self._writing_paused = False
            self._protocol.resume_writing()
        if self._ending and not unsent and not self._told_end:
            self._told_end = True
            if not (self._closing and self._peer_ended):
                wire.send(FrameType.END, self.id)
        if self._closing and not unsent:
            self._finish()

    def write_eof(self) -> None:
        """Tell init that no more bytes come, after those that wait."""
        if not self._ending:
            self._ending = True
            self.send_on()

    def can_write_eof(self) -> bool:
        """Return True: each direction ends by itself."""
        return True

    # -- the end --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close when what was written has been sent. What comes meanwhile is dropped."""
        if not self._closing:
            self._closing = self._ending = True
            self._arrived.clear()
            self.send_on()

    def _finish(self) -> None:
        if self._peer_ended:
            self._let_go()
        self._tell_lost(None)

    def _let_go(self) -> None:
        """Forget the stream, which init may still have."""
        if not self._over:
            self._over = True
            self._wire.send(FrameType.CLOSE, self.id)
            self._wire.forget(self)

    def abort(self) -> None:
        """Close at once."""
        self._let_go()
        self.lost(None)

    def lost(self, fault: Exception | None) -> None:
        """End the stream, which is over at init's end or whose connection is gone."""
        self._closing = True
        self._unsent.clear()
        self._arrived.clear()
        if not self._over:
            self._over = True
            self._wire.forget(self)
        self._tell_lost(fault)

    def _tell_lost(self, fault: Exception | None) -> None:
        """Tell the protocol, once and from the loop, as asyncio does."""
        protocol, self._protocol = self._protocol, _NOBODY
        if protocol is not _NOBODY:
            asyncio.get_running_loop().call_soon(protocol.connection_lost, fault)

    # -- the rest of a transport ----------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Keep what comes; at the end of its window init waits."""
        self._reading_paused = True

    def resume_reading(self) -> None:
        """Go on giving the protocol what comes."""
        if self._reading_paused and not self._closing:
            self._reading_paused = False
            if self._arrived or self._peer_ended:
                asyncio.get_running_loop().call_soon(self._deliver)

    def is_reading(self) -> bool:
        """Return whether the protocol gets what comes."""
        return not self._reading_paused and not self._closing

    def is_closing(self) -> bool:
        """Return whether the stream is closed, or will be."""
        return self._closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return `default`: no socket is behind it."""
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give what comes to another protocol."""
        self._protocol = protocol  # type: ignore[assignment]

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return who gets what comes."""
        return self._protocol

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be sent."""
        return len(self._unsent)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the bytes at which the protocol is asked to go on and to pause."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the bytes at which the protocol is asked to pause and to go on."""
        self._high = HIGH_WATER if high is None else high
        self._low = self._high // 4 if low is None else low


_NOBODY = asyncio.Protocol()
"""Takes what comes after the protocol of a stream was told of its end."""


class LogStream:
    """A stream with what a container prints. It is read at a bounded rate: only who prints faster waits."""

    def __init__(self, wire: Wire, id: int, clock: Clock, sink: Callable[[bytes], None]) -> None:
        self.id = id
        self.waiting = False
        self._wire = wire
        self._clock = clock
        self._sink = sink
        self._granted = FIRST_WINDOW
        self._taken = 0
        self._tick = 0.0
        self._taken_this_tick = 0
        self._timer: Timer | None = None
        self._grant(LOG_WINDOW - FIRST_WINDOW)

    def _grant(self, size: int) -> None:
        self._granted += size
        self._wire.send(FrameType.WINDOW, self.id, NUMBER.pack(size))

    def received(self, data: bytes) -> None:
        """Give the sink what was printed. Raises `BadFrame` if init sends more than it may."""
        self._granted -= len(data)
        if self._granted < 0:
            raise BadFrame("init sends more output than it may")
        self._sink(data)
        now = self._clock.now()
        if now - self._tick >= LOG_TICK_SECONDS:
            self._tick, self._taken_this_tick = now, 0
        self._taken += len(data)
        self._taken_this_tick += len(data)
        if self._taken >= WINDOW_STEP and self._timer is None:
            if self._taken_this_tick < LOG_BYTES_PER_TICK:
                self._renew()
            else:
                self._timer = self._clock.call_later(LOG_TICK_SECONDS, self._renew)

    def _renew(self) -> None:
        taken, self._taken, self._timer = self._taken, 0, None
        self._grant(taken)

    def granted(self, size: int) -> None:
        """Do nothing: nothing is ever sent to it."""

    def send_on(self) -> None:
        """Do nothing, as `granted`."""

    def ended(self) -> None:
        """Forget the stream: whoever prints has closed it."""
        self._wire.send(FrameType.CLOSE, self.id)
        self.lost(None)

    def closed(self) -> None:
        """Forget the stream."""
        self.lost(None)

    def lost(self, fault: Exception | None) -> None:
        """Forget the stream, whose connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wire.forget(self)
