"""What an instance can become: a function version, as far as the pool needs to know it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from pool.contracts.base import Contract
from pool.engine.base import ContainerSpec

DEFAULT_TENANT = "default"
"""Owner of every function for which nobody else is named."""
PRIVATE_MARK = ":"
"""Part of the name of each job's private function, and of no name that can be declared."""


def is_private(name: str) -> bool:
    """Return whether the name of a function, read from a record or a request, is that of a job's private function."""
    return PRIVATE_MARK in name


class Keep(StrEnum):
    """Which containers of a command stay on the engine when they have ended, stopped."""

    NONE = "none"
    FAILED = "failed"
    """Those with an exit status other than 0."""
    ALL = "all"

    def keeps(self, exit_status: int | None) -> bool:
        """Whether a container stays; None: it had to be ended, and never does."""
        if exit_status is None:
            return False
        return self is Keep.ALL or (self is Keep.FAILED and exit_status != 0)


@dataclass(frozen=True, slots=True)
class Order:
    """What a shim is sent, once, to become a function version: docs/runtime-protocol.md."""

    head: bytes
    """The message, a JSON object, but for its `files`."""
    files: Path
    """A file with the value of `files`: the code. It is read for each instance, and not held in memory."""

    def read(self) -> bytes:
        """The whole message. Blocks; raises OSError."""
        return b'%b, "files": %b}' % (self.head.removesuffix(b"}"), self.files.read_bytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One function version, ready to be started. `version` is its digest."""

    function: str
    version: str
    contract: Contract
    """How its instances are spoken to."""
    container: ContainerSpec
    """Prototype: name, labels and the socket folder are added for each instance."""
    tenant: str = DEFAULT_TENANT
    """Owner of the function."""
    private: bool = False
    """The function belongs to one job."""
    concurrency: int = 1
    """Slots of one instance."""
    reuse: bool = True
    min_instances: int = 0
    keep_alive: float = 600.0
    """Seconds that an idle instance stays."""
    freeze_after: float | None = 2.0
    """Seconds after which an idle instance is frozen; None: never."""
    freeze_workers: bool = True
    """Whether an instance with more than one process is frozen, too."""
    max_age: float = 86400.0
    """Seconds after which an instance is recycled."""
    max_invocations: int | None = None
    """Calls after which an instance is recycled."""
    order: Order | None = None
    """Handlers have one."""
    generic: bool = False
    """Handler only: an instance of the runtime's prewarm pool may become this function."""
    port: int = 0
    health: str | None = None
    """HTTP only: path that must answer below 400 before the instance is ready; None: the port accepts."""
    egress: bool = False
    """Attach to the gateway's egress network."""
    max_response: int = 64 * 2**20
    """Bytes of an answer's body."""
    keep: Keep = Keep.NONE
    """Command only."""
    single_use: bool = field(init=False)
    """Whether an instance serves one invocation and is then destroyed."""
    wears_out: bool = field(init=False)
    """True if the number of calls that an instance has served can end it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "single_use", not self.reuse or self.contract.single_use)
        object.__setattr__(self, "wears_out", self.single_use or self.max_invocations is not None)
