"""Keys that say what a container is given: those of functions and of jobs that bring an image of their own."""

from __future__ import annotations

from typing import Annotated, Literal

from pool.host.uids import OWN_USER
from scheduler.definitions.language import key_types as types
from scheduler.definitions.language.located_model import Keys
from scheduler.definitions.language.units import Size, size_between


class ContainerKeys(Keys):
    """What a container is given of the machine, and what it sees of it."""

    memory: Annotated[Size, size_between("6MiB", "1TiB")] = 128 * 2**20
    """Bytes of an instance; swap is off."""
    cpus: Annotated[float, types.number(0.01, 256)] = 1.0
    cpu_shares: Annotated[int, types.whole(2, 262_144)] | None = None
    """Weight against other containers where all want the processor; None: the engine's default, 1024."""
    env: types.Environment = {}
    network: Literal["none", "egress"] = "none"
    tmp_size: Annotated[Size, size_between("64KiB", "64GiB")] = 64 * 2**20
    """Bytes of the tmpfs on /tmp."""
    writable: types.Writable = {}
    """Further tmpfs mounts: path to bytes."""
    volumes: types.Volumes = ()
    user: types.User = OWN_USER
    """`uid:gid`, `own` for a uid that no other container has, or `image` for the image's own user."""
    sandbox: types.Sandbox | None = None
    """Name of an OCI runtime of the engine."""
    max_response: Annotated[Size, size_between("0B", "1TiB")] = 64 * 2**20
    """Bytes of a response's body."""


SHAPE = ("cpu_shares", "network", "tmp_size", "writable", "volumes", "user", "sandbox")
"""Keys that shape a container for good: they cannot be set when it is specialised."""
