"""Checks of `hearth doctor`: does this machine have what a gateway needs?

They try things out with a short-lived container, and do not conclude from versions.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gateway.assembly.settings import Settings
from gateway.cli.machine.probe import nearest, own_container, probe_container
from gateway.setup.images import recipes
from pool.engine.base import Engine, EngineError, EngineInfo, NotFound
from pool.host import cgroup, firewall, netns
from pool.host.init_program import INSTALLED, InitMissing, installed_init
from pool.host.uids import UidRange, usable_range
from scheduler.definitions.language.units import format_size
from scheduler.deploy.images.runtimes import BASE_IMAGE, RUNTIMES

CheckState = Literal["ok", "warning", "missing"]

RemoteChecks = Callable[[Settings, Engine, EngineInfo], Awaitable[list["Check"]]]

OLDEST_TESTED_API = (1, 41)
"""Engine API of Docker 20.10, the oldest engine that our tests run on."""
MIN_FREE_BYTES = 2 * 2**30
"""Free disk space below which we warn: some images have more than a GiB."""
MAX_BUDGET_SHARE = 0.9
"""Share of the RAM above which a memory budget leaves too little for the engine and the gateway."""
DATA_FOLDER = "data folder"
SAME_PATH = (
    "bind the folder at the same path inside and outside, as -v {folder}:{folder} does "
    "(compose.yaml: HEARTH_DATA_DIR), or run hearth on the engine's machine"
)


@dataclass(frozen=True)
class Check:
    """Result of one check."""

    name: str
    state: CheckState
    found: str
    next_step: str = ""
    """Advice for the user, empty if the state is ok."""
    vital: bool = False
    """True if functions cannot run without it."""


def can_run_functions(checks: list[Check]) -> bool:
    """Return whether everything is there that all functions need."""
    return not any(check.vital and check.state == "missing" for check in checks)


async def examine(settings: Settings, engine: Engine, remote: RemoteChecks | None = None) -> list[Check]:
    """Return the results of all checks, in an order in which one explains the next.

    `remote` makes those of an engine that shares no folders with us. Raises nothing for a bad result.
    """
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
                "start an engine: hearth setup, or systemctl start docker",
                vital=True,
            ),
            disk("disk of the data folder", settings.data_dir),
        ]
    if remote is not None:
        there = await remote(settings, engine, info)
        return [*checks, *there, disk("disk of the data folder", settings.data_dir)]
    return [
        *checks,
        version(info),
        live_restore(info),
        *await images(engine),
        init(),
        *await probe(engine, settings, info.user_namespaces),
        socket_folders(settings.uids.first, info.user_namespaces),
        await egress(),
        memory(settings.memory_budget, info.memory),
        disk("disk of the engine", Path(info.data_root)),
        disk("disk of the data folder", settings.data_dir),
    ]


def python() -> Check:
    """Return version and path of the interpreter. A version too old to run the gateway never gets this far."""
    return Check("python", "ok", f"{platform.python_version()} at {sys.executable}")


def user() -> Check:
    """Check whether we are root. Other checks try out the rights themselves."""
    if os.geteuid() == 0:
        return Check("user", "ok", "root")
    return Check(
        "user",
        "warning",
        f"uid {os.geteuid()}",
        "run as root for HTTP images without a network, direct limits and network: egress",
    )


def version(info: EngineInfo) -> Check:
    """Check the version of the engine and of its API."""
    found = f"{info.version}, API {info.api_version}, {info.architecture}, cgroup v{info.cgroup_version}"
    if tuple(map(int, info.api_version.split("."))) < OLDEST_TESTED_API:
        return Check("engine", "warning", found, "update it; versions before 20.10 are not tested")
    return Check("engine", "ok", found)


def live_restore(info: EngineInfo) -> Check:
    """Check whether containers survive a restart of the engine."""
    if info.live_restore:
        return Check("live-restore", "ok", "containers survive a restart of the engine")
    return Check(
        "live-restore",
        "warning",
        "a restart of the engine ends every container",
        'add "live-restore": true to /etc/docker/daemon.json and reload the engine (not on a Swarm)',
    )


async def images(engine: Engine) -> list[Check]:
    """Check for the images that `hearth setup` builds. Functions with their own image need none of them."""
    absent, wanted = [], [recipe.tag for recipe in recipes()]
    for reference in wanted:
        try:
            await engine.image(reference)
        except NotFound:
            absent.append(reference)
        except EngineError as error:
            return [Check("images", "missing", str(error), "read the log of the engine", vital=True)]
    if not absent:
        return [Check("images", "ok", ", ".join(wanted))]
    needed = any(reference in RUNTIMES.values() for reference in absent)
    found = f"not found: {', '.join(absent)}"
    return [
        Check("images", "missing" if needed else "warning", found, "build them: hearth setup", vital=needed)
    ]


def init(installed: Path = INSTALLED) -> Check:
    """Check whether there is an init program for this machine. Handlers run without it."""
    try:
        program = installed_init(installed=installed)
    except InitMissing as error:
        return Check("init", "warning", str(error), "build it: hearth setup")
    return Check("init", "ok", f"{program.stat().st_size / 1000:.0f} kB for {platform.machine()}")


async def probe(engine: Engine, settings: Settings, user_namespaces: bool) -> list[Check]:
    """Start a short-lived container with the last of the uids, and check the operations that need one."""
    uids = usable_range(settings.uids, user_namespaces)
    folder: Path | None = settings.data_dir.resolve()
    checks: list[Check] = []
    try:
        try:
            return await look(engine, uids, user_namespaces, folder)
        except OSError as error:
            checks = [unwritable(settings.data_dir, error)]
        except NotFound:
            raise
        except EngineError as error:
            checks = [elsewhere(settings.data_dir.resolve(), why(settings.data_dir.resolve(), error))]
        # Without the folder: if the container starts now, only the folder was at fault.
        return [*checks, *await look(engine, uids, user_namespaces, None)]
    except NotFound:
        tried = Check(
            "containers",
            "warning",
            f"not checked: image {BASE_IMAGE} was not found",
            "build the images: hearth setup",
        )
    except EngineError as error:
        tried = Check(
            "containers",
            "missing",
            str(error),
            f"read the log of the engine; let containers have the uids {uids} (HEARTH_UIDS)",
            vital=True,
        )
    return [tried, namespaces(netns.permitted())]


async def look(engine: Engine, uids: UidRange, user_namespaces: bool, folder: Path | None) -> list[Check]:
    """Return the checks of a container that runs. Raises `EngineError`, and OSError for the folder."""
    async with probe_container(engine, uids.last, folder) as found:
        return [
            *([] if folder is None else [shared(folder, found.sees_marker)]),
            Check("containers", "ok", "one started without a network"),
            uids_of_containers(uids, user_namespaces),
            namespaces(netns.can_enter(found.pid)),
            limits(cgroup.available(found.pid)),
            freezer(found.pid),
        ]


def shared(folder: Path, seen: bool) -> Check:
    """Return the result for the data folder: is it the same folder for the engine, which mounts parts of it?"""
    if seen:
        return Check(DATA_FOLDER, "ok", f"the engine mounts {folder} as we see it")
    return elsewhere(folder, f"{folder} is another folder on the engine's machine")


def elsewhere(folder: Path, found: str) -> Check:
    """Return the fault of a data folder that the engine does not have. Handlers are reached over sockets in it."""
    return Check(DATA_FOLDER, "missing", found, SAME_PATH.format(folder=folder), vital=True)


def why(folder: Path, error: EngineError) -> str:
    """Return why no container could start with a part of the folder."""
    if "does not exist" in str(error):
        return f"the engine's machine has no folder {folder}"
    return str(error)


def unwritable(folder: Path, error: OSError) -> Check:
    """Return the fault of a data folder that we cannot write to."""
    found = f"cannot write to {nearest(folder)}: {error.strerror}"
    return Check(DATA_FOLDER, "missing", found, "choose another folder with --data-dir", vital=True)


async def why_not_shared(engine: Engine, settings: Settings) -> str | None:
    """Return what is wrong with the data folder of a gateway in a container of this engine, or None.

    Elsewhere nothing is tried: on the engine's own machine a path is the same for both. Raises `EngineError`.
    """
    container = own_container()
    if container is None:
        return None
    try:
        await engine.inspect(container)
        checks = await probe(engine, settings, (await engine.info()).user_namespaces)
    except NotFound:
        return None
    faults = (check for check in checks if check.name == DATA_FOLDER and check.state == "missing")
    return next((f"{check.found}; {check.next_step}" for check in faults), None)


def uids_of_containers(uids: UidRange, user_namespaces: bool) -> Check:
    """Check whether the kernel's limits by uid separate containers, given that one with such a uid could start."""
    found = f"each container has its own uid from {uids}"
    if not user_namespaces:
        return Check("uids", "ok", found)
    return Check(
        "uids",
        "warning",
        f"{found}, but containers share the limits of message queues, pending signals and inotify",
        "use an engine without userns-remap for untrusted code: with it, the kernel also counts these for the "
        "creator of the user namespace",
    )


