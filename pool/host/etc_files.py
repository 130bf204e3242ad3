"""Files of ours in `/etc` of containers, mounted read-only in place of the image's.

`hosts` is for containers without a network: `localhost`, and the container's own names. The engine writes it only for
containers with a network. `passwd` is for containers whose user the image does not know.

We keep the files as long as the container: from a stopped container whose mounts are gone, the engine reads nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pool.engine.base import ContainerSpec, Mount

ETC, HOSTS, PASSWD = "/etc", "/etc/hosts", "/etc/passwd"
IPV6 = Path("/proc/net/if_inet6")
"""Exists if the kernel speaks IPv6."""


def hosts_text(names: Sequence[str], ipv6: bool) -> str:
    """Return the content of `/etc/hosts` of a container that goes by these names."""
    lines = [f"127.0.0.1\tlocalhost {' '.join(names)}"]
    if ipv6:
        lines.append(f"::1\tlocalhost ip6-localhost ip6-loopback {' '.join(names)}")
    return "".join(f"{line}\n" for line in lines)


def contents(spec: ContainerSpec, names: Sequence[str], ipv6: bool) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of each file that a container gets. What is mounted there already wins."""
    mounted = {mount.target for mount in spec.mounts}
    if spec.network is None and mounted.isdisjoint((ETC, HOSTS)):
        yield HOSTS, hosts_text(names, ipv6).encode()
    if spec.passwd is not None and mounted.isdisjoint((ETC, PASSWD)):
        yield PASSWD, spec.passwd


class EtcFiles:
    """Files of one gateway's containers, each named for the id of its instance and for what it is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def mounts(self, id: str, spec: ContainerSpec) -> tuple[Mount, ...]:
        """Write the files of an instance, and return their mounts. Raises OSError."""
        found = list(contents(spec, (id, spec.name), IPV6.exists()))
        if found:
            self._folder.mkdir(parents=True, exist_ok=True)
        return tuple(self._mount(id, target, content) for target, content in found)

    def _mount(self, id: str, target: str, content: bytes) -> Mount:
        file = self._folder / f"{id}.{Path(target).name}"
        file.write_bytes(content)
        file.chmod(0o644)  # every user of the container must read it, and our umask may forbid that
        return Mount(str(file.resolve()), target)

    def drop(self, id: str) -> None:
        """Remove the files of an instance. If that fails, the next start of the gateway tries again."""
        for target in (HOSTS, PASSWD):
            with contextlib.suppress(OSError):
                (self._folder / f"{id}.{Path(target).name}").unlink()

    def drop_all_but(self, ids: Collection[str]) -> None:
        """Remove the files of all other instances."""
        if self._folder.is_dir():
            for id in {file.stem for file in self._folder.iterdir()} - set(ids):
                self.drop(id)
