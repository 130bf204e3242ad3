"""A running container's limits and its freezer, by reading and writing its cgroup: well under a millisecond, where
the engine takes 13 and more.

The engine does not hear of it: `inspect` goes on to show the limits that the container was created with, and
a later update through the engine wins. A container that is frozen here is `running` to the engine, which can
remove and kill it all the same, and cannot unpause it. Cgroup v1, v2 and both at once (hybrid), on the engine's
own host."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PERIOD = 100_000
"""Microseconds over which CPU time is counted: the kernel's default, and Docker's."""
FREEZER_V1, FREEZER_V2 = "freezer.state", "cgroup.freeze"
PROCESSES = "cgroup.procs"
"""The file with the ids of a cgroup's processes, in every version. Version 1 may repeat one."""
LEAST_QUOTA = 1_000
"""The kernel takes no smaller one."""


@dataclass(frozen=True, slots=True)
class Cgroup:
    """Where the controllers of one container are. The paths carry the container's id, so once found they stay
    right, whoever gets its pid later."""

    memory: Path
    cpu: Path
    unified: bool
    """Whether these controllers are cgroup v2's."""
    freezer: Path | None = None
    """The file that freezes and thaws it: `freezer.state` (v1) or `cgroup.freeze` (v2)."""

    def freeze(self) -> None:
        """Stop every process of the container, in about 0.2 ms. Raises `OSError`: no freezer, not allowed, gone."""
        self._write_freezer("FROZEN", "1")

    def thaw(self) -> None:
        """Let its processes go on; harmless if they run. Raises `OSError`."""
        self._write_freezer("THAWED", "0")

    def _write_freezer(self, v1: str, v2: str) -> None:
        if self.freezer is None:
            raise FileNotFoundError("the container's cgroup has no freezer")
        _write(self.freezer, v1 if self.freezer.name == FREEZER_V1 else v2)

    def memory_in_use(self) -> int:
        """Bytes that only the end of its processes would free: their own pages and what lies in a tmpfs, without
        the file cache. Raises `OSError`."""
        own = "anon" if self.unified else "rss"
        wanted = (f"{own} ", "shmem ")
        lines = (self.memory / "memory.stat").read_text().splitlines()
        return sum(int(line.partition(" ")[2]) for line in lines if line.startswith(wanted))

    def processes(self) -> int:
        """Return how many processes run in the container, threads not counted.

        Raises `OSError`: gone, or not to be seen from the process namespace that we are in.
        """
        found = set((self.memory / PROCESSES).read_text().split())
        if not found or "0" in found:
            raise ProcessLookupError("the container's processes cannot be seen from here")
        return len(found)

    def resize(self, memory: int, cpus: float) -> None:
        """Set memory (bytes, swap off) and CPUs. Raises `OSError`: not allowed, gone, or (v1) more in use."""
        quota = max(round(cpus * PERIOD), LEAST_QUOTA)
        if self.unified:
            _write(self.memory / "memory.max", memory)
            _write_if_there(self.memory / "memory.swap.max", 0)
            _write(self.cpu / "cpu.max", f"{quota} {PERIOD}")
            return
        only_memory = self.memory / "memory.limit_in_bytes"
        with_swap = self.memory / "memory.memsw.limit_in_bytes"
        # At no moment may memory alone have a higher limit than memory and swap together.
        if with_swap.exists() and memory > int(with_swap.read_text()):
            _write(with_swap, memory)
            _write(only_memory, memory)
        else:
            _write(only_memory, memory)
            _write_if_there(with_swap, memory)
        _write(self.cpu / "cpu.cfs_period_us", PERIOD)
        _write(self.cpu / "cpu.cfs_quota_us", quota)


def find(pid: int, proc: Path = Path("/proc")) -> Cgroup | None:
    """The cgroup of the container in which this process runs.

    None when it cannot be reached from here, or when the process is in the root's or our own cgroup and so in
    no container."""
    try:
        theirs = _memberships((proc / str(pid) / "cgroup").read_text())
        ours = _memberships((proc / "self" / "cgroup").read_text())
        mounts = _mounts(proc / "self" / "mountinfo")
    except OSError:
        return None

    def folder(controller: str) -> Path | None:
        member = theirs.get(controller)
        if controller not in mounts or member is None or member in ("/", ours.get(controller)):
            return None
        root, mount_point = mounts[controller]
        if not member.startswith(root.rstrip("/") + "/"):
            return None
        inside = member.removeprefix(root.rstrip("/")).lstrip("/")
        if not inside or ".." in inside.split("/"):
            return None  # outside of our cgroup namespace
        return mount_point / inside

    memory, cpu, both = folder("memory"), folder("cpu"), folder("")
    freezer = _there(folder("freezer"), FREEZER_V1) or _there(both, FREEZER_V2)
    if memory and cpu:
        return Cgroup(memory, cpu, unified=False, freezer=freezer)
    if both and (both / "memory.max").exists() and (both / "cpu.max").exists():
        return Cgroup(both, both, unified=True, freezer=freezer)
    return None


def of_container(pid: int, container: str) -> Cgroup | None:
    """The cgroup of a container, by the id of one of its processes.

    None when it cannot be reached from here, or when that process has ended and its id is another's by now."""
    found = find(pid) if pid > 0 else None
    return found if found is not None and container in str(found.memory) else None


def _there(folder: Path | None, name: str) -> Path | None:
    file = folder / name if folder else None
    return file if file is not None and file.exists() else None


def available(pid: int) -> bool:
    """Whether `resize` can work for the container of this process."""
    found = find(pid)
    if found is None:
        return False
    limits = ("memory.max", "cpu.max") if found.unified else ("memory.limit_in_bytes", "cpu.cfs_quota_us")
    return os.access(found.memory / limits[0], os.W_OK) and os.access(found.cpu / limits[1], os.W_OK)


def resize(pid: int, memory: int, cpus: float) -> bool:
    """Set memory (bytes, swap off) and CPUs of the container of this process.

    False when that cannot be done from here; then ask the engine, which sets both anew."""
    found = find(pid)
    if found is None:
        return False
    try:
        found.resize(memory, cpus)
    except OSError:
        return False
    return True


def _memberships(text: str) -> dict[str, str]:
    """Controller to path, from a process's `cgroup` file; the empty name is cgroup v2."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


@cache
def _mounts(mountinfo: Path) -> dict[str, tuple[str, Path]]:
    """Controller to (root of the mount within the hierarchy, mount point).

    Read once: a host with many containers has a long list, and the cgroups are mounted when it boots."""
    found: dict[str, tuple[str, Path]] = {}
    for line in mountinfo.read_text().splitlines():
        before, _, after = line.partition(" - ")
        root, mount_point = before.split()[3:5]
        kind, _, options = after.split(maxsplit=2)
        names = [""] if kind == "cgroup2" else options.split(",") if kind == "cgroup" else []
        for name in names:
            found.setdefault(name, (root, Path(mount_point)))
    return found


def _write(file: Path, value: int | str) -> None:
    # One unbuffered write: the kernel takes or refuses it at once.
    handle = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, str(value).encode())
    finally:
        os.close(handle)


def _write_if_there(file: Path, value: int) -> None:
    if file.exists():
        _write(file, value)
