"""Keys for a container: functions have them, and jobs that run an image."""

from __future__ import annotations

from typing import Annotated, Literal

from pool.host.uids import OWN_USER
from scheduler.definitions.language import key_types as types
from scheduler.definitions.language.capabilities import Capabilities
from scheduler.definitions.language.located_model import Keys
from scheduler.definitions.language.units import Size, size_between


class ContainerKeys(Keys):
    """The share of the machine that a container gets, and the parts of the host that it sees."""

    memory: Annotated[Size, size_between("6MiB", "1TiB")] = 128 * 2**20
    """Memory of an instance, bytes; swap is off."""
    cpus: Annotated[float, types.number(0.01, 256)] = 1.0
    cpu_shares: Annotated[int, types.whole(2, 262_144)] | None = None
    """Weight against other containers when all want the processor; None takes the engine's default, 1024."""
    pids: Annotated[int, types.whole(16, 32_768)] = 128
    """Processes and threads at once."""
    nofile: Annotated[int, types.whole(64, 1_048_576)] = 1024
    """Open files of one process."""
    env: types.Environment = {}
    network: Literal["none", "egress"] = "none"
    tmp_size: Annotated[Size, size_between("64KiB", "64GiB")] = 64 * 2**20
    """Size of the tmpfs on /tmp, bytes."""
    shm_size: Annotated[Size, size_between("64KiB", "64GiB")] = 64 * 2**20
    """Size of the tmpfs on /dev/shm, bytes."""
    writable: types.Writable = {}
    """Further tmpfs mounts: sizes in bytes, by path."""
    volumes: types.Volumes = ()
    user: types.User = OWN_USER
    """`uid:gid`, `own` for a uid that no other container has, or `image` for the image's own user."""
    capabilities: Capabilities = ()
    """Capabilities of an image's root. All others are dropped."""
    sandbox: types.Sandbox | None = None
    """Name of an OCI runtime of the engine."""
    max_response: Annotated[Size, size_between("0B", "1TiB")] = 64 * 2**20
    """Largest body of a response, bytes."""


FIXED_AT_CREATION = (
    *("cpu_shares", "pids", "nofile", "network", "tmp_size", "shm_size", "writable", "volumes", "user"),
    *("capabilities", "sandbox"),
)
"""Keys that take effect when a container is created. A prewarmed one cannot be given them later."""
