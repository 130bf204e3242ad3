"""Contract of a container engine: the verbs that the pool needs.

Every verb may raise `EngineError`. A verb raises `NotFound` if its container or image does not exist. `remove`,
`remove_image` and `remove_network` do not: they are idempotent. Implementations time every call and count every
failure through `pool.observe.metrics`.
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
    """The container engine does not answer, and no verb is tried until it does."""

    def __init__(self, message: str, retry_after: float, asked: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds after which to try again."""
        self.asked = asked
        """True if the engine was asked before it was found not to answer. It may still carry the verb out."""


class EngineFault(EngineError):
    """The container engine answered with a fault of its own: a status of 500 or above."""


class NotRunnable(EngineError):
    """A container's program cannot run: the image does not have it, or it is not executable."""


class BadPath(EngineError):
    """A path in an image cannot be read: it leads through a file, its links form a loop, or a name is not valid."""


class NotFound(EngineError):
    """The engine has no such container, image or network."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount of a path of the engine's host, or of a named volume, into a container."""

    source: str
    """An absolute path, or the name of a volume."""
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class VolumeFile:
    """A named volume with one program in it, which every user may run."""

    volume: str
    file: str
    content: bytes
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VolumeMount:
    """A tmpfs in place of a volume that an image declares."""

    path: str
    """Path as the engine reads it: absolute and normalised."""
    size: int
    """Bytes."""
    owner: str | None = None
    """`uid:gid` of the folder in the image. It is used only if the container keeps the image's own user."""
    content: str | None = None
    """Folder of the image whose content init copies there, or None to leave it empty."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """Everything that may differ between containers.

    The hardening is the same for all, so it is not here: no new privileges, read-only root, no swap, default seccomp,
    SIGKILL as the stop signal.
    """

    name: str
    image: str
    """Image id or reference."""
    labels: Mapping[str, str] = field(default_factory=dict)
    hostname: str | None = None
    """None takes the beginning of its id."""
    command: tuple[str, ...] | None = None
    """Replaces the image's CMD; its ENTRYPOINT stays. None keeps the image's CMD."""
    entrypoint: tuple[str, ...] | None = None
    """Replaces the image's ENTRYPOINT. None keeps it."""
    program: tuple[str, ...] = ()
    """All that it runs: the image's ENTRYPOINT, then `command` or the image's CMD. The engine ignores it; a container
    with init runs it. Empty if the image says none, or if nobody asked."""
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = "65532:65532"
    """None keeps the image's own user. `pool.host.uids.with_uid` replaces `own` by a uid that no other has."""
    usual_env: Mapping[str, str] = field(default_factory=dict)
    """Variables that a container gets when it is created, unless `env` has them. Its record leaves them out."""
    passwd: bytes | None = None
    """Content of `/etc/passwd`, or None for the image's. `with_uid` adds the line of a user that it makes."""
    memory: int = 128 * 2**20
    """Bytes; swap is off, so this is the whole memory of the container."""
    cpus: float = 1.0
    cpu_shares: int | None = None
    """Weight against other containers when all want the processor; None takes the engine's default."""
    pids: int = 128
    nofile: int = 1024
    network: str | None = None
    """Name of a network, or None for an empty namespace with loopback only (`NetworkDisabled`)."""
    tmp_size: int = 64 * 2**20
    """Bytes of the tmpfs on /tmp."""
    shm_size: int = 64 * 2**20
    """Bytes of the tmpfs on /dev/shm."""
    writable: tuple[tuple[str, int], ...] = ()
    """Further tmpfs mounts: (path, bytes)."""
    mounts: tuple[Mount, ...] = ()
    volumes: tuple[VolumeMount, ...] = ()
    """One for each volume that the image declares. `writable` and `mounts` win at the same path."""
    capabilities: tuple[str, ...] = ()
    """Capabilities that root keeps, in lower case without CAP_. All others are dropped."""
    sandbox: str | None = None
    """Name of an OCI runtime of the engine (runsc, kata); None is the engine's default."""
    stdin: bool = False
    """Open stdin, for `attach`."""
    stdin_stays: bool = False
    """True keeps stdin open when the attached client goes: another one can attach. Otherwise that is its end."""
    tty: bool = False
    """Give the program a terminal. Then an attached client gets its output without frames."""
    keep_output: bool = True
    """True keeps stdout and stderr (bounded) for `logs`. With False only an attached client gets them."""


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
    """True if it runs and is stopped by `pause`."""
    exit_code: int | None = None
    oom_killed: bool = False
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Network name to IP address."""
    volumes: tuple[str, ...] = ()
    """Paths at which the engine made a volume for it."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image on the engine."""

    id: str
    tags: tuple[str, ...]
    labels: Mapping[str, str]
    size: int
    volumes: tuple[str, ...] = ()
    """Paths at which it declares volumes, unchanged. `images` leaves this empty."""
    variables: frozenset[str] = frozenset()
    """Names of the environment variables that it sets. `images` leaves this empty."""
    user: str = ""
    """Its USER, unchanged. `images` leaves this empty."""
    entrypoint: tuple[str, ...] = ()
    """Its ENTRYPOINT. `images` leaves this empty."""
    command: tuple[str, ...] = ()
    """Its CMD. `images` leaves this empty."""


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
    """An event of a container: `action` is create, start, die, oom or destroy."""

    id: str
    action: str
    labels: Mapping[str, str]
    exit_code: int | None = None


