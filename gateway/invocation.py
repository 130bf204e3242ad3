"""What the gateway knows of one call, on whichever way it goes: its id, its times, what kind of start it had."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

from pool.lease import Lease
from pool.transport.message import Answer
from scheduler.function import Function


class Invocation:
    """One call. Times in seconds."""

    __slots__ = ("arrived", "exec_seconds", "id", "kind", "name", "queue_seconds", "start_seconds")

    def __init__(self, arrived: float, name: str = "") -> None:
        self.id = secrets.token_hex(16)
        self.name = name
        """The function's; empty until it is known that there is such a function."""
        self.arrived = arrived
        self.kind = ""
        self.queue_seconds = self.start_seconds = self.exec_seconds = 0.0

    def note_lease(self, lease: Lease) -> None:
        """Split the time until the lease into waiting for others and waiting for a start."""
        waited = lease.since - self.arrived
        self.kind = lease.kind
        self.start_seconds = 0.0
        if lease.kind != "warm" and (ready := lease.instance.ready_at) is not None:
            began = max(self.arrived, lease.instance.given_at)
            self.start_seconds = max(0.0, min(waited, ready - began))
        self.queue_seconds = waited - self.start_seconds

    def own_headers(self) -> list[tuple[bytes, bytes]]:
        """What every response of /invoke carries."""
        headers = [(b"x-invocation-id", self.id.encode())]
        if self.kind:
            timing = b"queue;dur=%.2f, start;dur=%.2f, exec;dur=%.2f" % (
                1000 * self.queue_seconds,
                1000 * self.start_seconds,
                1000 * self.exec_seconds,
            )
            headers += ((b"x-hearth-start", self.kind.encode()), (b"server-timing", timing))
        return headers


@dataclass(slots=True)
class HandedOver:
    """How far a call came on the fast path (`gateway/fast_path.py`) before the long way takes it over.

    `fault`: it gets no lease, and why. `answer`: it was sent at `began`, and this brings what comes of it.
    """

    invocation: Invocation
    function: Function
    body: bytes
    lease: Lease | None = None
    fault: Exception | None = None
    answer: asyncio.Future[Answer] | None = None
    began: float = 0.0
