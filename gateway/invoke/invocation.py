"""The facts of one call, on the fast way and on the long one: its id, its times, the kind of its start."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gateway.access.access import OPEN, Admission
from gateway.invoke.ids import new_id
from pool.lease import Lease
from pool.transport.message import Answer
from scheduler.dispatch.function import Revision

OWN_LINES = (
    b"x-invocation-id: %b\r\nx-hearth-start: %b\r\n"
    b"server-timing: queue;dur=%.2f, start;dur=%.2f, exec;dur=%.2f\r\n"
)


class Invocation:
    """One call. Times in seconds."""

    __slots__ = ("arrived", "exec_seconds", "id", "kind", "name", "queue_seconds", "start_seconds")
    private = False
    """Its function is a job's own: such calls go the long way only."""
    revision: Revision | None = None
    """The revision that serves it, or None until it is known."""
    admission: Admission = OPEN
    """The rights of its caller."""

    def __init__(self, arrived: float, name: str = "", id: str = "") -> None:
        self.id = id or new_id()
        self.name = name
        """Name of its function, or empty until it is known that the function exists."""
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

    def own_lines(self) -> bytes:
        """Return the fields that every response of /invoke carries, as lines."""
        if not self.kind:
            return b"x-invocation-id: %b\r\n" % self.id.encode()
        return OWN_LINES % (
            self.id.encode(),
            self.kind.encode(),
            1000 * self.queue_seconds,
            1000 * self.start_seconds,
            1000 * self.exec_seconds,
        )

    def own_headers(self) -> list[tuple[bytes, bytes]]:
        """Return `own_lines` as pairs."""
        pairs = (line.split(b": ", 1) for line in self.own_lines().splitlines())
        return [(name, value) for name, value in pairs]


@dataclass(slots=True)
class HandedOver:
    """The state of a call that the long way takes over from the fast path (`gateway/edge/fast_path.py`).

    `fault` is the reason why it gets no lease. `answer` is set if it was sent, at `began`, and brings the answer.
    """

    invocation: Invocation
    revision: Revision
    body: bytes
    lease: Lease | None = None
    fault: Exception | None = None
    answer: asyncio.Future[Answer] | None = None
    began: float = 0.0
