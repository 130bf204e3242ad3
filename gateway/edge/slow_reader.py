"""Ends connections of clients that do not read their answers.

An answer waits in the connection until its client reads it. A few KiB wait freely; more counts against the memory
for answers, and must move.
"""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.edge.client_limits import ClientLimits
from gateway.edge.one_write import OneWriteProtocol

STALL_FACTOR = 3
"""Times the client time-out in which a client must read something: a slow network loses more than one packet."""


class SlowReaderProtocol(OneWriteProtocol):
    """One connection of a client that is ended when its answers take too much memory or do not move."""

    def __init__(self, limits: ClientLimits, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._limits = limits
        self._stall_timer: asyncio.TimerHandle | None = None
        """Runs while the client does not read what we have written."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        super().connection_lost(exc)
        self._stop_stall_timer()
        self._limits.memory.answers.let_go(self)

    def pause_writing(self) -> None:
        """Called by the loop: the client reads more slowly than we write."""
        super().pause_writing()
        self._watch_reader()
        waiting = self.transport.get_write_buffer_size()
        if not self._limits.memory.answers.hold(self, waiting, self.transport.abort):
            self.transport.abort()

    def resume_writing(self) -> None:
        """Called by the loop: the client has read enough."""
        super().resume_writing()
        self._stop_stall_timer()
        self._limits.memory.answers.let_go(self)

    def timeout_keep_alive_handler(self) -> None:
        """Called by the loop: no request has come for a while. Closing would wait for a client that does not read."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _watch_reader(self) -> None:
        """Abort the connection unless the client reads something in time."""
        if self._stall_timer is None:
            left = self.transport.get_write_buffer_size()
            seconds = STALL_FACTOR * self._limits.timeout_seconds
            self._stall_timer = self.loop.call_later(seconds, self._abort_if_stalled, left)

    def _abort_if_stalled(self, left: int) -> None:
        """Abort the connection if all of the `left` bytes still wait; else watch it again."""
        self._stall_timer = None
        if self.transport.get_write_buffer_size() < left:
            self._watch_reader()
        else:
            self.transport.abort()

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
