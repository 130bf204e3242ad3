"""What works on this machine and what is missing: the checks of `hearth doctor`.

What matters is tried out, with a container that lives for a moment, rather than concluded from versions.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gateway.assembly.settings import Settings
from pool.engine.base import ContainerSpec, Engine, EngineError, EngineInfo, Mount, NotFound
from pool.host import cgroup, firewall, netns
from pool.host.uids import OWN_USER, UidRange, usable_range, with_uid
from scheduler.definitions.language.units import format_size
from scheduler.deploy.images.runtimes import BASE_IMAGE, REQUIRED_IMAGES, RUNTIMES

State = Literal["ok", "warning", "missing"]

OLDEST_API = (1, 41)
"""The engine API of Docker 20.10."""
LITTLE_SPACE = 2 * 2**30
"""Bytes of free disk below which images may not find room."""
LARGE_SHARE = 0.9
"""Share of the RAM that a memory budget may have before the machine itself runs short."""
PROBE_LABEL = "org.hearth.doctor"
PROBE_COMMAND = ("python3", "-c", "import time; time.sleep(60)")


@dataclass(frozen=True)
class Check:
    """One line of the list."""

    name: str
    state: State
    found: str
    next_step: str = ""
    """What to do; empty if it is ok."""
    vital: bool = False
    """Functions cannot run when it is missing."""


def can_run_functions(checks: list[Check]) -> bool:
    """Whether nothing is missing that every function needs."""
    return not any(check.vital and check.state == "missing" for check in checks)


async def examine(settings: Settings, engine: Engine) -> list[Check]:
    """Every check, in an order in which one explains the next. Never raises for what it finds."""
    checks = [python(), user()]
    try:
        await engine.ping()
        info = await engine.info()
    except EngineError as error:
        return [
            *checks,
            Check(
                "engine",
                "missing",
                str(error),
                "start one: make serve, or systemctl start docker",
                vital=True,
            ),
            disk("disk of the data folder", settings.data_dir),
        ]
    return [
        *checks,
        version(info),
        live_restore(info),
        *await images(engine),
        *await probe(engine, usable_range(settings.uids, info.user_namespaces), info.user_namespaces),
        socket_folders(settings.uids.first, info.user_namespaces),
        await egress(),
        memory(settings.memory_budget, info.memory),
        disk("disk of the engine", Path(info.data_root)),
        disk("disk of the data folder", settings.data_dir),
    ]


def python() -> Check:
    """The interpreter that the gateway runs on; an older one than it needs does not come as far as this."""
    return Check("python", "ok", f"{platform.python_version()} at {sys.executable}")


def user() -> Check:
    """Who the gateway runs as; what depends on it is tried out below."""
    if os.geteuid() == 0:
        return Check("user", "ok", "root")
    return Check(
        "user",
        "warning",
        f"uid {os.geteuid()}",
        "HTTP images without a network, direct limits and network: egress need root (or their capabilities)",
    )


def version(info: EngineInfo) -> Check:
    """The engine's version and its API's."""
    found = f"{info.version}, API {info.api_version}, {info.architecture}, cgroup v{info.cgroup_version}"
    if tuple(map(int, info.api_version.split("."))) < OLDEST_API:
        return Check("engine", "warning", found, "engines older than 20.10 are untested; update it")
    return Check("engine", "ok", found)


def live_restore(info: EngineInfo) -> Check:
    """Whether containers outlive a restart of the engine."""
    if info.live_restore:
        return Check("live-restore", "ok", "containers outlive a restart of the engine")
    return Check(
        "live-restore",
        "warning",
        "a restart of the engine ends every container",
        'put "live-restore": true into /etc/docker/daemon.json and reload the engine (not on a Swarm)',
    )


async def images(engine: Engine) -> list[Check]:
    """The images that `make images` builds. Functions of an image of their own need none of them."""
    absent = []
    for reference in REQUIRED_IMAGES:
        try:
            await engine.image(reference)
        except NotFound:
            absent.append(reference)
        except EngineError as error:
            return [Check("images", "missing", str(error), "see the engine's own log", vital=True)]
    if not absent:
        return [Check("images", "ok", ", ".join(REQUIRED_IMAGES))]
    needed = any(reference in RUNTIMES.values() for reference in absent)
    found = f"not there: {', '.join(absent)}"
    return [Check("images", "missing" if needed else "warning", found, "make images", vital=needed)]


async def probe(engine: Engine, uids: UidRange, user_namespaces: bool) -> list[Check]:
    """What can be done with a container, by one that lives for a moment, with the last of these uids."""
    try:
        async with short_lived(engine, uids.last) as pid:
            return [
                Check("containers", "ok", "one started without a network, and sees a folder of this machine"),
                uids_of_containers(uids, user_namespaces),
                namespaces(netns.can_enter(pid)),
                limits(cgroup.available(pid)),
                freezer(pid),
            ]
    except NotFound:
        tried = Check("containers", "warning", f"not tried: {BASE_IMAGE} is not there", "make images")
    except EngineError as error:
        tried = Check(
            "containers",
            "missing",
            str(error),
            "the engine must run on this machine and see its folders; in a container, mount the data folder at "
            f"the same path; its containers must have the uids {uids} (HEARTH_UIDS)",
            vital=True,
        )
    return [tried, namespaces(netns.permitted())]


@asynccontextmanager
async def short_lived(engine: Engine, uid: int) -> AsyncIterator[int]:
    """The process id of a container like those of functions, with a folder of ours. Raises `EngineError`."""
    with tempfile.TemporaryDirectory(prefix="hearth-doctor-") as folder:
        name = f"hearth-doctor-{uuid.uuid4().hex[:8]}"
        spec = ContainerSpec(
            name=name,
            image=BASE_IMAGE,
            command=PROBE_COMMAND,
            user=OWN_USER,
            labels={PROBE_LABEL: name},
            memory=32 * 2**20,
            mounts=(Mount(folder, "/run/hearth"),),
        )
        try:
            container = await engine.create(with_uid(spec, uid))
            await engine.start(container)
            yield (await engine.inspect(container)).pid
        finally:
            await engine.remove(name)


def uids_of_containers(uids: UidRange, user_namespaces: bool) -> Check:
    """What the kernel counts by uid, when a container with one of these could be started."""
    found = f"each container has one of its own, from {uids}"
    if not user_namespaces:
        return Check("uids", "ok", found)
    return Check(
        "uids",
        "warning",
        f"{found}; but message queues, pending signals and inotify count for all containers together",
        "the kernel counts these for whoever made a user namespace, too: for code that you do not trust, use an "
        "engine without userns-remap",
    )


def socket_folders(uid: int, user_namespaces: bool) -> Check:
    """The right to give an instance's socket folder to the uid of its container."""
    name, problem = "socket folders", "open to every user of this machine who knows the id of an instance"
    if user_namespaces:
        return Check(name, "warning", f"{problem}: the engine maps uids", "let no others use this machine")
    try:
        with tempfile.TemporaryDirectory(prefix="hearth-doctor-") as folder:
            os.chown(folder, uid, -1)
    except OSError as error:
        return Check(name, "warning", f"{problem}: {error.strerror}", "run the gateway as root")
    return Check(name, "ok", "each can be read by its own container alone")


