"""Files `/etc/hosts` of containers without a network: `localhost`, and the container's own names.

The engine writes `/etc/hosts` only for containers with a network. The others get a file of ours, mounted read-only.
We keep it as long as the container: the engine cannot read files from a stopped container whose mounts are gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from pathlib import Path

from pool.engine.base import ContainerSpec, Mount

HOSTS = "/etc/hosts"
IPV6 = Path("/proc/net/if_inet6")
"""Exists if the kernel speaks IPv6."""


def hosts_text(names: Sequence[str], ipv6: bool) -> str:
    """Return the content of `/etc/hosts` of a container that goes by these names."""
    lines = [f"127.0.0.1\tlocalhost {' '.join(names)}"]
    if ipv6:
        lines.append(f"::1\tlocalhost ip6-localhost ip6-loopback {' '.join(names)}")
    return "".join(f"{line}\n" for line in lines)


def wants_hosts(spec: ContainerSpec) -> bool:
    """Return whether a container gets our file: it has no network, and nothing of its own is mounted there."""
    return spec.network is None and not any(mount.target in ("/etc", HOSTS) for mount in spec.mounts)


class HostsFiles:
    """Hosts files of one gateway, each named for the id of its instance."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def mount(self, id: str, names: Sequence[str]) -> Mount:
        """Write the file of an instance that goes by these names, and return its mount. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / id
        file.write_text(hosts_text(names, IPV6.exists()))
        file.chmod(0o644)  # every user of the container must read it, and our umask may forbid that
        return Mount(str(file.resolve()), HOSTS)

    def drop(self, id: str) -> None:
        """Remove the file of an instance. If that fails, the next start of the gateway tries again."""
        with contextlib.suppress(OSError):
            (self._folder / id).unlink()

    def drop_all_but(self, ids: Collection[str]) -> None:
        """Remove the files of all other instances."""
        if self._folder.is_dir():
            for file in self._folder.iterdir():
                if file.name not in ids:
                    self.drop(file.name)