def socket_folders(uid: int, user_namespaces: bool) -> Check:
    """Check whether we may give an instance's socket folder to the uid of its container."""
    name, problem = "socket folders", "open to every user of this machine who knows the id of an instance"
    if user_namespaces:
        return Check(name, "warning", f"{problem}: the engine maps uids", "keep other users off this machine")
    try:
        with tempfile.TemporaryDirectory(prefix="hearth-doctor-") as folder:
            os.chown(folder, uid, -1)
    except OSError as error:
        return Check(name, "warning", f"{problem}: {error.strerror}", "run the gateway as root")
    return Check(name, "ok", "only its own container can read each")


def namespaces(possible: bool) -> Check:
    """Return the result for sockets inside a container's network namespace."""
    name = "sockets in namespaces"
    if possible:
        return Check(name, "ok", "calls go straight to the servers of HTTP images")
    return Check(
        name,
        "warning",
        "not permitted: calls of HTTP images go through init in their containers, which takes longer",
        "nothing, if that is fast enough; else run as root on the engine's host (in a container: pid: host, "
        "SYS_ADMIN, SYS_PTRACE)",
    )


def limits(possible: bool) -> Check:
    """Return the result for setting memory and CPUs of a running container in its cgroup."""
    if possible:
        return Check("direct limits", "ok", "hearth sets memory and cpus of a container without the engine")
    return Check(
        "direct limits",
        "warning",
        "cannot write to cgroups, so the engine sets limits, which takes some 13 ms each time",
        "run as root with /sys/fs/cgroup writable",
    )