def namespaces(possible: bool) -> Check:
    """Sockets inside a container's network namespace."""
    name = "sockets in namespaces"
    if possible:
        return Check(name, "ok", "HTTP images need no network")
    return Check(
        name,
        "warning",
        "not permitted: HTTP images are refused",
        "run as root on the engine's host (in a container: pid: host, SYS_ADMIN, SYS_PTRACE), or set "
        "HEARTH_ALLOW_NETWORK_FALLBACK=true",
    )


def limits(possible: bool) -> Check:
    """Memory and CPUs of a running container by a write to its cgroup."""
    if possible:
        return Check("direct limits", "ok", "memory and cpus of a container are set without the engine")
    return Check(
        "direct limits",
        "warning",
        "cgroups cannot be written: the engine is asked, which takes some 13 ms a call",
        "run as root with /sys/fs/cgroup writable",
    )


def freezer(pid: int, proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")) -> Check:
    """The freezer of a process's cgroup (v1: a hierarchy of its own, v2: one file)."""
    files = []
    try:
        for line in (proc / str(pid) / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "freezer" in controllers.split(","):
                files.append(root / "freezer" / path.lstrip("/") / "freezer.state")
            elif not controllers:
                files.append(root / path.lstrip("/") / "cgroup.freeze")
    except OSError:
        files = []
    if any(os.access(file, os.W_OK) for file in files):
        return Check("freezer", "ok", "a container is frozen and thawed without the engine")
    return Check(
        "freezer",
        "warning",
        "cgroups cannot be written: freezing goes over the engine, some 16 ms each way",
        "run as root with /sys/fs/cgroup writable",
    )


async def egress() -> Check:
    """The firewall that `network: egress` needs."""
    why = await firewall.why_unavailable()
    if why is None:
        return Check("egress", "ok", "functions with network: egress are kept off this host by rules")
    return Check(
        "egress", "warning", why, "functions with network: egress are refused until this is put right"
    )


def memory(budget: int, ram: int) -> Check:
    """The memory budget beside the engine's RAM."""
    found = f"budget {in_gib(budget)} of {in_gib(ram)} RAM"
    if budget < 2**27:
        step = "HEARTH_MEMORY_BUDGET: give it at least 128MiB, the default of one instance"
        return Check("memory", "missing", found, step, vital=True)
    if budget > LARGE_SHARE * ram:
        step = f"HEARTH_MEMORY_BUDGET={format_size(ram * 3 // 4 // 2**20 * 2**20)} leaves room for the rest"
        return Check("memory", "warning", found, step)
    return Check("memory", "ok", found)


def disk(name: str, folder: Path) -> Check:
    """Free space where a folder is, or is to be."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    found = f"{in_gib(free)} free at {folder}"
    if free < LITTLE_SPACE:
        return Check(name, "warning", found, f"make room: images and logs want {in_gib(LITTLE_SPACE)}")
    return Check(name, "ok", found)


def in_gib(size: int) -> str:
    """Bytes in GiB, to a tenth."""
    return f"{size / 2**30:.1f} GiB"
