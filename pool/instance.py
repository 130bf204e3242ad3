"""One instance: its state, its slots, and what it has become."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from pool.engine.base import ContainerSpec
from pool.host.cgroup import Cgroup
from pool.states import LIVE, State
from pool.transport.message import Call
from pool.workload import Workload


class Link(Protocol):
    """The way to an instance: made by the launcher, used through leases."""

    @property
    def alive(self) -> bool:
        """False when the connections say that the instance is dead."""

    @property
    def exit_status(self) -> int | None:
        """Exit status of a container that has ended by itself, or None if it has not or nobody knows."""

    def free_slots(self, in_use: int) -> int:
        """How many more invocations it can take now, when `in_use` are running."""

    def take(self) -> Any:
        """A connection that can be used at once, or None."""

    async def connect(self, call: Call) -> Any:
        """A connection for this call. Raises `NotSent`."""

    def give(self, connection: Any) -> None:
        """Take a connection back after its call; one that is not clean is closed."""

    def drain_log(self) -> None:
        """Read what the instance has printed until now."""

    async def close(self) -> None:
        """Close every connection and listener."""


class Instance:
    """One running copy of a function, or one not yet given to any. Changed by the pool's ledger only."""

    __slots__ = (
        "adopted",
        "background",
        "born_generic",
        "cgroup",
        "clock",
        "container",
        "counted_at",
        "created_at",
        "freezable",
        "given_at",
        "id",
        "image",
        "in_use",
        "last_used",
        "link",
        "measured",
        "measured_at",
        "memory",
        "pausing",
        "ready_at",
        "reason",
        "served",
        "silent_until",
        "slow",
        "state",
        "state_since",
        "thawing",
        "uid",
        "workload",
    )

    def __init__(
        self,
        id: str,
        image: str,
        memory: int,
        workload: Workload | None,
        now: float,
        state: State = State.STARTING,
    ) -> None:
        self.id = id
        self.image = image
        self.memory = memory
        """Declared, bytes."""
        self.workload = workload
        self.born_generic = workload is None
        self.adopted = False
        """Whether an earlier gateway process has started it: it counts as one that has served."""
        self.state = state
        self.state_since = now
        self.created_at = now
        self.ready_at: float | None = None
        """When it became ready for its function (not when it was prewarmed)."""
        self.given_at = now
        """When it was given to its function."""
        self.last_used = now
        self.in_use = 0
        self.served = 0
        self.silent_until = 0.0
        """Until when it may be without a connection: one was closed in mid-call, and it dials again after it."""
        self.slow = False
        """Its container runs, but its function's own program takes long to become ready (`Ledger.note_slow`)."""
        self.container: str | None = None
        self.uid: int | None = None
        """The uid that its container has to itself; None: it has none, or shares one."""
        self.background: bool | None = None
        """Whether the latest call is one that nobody waits for, as far as `cpu_policy` goes; None: none was begun."""
        self.cgroup: Cgroup | None = None
        """Where its limits and its freezer are; None: not to be reached from here."""
        self.freezable = True
        """False after a failure to freeze it: it is tried no more."""
        self.counted_at = float("-inf")
        """When it was last found to have workers of its own, for which it is left running."""
        self.pausing: asyncio.Future[bool] | None = None
        """Set while it is frozen over the engine; whether that has worked."""
        self.thawing: asyncio.Future[bool] | None = None
        """What its calls wait for before anything is sent; whether it runs again. None: nothing to wait for."""
        self.measured: int | None = None
        """Memory that it was seen to use, bytes, without what the kernel would give back; None: not measured."""
        self.measured_at = float("-inf")
        self.clock = 0.0
        """The eviction order's clock when it was last used (`scheduler/dispatch/eviction.py`)."""
        self.link: Link | None = None
        self.reason: str | None = None

    def free_slots(self) -> int:
        """Invocations that it can take now: 0 unless it is idle or busy."""
        if self.state not in LIVE or self.link is None or self.workload is None:
            return 0
        if self.workload.single_use and (self.served or self.in_use):
            return 0
        return self.link.free_slots(self.in_use)

    @property
    def function(self) -> str | None:
        """Name of the function that it has become, if any."""
        return self.workload.function if self.workload else None

    def __repr__(self) -> str:
        owner = self.workload.function if self.workload else "generic"
        slots = f" {self.in_use} in use" if self.in_use else ""
        reason = f" ({self.reason})" if self.reason else ""
        return f"<Instance {self.id} {owner} {self.state}{slots}{reason}>"


class InstanceRecords(Protocol):
    """Records of instances, by which the next process of this gateway adopts them."""

    def note(
        self, instance: Instance, prototype: ContainerSpec, ready: bool, served: int | None = None
    ) -> None:
        """Write everything about an instance. Raises OSError if an older record cannot be taken away."""

    def update(self, id: str, ready: bool, served: int | None = None) -> None:
        """Change a record, if there is one. Raises as `note` does."""

    def drop(self, id: str) -> None:
        """Remove a record, if there is one. Raises OSError."""

    def has(self, id: str) -> bool:
        """Return whether an instance could be adopted."""
