"""Lease: the right to one slot of one instance for one invocation."""

from __future__ import annotations

import asyncio
from typing import Protocol

from pool.errors import NotSent
from pool.instance import Instance, StartReason
from pool.transport.message import Answer, Call
from pool.workload import Workload


class Connection(Protocol):
    """A connection to an instance that carries one call at a time."""

    async def exchange(self, call: Call) -> Answer: ...

    @property
    def reusable(self) -> bool:
        """Return whether the last exchange ended so cleanly that another call may follow."""


class StartKind(str):
    """The kind of a start that was not warm, with its reason. A warm call carries the plain text and pays nothing."""

    __slots__ = ("reason",)
    reason: StartReason | None

    @classmethod
    def of(cls, kind: str, reason: StartReason | None) -> StartKind:
        """Return a kind with its reason."""
        made = cls(kind)
        made.reason = reason
        return made


class Lease:
    """The right of one call to one slot. Whoever calls holds it, and ends it exactly once through the pool."""

    __slots__ = (
        "arrived",
        "connection",
        "ended",
        "exec_seconds",
        "held",
        "instance",
        "invocation",
        "kind",
        "seconds",
        "silent",
        "since",
        "workload",
    )

    def __init__(
        self, instance: Instance, workload: Workload, invocation: str, arrived: float, now: float
    ) -> None:
        self.instance = instance
        self.workload = workload
        self.invocation = invocation
        self.arrived = arrived
        self.since = now
        self.seconds = 0.0
        """Seconds that it was held; known when it has ended."""
        self.exec_seconds: float | None = None
        """Seconds that the call ran, as the instance says, or None if it does not say."""
        self.silent = False
        """True if the instance says that no output of it waits to be read."""
        self.kind = "warm" if instance.served else start_kind(instance, arrived)
        self.connection: Connection | None = None
        self.held: Connection | None = None
        """Connection that was taken but may not be used before the instance has thawed."""
        self.ended = False

    def take(self) -> None:
        """Take an open connection if there is one; otherwise `connect` opens one. It is only held during a thaw."""
        link = self.instance.link
        assert link is not None
        if self.instance.thawing is None:
            self.connection = link.take()
        else:
            self.held = link.take()

    async def connect(self, call: Call) -> Connection:
        """Return a connection to an instance that runs; open one if none is open. Raises `NotSent`."""
        if self.connection is None:
            thawing = self.instance.thawing
            if thawing is not None and not await asyncio.shield(thawing):
                raise NotSent("the instance could not be thawed")
            self.connection, self.held = self.held, None
        if self.connection is None:
            link = self.instance.link
            if link is None:
                raise NotSent("the instance is gone")
            self.connection = await link.connect(call)
        return self.connection

    def end(self, now: float) -> None:
        """Give the connection back. Only the pool calls this."""
        link = self.instance.link
        if link is not None and not self.silent:
            link.drain_log()  # what waits there is still this call's
        self.ended = True
        self.seconds = now - self.since
        if link is not None:
            taken = self.connection or self.held
            if taken is not None:
                link.give(taken)


def start_kind(instance: Instance, arrived: float) -> str:
    """Return how the instance came to serve a call.

    `warm`: it has served before, or was adopted. `prewarmed`: it was started before the call came. `cold`: it was
    started because of calls.
    """
    if instance.served or instance.in_use or instance.adopted:
        return "warm"
    if instance.born_generic or (instance.ready_at is not None and instance.ready_at <= arrived):
        return StartKind.of("prewarmed", instance.start_reason)
    return StartKind.of("cold", instance.start_reason)
