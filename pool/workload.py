"""Workloads: function versions, as far as the pool needs to know them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from pool.contracts.facts import ContractFacts
from pool.engine.base import ContainerSpec
from pool.states import Reason

DEFAULT_TENANT = "default"
"""Owner of every function that names no other tenant."""
PRIVATE_MARK = ":"
"""Character in the name of a job's private function; no declared name can contain it."""


def is_private(name: str) -> bool:
    """Return whether a name, read from a record or a request, is that of a job's private function."""
    return PRIVATE_MARK in name


class Keep(StrEnum):
    """A choice which stopped containers of a command stay on the engine."""

    NONE = "none"
    FAILED = "failed"
    """Containers with an exit status other than 0 stay."""
    ALL = "all"

    def keeps(self, exit_status: int | None) -> bool:
        """Return whether a container with this exit status stays. One that had to be ended has None, and goes."""
        if exit_status is None:
            return False
        return self is Keep.ALL or (self is Keep.FAILED and exit_status != 0)


@dataclass(frozen=True, slots=True)
class Order:
    """The message that turns a shim into a function version: docs/runtime-protocol.md."""

    head: bytes
    """The message, a JSON object, without its `files`."""
    files: Path
    """File with the value of `files`, the code. It is read for each instance and not held in memory."""

    def read(self) -> bytes:
        """Return the whole message. Blocks; raises OSError."""
        return b'%b, "files": %b}' % (self.head.removesuffix(b"}"), self.files.read_bytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One revision of a function, ready to be started. `version` is its digest."""

    function: str
    version: str
    contract: ContractFacts
    """The way to launch, call and understand its instances."""
    container: ContainerSpec
    """Prototype of its containers. Each instance adds its name, labels and socket folder."""
    tenant: str = DEFAULT_TENANT
    """Owner of the function."""
    private: bool = False
    """True if the function belongs to one job."""
    concurrency: int = 1
    """Slots of one instance."""
    reuse: bool = True
    min_instances: int = 0
    keep_alive: float = 600.0
    """Seconds that an idle instance is kept."""
    freeze_after: float | None = 2.0
    """Seconds after which an idle instance is frozen, or None for never."""
    max_age: float = 86400.0
    """Seconds after which an instance is recycled."""
    max_invocations: int | None = None
    """Calls after which an instance is recycled, or None for no limit."""
    order: Order | None = None
    """Message to the shim of a handler; None for other contracts."""
    generic: bool = False
    """True if a prewarmed instance of the runtime may become this function. Handlers only."""
    own_image: bool = False
    """True if its image has packages that only functions with its requirements share. Handlers only."""
    port: int = 0
    health: str | None = None
    """Path that must answer below 400 before the instance is ready; None waits for the port only. HTTP only."""
    egress: bool = False
    """True to attach instances to the gateway's egress network."""
    max_response: int = 64 * 2**20
    """Largest body of an answer, bytes."""
    stream: bool = False
    """True to send output on as it comes, before the exit status is known. Commands only."""
    keep: Keep = Keep.NONE
    """Ended containers to keep. Commands only."""
    single_use: bool = field(init=False)
    """True if an instance serves one call and is then destroyed."""
    kept_ready: bool = field(init=False)
    """True if spares of it may be started: its instances are single-use, or no prewarmed one has its image."""
    wears_out: bool = field(init=False)
    """True if the number of calls that an instance has served can end it."""

    def worn_out(self, served: int) -> Reason | None:
        """Return why an instance that has served so many calls must serve no more, or None if it may."""
        if self.single_use:
            return Reason.SINGLE_USE
        if self.max_invocations is not None and served >= self.max_invocations:
            return Reason.MAX_INVOCATIONS
        return None

    def __post_init__(self) -> None:
        object.__setattr__(self, "single_use", not self.reuse)
        ahead = (self.single_use or self.own_image) and not self.private
        object.__setattr__(self, "kept_ready", ahead)
        object.__setattr__(self, "wears_out", self.single_use or self.max_invocations is not None)
