"""The contract of a container engine: what the pool asks for, in a little more than a dozen verbs.

Every verb may raise `EngineError`. A verb that names a container or image that is not there raises
`NotFound`, except `remove`, `remove_image` and `remove_network`, which are idempotent: what is absent is removed.
Implementations time every call and count every failure through `pool.metrics`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol


class EngineError(Exception):
    """The container engine could not do what it was asked."""


class EngineUnreachable(EngineError):
    """The container engine does not answer; is it running, and is its socket readable?"""


class EngineDown(EngineUnreachable):
    """The container engine was found not to answer, and is asked nothing until it does."""

    def __init__(self, message: str, retry_after: float, asked: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds after which it is worth trying again."""
        self.asked = asked
        """True if the engine was asked before it was found not to answer. It may still carry the verb out."""


class EngineFault(EngineError):
    """The container engine answered with a fault of its own: a status of 500 or above."""


class NotRunnable(EngineError):
    """A container's program cannot be run: the image does not have it, or it may not be executed."""


class BadPath(EngineError):
    """A path in an image that cannot be read: it leads through a file, its links go round, or a name is not valid."""


class NotFound(EngineError):
    """The engine has no such container, image or network."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A bind mount of a host path into a container."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class VolumeMount:
    """A tmpfs in place of the volume that the engine would make where an image declares one."""

    path: str
    """As the engine reads it: absolute and clean."""
    size: int
    """Bytes."""
    owner: str | None = None
    """`uid:gid` of the folder in the image. It counts only where the container keeps the image's own user."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """Everything that shapes a container. Hardening (no capabilities, no new privileges, read-only root, no swap,
    default seccomp, SIGKILL as the stop signal) is not a choice and so is not here."""

    name: str
    image: str
    """Image id or reference."""
    labels: Mapping[str, str] = field(default_factory=dict)
    hostname: str | None = None
    """None: the beginning of its id."""
    command: tuple[str, ...] | None = None
    """Replaces the image's CMD; its ENTRYPOINT stays. None keeps the image's CMD."""
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = "65532:65532"
    """None keeps the image's own user. `own`: `pool.uids.with_uid` puts a uid of the container's own here."""
    own_user_env: Mapping[str, str] = field(default_factory=dict)
    """Variables that a container with a uid of its own gets beside `env`: the image knows no user of that uid."""
    memory: int = 128 * 2**20
    """Bytes; swap is off, so this is all that the container gets."""
    cpus: float = 1.0
    cpu_shares: int | None = None
    """Weight where all want the processor; None: the engine's default."""
    pids: int = 128
    nofile: int = 1024
    network: str | None = None
    """None: `NetworkDisabled`, an empty namespace with loopback only. Else the name of a network."""
    tmp_size: int = 64 * 2**20
    """Bytes of the tmpfs on /tmp."""
    writable: tuple[tuple[str, int], ...] = ()
    """Further tmpfs mounts: (path, bytes)."""
    mounts: tuple[Mount, ...] = ()
    volumes: tuple[VolumeMount, ...] = ()
    """One for each volume that the image declares. `writable` and `mounts` win at the same path."""
    sandbox: str | None = None
    """Name of an OCI runtime of the engine (runsc, kata); None is the engine's default."""
    stdin: bool = False
    """Open stdin once, for `attach`."""
    keep_output: bool = True
    """Keep stdout and stderr (bounded) for `logs`. False: only an attached client sees them."""


