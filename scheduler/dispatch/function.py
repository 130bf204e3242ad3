"""A deployed function at run time: what it is, who waits for it, and what was measured of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pool.clock import Timer
from pool.engine.base import ContainerSpec
from pool.instance import Instance
from pool.lease import Lease
from pool.ledger import Ledger
from pool.workload import Workload

FIRST_START_GUESS = 0.3
FIRST_SPECIALISE_GUESS = 0.02
"""Seconds; what a start is expected to take until one was measured."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How a function's calls are admitted and bounded. Times in seconds, sizes in bytes."""

    timeout: float = 30.0
    queue_timeout: float = 10.0
    queue_size: int = 1000
    max_body: int = 6 * 2**20
    max_response: int = 64 * 2**20
    web: bool = False
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class Prewarm:
    """A prewarm pool: how many generic instances of which container are kept ready."""

    prototype: ContainerSpec
    count: int


Settle = Callable[[Lease | None, Exception | None], None]
"""Takes what a waiter gets: a lease, or why there is none."""


@dataclass(slots=True, eq=False)
class Waiter:
    """An invocation that waits for a slot. `arrived` and `deadline` in seconds of the clock."""

    invocation: str
    arrived: float
    deadline: float
    settle: Settle
    """Called once, in the middle of the pass: it may end the lease, but not await."""
    left: bool = False
    """Whether it wants no slot any more, since it has one, was refused or gave up."""


class Function:
    """One name and its current version."""

    def __init__(self, workload: Workload, limits: Limits) -> None:
        self.name = workload.function
        self.workload = workload
        self.limits = limits
        self.queue: deque[Waiter] = deque()
        self.waiting = 0
        """Waiters in the queue that still want a slot; given-up ones are only skipped."""
        self.calls = 0
        """Calls that were served since it last had no instance at all."""
        self.exec_seconds: float | None = None
        self.start_seconds = FIRST_START_GUESS
        self.specialise_seconds = FIRST_SPECIALISE_GUESS
        self.look_again: Timer | None = None
        self.expiry: Timer | None = None
        """Due at the first waiter's deadline, or before."""
        self.stuck = False
        """Whether its queue was just found not to move."""
        self.enough_for = 0
        """Up to how many waiters it was decided lately that nothing (more) needs to be started."""
        self.not_before = 0.0
        """Time before which starts are expected to fail, since the last one did."""
        self.blocked: str | None = None
        """Why no call starts an instance before `not_before`: the platform failed to. None: a call may try."""
        self.failures = 0
        """Starts that failed one after the other."""
        self.last_fault: str | None = None
        self.memory_since = float("-inf")
        """When it last got memory for an instance, or gave some up for others: its wait for more begins then."""

    def instances(self, ledger: Ledger) -> list[Instance]:
        """Its instances of the current version, in every state."""
        version = self.workload.version
        return [i for i in ledger.of(self.name) if i.workload and i.workload.version == version]

    def first_waiter(self) -> Waiter | None:
        """Who has waited longest and still wants a slot."""
        queue = self.queue
        while queue and queue[0].left:
            queue.popleft()
        return queue[0] if queue else None

    def waits_since(self) -> float:
        """Return since when it has waited for an instance: not since a time before it got or gave up the latest."""
        first = self.first_waiter()
        return max(first.arrived, self.memory_since) if first else float("inf")

    def starts_work(self) -> None:
        """An instance has started, or another version is to be tried: forget the failures."""
        self.failures, self.not_before, self.last_fault, self.blocked = 0, 0.0, None, None

    def __repr__(self) -> str:
        measured = "unmeasured" if self.exec_seconds is None else f"{self.exec_seconds * 1000:.2f} ms"
        return f"<Function {self.name} {self.workload.version[:12]} {self.waiting} waiting, {measured}>"