def freezer(pid: int, proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")) -> Check:
    """Check whether we can freeze the cgroup of a process (v1: in a separate hierarchy, v2: by one file)."""
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
        return Check("freezer", "ok", "hearth freezes and thaws a container without the engine")
    return Check(
        "freezer",
        "warning",
        "cannot write to cgroups, so the engine freezes and thaws, which takes some 16 ms each time",
        "run as root with /sys/fs/cgroup writable",
    )


async def egress() -> Check:
    """Check the firewall that `network: egress` needs."""
    reason = await firewall.why_unavailable()
    if reason is None:
        return Check("egress", "ok", "firewall rules keep functions with network: egress off this host")
    return Check(
        "egress", "warning", reason, "fix this to use network: egress; until then such functions are refused"
    )


def memory(budget: int, ram: int) -> Check:
    """Check the memory budget against the engine's RAM."""
    found = f"budget {in_gib(budget)} of {in_gib(ram)} RAM"
    if budget < 2**27:
        step = "set HEARTH_MEMORY_BUDGET to at least 128MiB, the default of one instance"
        return Check("memory", "missing", found, step, vital=True)
    if budget > MAX_BUDGET_SHARE * ram:
        size = format_size(ram * 3 // 4 // 2**20 * 2**20)
        step = f"set HEARTH_MEMORY_BUDGET={size}, which leaves memory for the rest of the machine"
        return Check("memory", "warning", found, step)
    return Check("memory", "ok", found)


def disk(name: str, folder: Path) -> Check:
    """Check the free space for a folder, which need not exist yet."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    found = f"{in_gib(free)} free at {folder}"
    if free < MIN_FREE_BYTES:
        return Check(
            name, "warning", found, f"free some space: images and logs need {in_gib(MIN_FREE_BYTES)}"
        )
    return Check(name, "ok", found)


def in_gib(size: int) -> str:
    """Return a number of bytes in GiB, to a tenth."""
    return f"{size / 2**30:.1f} GiB"