@dataclass(frozen=True, slots=True)
class ContainerState:
    """The state of one container, as the engine tells it."""

    id: str
    name: str
    image: str
    labels: Mapping[str, str]
    running: bool
    pid: int = 0
    """Process id in the engine's host; 0 when not running."""
    paused: bool = False
    """It is running, and stopped by `pause`."""
    exit_code: int | None = None
    oom_killed: bool = False
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Network name to IP address."""
    volumes: tuple[str, ...] = ()
    """Paths where the engine has made a volume for it."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image on the engine."""

    id: str
    tags: tuple[str, ...]
    labels: Mapping[str, str]
    size: int
    volumes: tuple[str, ...] = ()
    """Paths, as the image says them, where it declares volumes. Empty in what `images` returns."""
    variables: frozenset[str] = frozenset()
    """Names of the environment variables that it sets. Empty in what `images` returns."""
    user: str = ""
    """User that its containers run as unless told otherwise, as the image says it. Empty in what `images` returns."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network on the engine."""

    id: str
    name: str
    bridge: str
    """Name of the bridge interface on the host; empty when the engine chose one."""
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Facts about an engine: its version, its machine and its abilities."""

    version: str
    api_version: str
    cgroup_version: int
    live_restore: bool
    runtimes: tuple[str, ...]
    cpus: int
    memory: int
    architecture: str
    data_root: str
    user_namespaces: bool = False
    """True if it maps uids: a container's uid is another one on the host."""


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """Something happened to a container: `action` is create, start, die, oom or destroy."""

    id: str
    action: str
    labels: Mapping[str, str]
    exit_code: int | None = None


class Attachment(Protocol):
    """The standard streams of a container, attached before it starts."""

    async def write(self, data: bytes) -> None:
        """Write to stdin; returns when the data is accepted. A closed stdin swallows it."""

    async def close_stdin(self) -> None:
        """Signal end of input."""

    async def read(self) -> tuple[int, bytes] | None:
        """Next piece of output as (1 for stdout | 2 for stderr, data); None at the end."""

    @property
    def unread(self) -> int:
        """Bytes of output that wait here to be read."""

    async def close(self) -> None:
        """Let go of the streams; safe to call twice."""


class Engine(Protocol):
    """A container engine."""

    async def info(self) -> EngineInfo: ...

    async def ping(self) -> None:
        """Return if the engine answers, else raise `EngineUnreachable`."""

    async def create(self, spec: ContainerSpec) -> str:
        """Create (not start) a container and return its id."""

    async def start(self, container: str) -> None: ...

    async def inspect(self, container: str) -> ContainerState: ...

    async def remove(self, container: str) -> None:
        """Kill and remove, with anonymous volumes. Returns when it is gone; absent is fine."""

    async def containers(self, labels: Mapping[str, str]) -> list[ContainerState]:
        """Containers, running or not, that carry all these labels (empty value: the key alone must be there)."""

    async def attach(self, container: str, stdin: bool = True, output: bool = True) -> Attachment:
        """Attach to stdin, to stdout and stderr, or to both. With both, the end of the output may not be told while
        a write to stdin waits for a container that has ended."""

    async def wait(self, container: str) -> int:
        """Wait until the container has ended and return its exit status."""

    async def logs(self, container: str, limit: int) -> bytes:
        """The last `limit` bytes, at most, of stdout and stderr together."""

    async def archive(self, container: str, path: str, limit: int) -> bytes:
        """Return the first `limit` bytes of a tar of what the image has at a path; links are followed. The container
        need not run. Raises `NotFound` if nothing is there, and `BadPath`."""

    async def resize(self, container: str, memory: int, cpus: float) -> None:
        """Set memory (bytes, swap off) and CPUs of a running container."""

    async def pause(self, container: str) -> None:
        """Stop every process of a running container; one that is paused stays so. It can be removed."""

    async def unpause(self, container: str) -> None:
        """Let a paused container go on; one that runs goes on running."""

    def events(self, labels: Mapping[str, str]) -> AsyncIterator[ContainerEvent]:
        """Events of containers with these labels, from now on; ends or raises when the engine goes away."""

    async def image(self, reference: str) -> Image: ...

    async def images(self, labels: Mapping[str, str]) -> list[Image]: ...

    async def build(self, context: bytes, tag: str, labels: Mapping[str, str]) -> Image:
        """Build an image from a tar with a Dockerfile. Raises `EngineError` with the end of the build's output."""

    async def remove_image(self, reference: str) -> None: ...

    async def networks(self, labels: Mapping[str, str]) -> list[Network]: ...

    async def create_network(
        self, name: str, bridge: str, internal: bool, labels: Mapping[str, str]
    ) -> Network:
        """A bridge network without traffic between its containers. `internal`: no way out of the host."""

    async def remove_network(self, name: str) -> None: ...

    async def close(self) -> None: ...