class Attachment(Protocol):
    """The standard streams of a container, attached before it starts."""

    async def write(self, data: bytes) -> None:
        """Write to stdin; return when the data is accepted. A closed stdin drops it."""

    async def close_stdin(self) -> None:
        """Signal end of input."""

    async def read(self) -> tuple[int, bytes] | None:
        """Return the next piece of output as (1 for stdout | 2 for stderr, data), or None at the end."""

    @property
    def unread(self) -> int:
        """Return the bytes of output that wait here to be read."""

    async def close(self) -> None:
        """Close the streams; safe to call twice."""


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
        """Kill and remove a container with its anonymous volumes. Return when it is gone; absent is fine."""

    async def containers(self, labels: Mapping[str, str]) -> list[ContainerState]:
        """Return the containers, running or not, with all these labels; an empty value matches any value."""

    async def attach(self, container: str, stdin: bool = True, output: bool = True) -> Attachment:
        """Attach to stdin, to stdout and stderr, or to both.

        With both, the end of the output may be missed while a write to stdin waits for a container that has ended.
        """

    async def wait(self, container: str) -> int:
        """Wait until the container has ended and return its exit status."""

    async def logs(self, container: str, limit: int) -> bytes:
        """Return at most the last `limit` bytes of stdout and stderr together."""

    async def archive(self, container: str, path: str, limit: int) -> bytes:
        """Return the first `limit` bytes of a tar of the image's content at a path; links are followed.

        The container need not run. Raises `NotFound` if the path does not exist, and `BadPath`.
        """

    async def resize(self, container: str, memory: int, cpus: float) -> None:
        """Set memory (bytes, swap off) and CPUs of a running container."""

    async def pause(self, container: str) -> None:
        """Stop every process of a running container; harmless if it is paused. A paused one can be removed."""

    async def unpause(self, container: str) -> None:
        """Let a paused container run again; harmless if it runs."""

    def events(self, labels: Mapping[str, str]) -> AsyncIterator[ContainerEvent]:
        """Yield events of containers with these labels from now on; end or raise when the engine goes away."""

    async def image(self, reference: str) -> Image: ...

    async def images(self, labels: Mapping[str, str]) -> list[Image]: ...

    async def build(self, context: bytes, tag: str, labels: Mapping[str, str]) -> Image:
        """Build an image from a tar with a Dockerfile. Raises `EngineError` with the end of the build's output."""

    async def remove_image(self, reference: str) -> None: ...

    async def networks(self, labels: Mapping[str, str]) -> list[Network]: ...

    async def create_network(
        self, name: str, bridge: str, internal: bool, labels: Mapping[str, str]
    ) -> Network:
        """Create a bridge network without traffic between its containers; `internal` allows no way off the host."""

    async def remove_network(self, name: str) -> None: ...

    async def close(self) -> None: ...
