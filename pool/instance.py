"""Instance: one running copy of a revision, with its state, slots and measurements."""

from __future__ import annotations

import asyncio
import secrets
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from pool.engine.base import ContainerSpec
from pool.host.cgroup import Cgroup
from pool.states import LIVE, State
from pool.transport.message import Call
from pool.workload import Workload


class Link(Protocol):
    """Connections to one instance. Its contract makes it, leases use it."""

    @property
    def alive(self) -> bool:
        """Return False if the connections show that the instance is dead."""

    @property
    def exit_status(self) -> int | None:
        """Return the exit status of a container that ended by itself, or None if it did not or nobody knows."""

    def free_slots(self, in_use: int) -> int:
        """Return how many more calls it can take now, while `in_use` are running."""

    def take(self) -> Any:
        """Return a connection that can be used at once, or None."""

    async def connect(self, call: Call) -> Any:
        """Return a connection for this call. Raises `NotSent`."""

    def give(self, connection: Any) -> None:
        """Take a connection back after its call, and close it unless it is clean."""

    def drain_log(self) -> None:
        """Read the output that the instance has printed so far."""

    async def close(self) -> None:
        """Close every connection and listener."""


class StartedFor(StrEnum):
    """The purpose for which an instance was started, or given to its function."""

    CALL = "call"
    """Calls that waited."""
    TRIAL = "trial"
    """A new revision that was tried out before it came into service."""
    MINIMUM = "min_instances"
    SPARE = "spare"
    """Calls that may come: docs/pool.md#spares."""
    PREWARM = "prewarm"
    """A prewarm pool."""


class StartReason(NamedTuple):
    """The reason why an instance was started, in words. `{other}` in the text stands for the function `other`."""

    text: str
    other: str = ""
    purpose: StartedFor = StartedFor.CALL

    def told(self, other: str) -> str:
        """Return the whole sentence, with this name of the other function."""
        return self.text.replace("{other}", other)


class Instance:
    """One running copy of a revision, or a generic one not yet given to any. Only the ledger changes its state."""

    __slots__ = (
        "adopted",
        "awaits",
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
        "start_reason",
        "state",
        "state_since",
        "taker",
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
        """Declared memory, bytes."""
        self.workload = workload
        self.born_generic = workload is None
        self.adopted = False
        """True if an earlier gateway process started it. It then counts as one that has served."""
        self.state = state
        self.state_since = now
        self.created_at = now
        self.ready_at: float | None = None
        """Time when it became ready for its function, not when it was prewarmed."""
        self.given_at = now
        """Time when it was given to its function."""
        self.last_used = now
        self.in_use = 0
        self.served = 0
        self.silent_until = 0.0
        """Time until which it may have no connection: one was closed during a call, and it dials again after that."""
        self.slow = False
        """True if its container runs, but the function's program takes long to become ready (`Ledger.note_slow`)."""
        self.awaits = ""
        """The reason why its start is not over, as a sentence about its program; empty until that runs."""
        self.container: str | None = None
        self.uid: int | None = None
        """Uid that only its container has, or None if it shares one."""
        self.background: bool | None = None
        """True if nobody waits for the latest call that `cpu_policy` knows of, or None before the first."""
        self.cgroup: Cgroup | None = None
        """Control group with its limits and its freezer, or None if we cannot reach it."""
        self.freezable = True
        """False once freezing it has failed: it is not tried again."""
        self.counted_at = float("-inf")
        """Time when its processes were last counted, for workers that must not be frozen."""
        self.pausing: asyncio.Future[bool] | None = None
        """Set while it is frozen over the engine; the result is True if that worked."""
        self.thawing: asyncio.Future[bool] | None = None
        """Set while it thaws, and its calls wait for it; the result is True if it runs again."""
        self.measured: int | None = None
        """Bytes that it was seen to use, without those that the kernel could reclaim, or None if not measured."""
        self.measured_at = float("-inf")
        self.clock = 0.0
        """Value of the eviction clock when it was last used (`scheduler/dispatch/eviction.py`)."""
        self.link: Link | None = None
        self.start_reason: StartReason | None = None
        """Reason why it was started, or became its function's; None before that, and if it was adopted."""
        self.reason: str | None = None
        self.taker = ""
        """Function that gets its memory, if it is removed for that."""

    def free_slots(self) -> int:
        """Return how many calls it can take now: 0 unless it is idle or busy."""
        if self.state not in LIVE or self.link is None or self.workload is None:
            return 0
        if self.workload.single_use and (self.served or self.in_use):
            return 0
        return self.link.free_slots(self.in_use)

    @property
    def function(self) -> str | None:
        """Return the name of its function, or None if it has none yet."""
        return self.workload.function if self.workload else None

    @property
    def started_for(self) -> StartedFor:
        """Return the purpose for which it was started, or became its function's."""
        if self.workload is None:
            return StartedFor.PREWARM
        return self.start_reason.purpose if self.start_reason is not None else StartedFor.CALL

    def __repr__(self) -> str:
        owner = self.workload.function if self.workload else "generic"
        slots = f" {self.in_use} in use" if self.in_use else ""
        reason = f" ({self.reason})" if self.reason else ""
        return f"<Instance {self.id} {owner} {self.state}{slots}{reason}>"


class InstanceRecords(Protocol):
    """Records on disk by which the next process of this gateway adopts instances."""

    def note(
        self, instance: Instance, prototype: ContainerSpec, ready: bool, served: int | None = None
    ) -> None:
        """Write the record of an instance. Raises OSError if an older record cannot be removed."""

    def update(self, id: str, ready: bool, served: int | None = None) -> None:
        """Change a record, if there is one. Raises OSError as `note` does."""

    def drop(self, id: str) -> None:
        """Remove a record, if there is one. Raises OSError."""

    def has(self, id: str) -> bool:
        """Return whether an instance has a record, so that it could be adopted."""


def new_instance_id() -> str:
    """Return a new id for an instance: 12 hexadecimal digits, also part of its container's name."""
    return secrets.token_hex(6)
