"""Checks of `hearth doctor` for an engine that shares no folders with the gateway."""

from __future__ import annotations

from gateway.assembly.settings import Settings
from gateway.cli.machine.checks import Check, images, live_restore, memory, uids_of_containers, version
from gateway.cli.machine.probe import probe_container
from pool.engine.base import Engine, EngineError, EngineInfo, NotFound
from pool.host.init_program import InitMissing, installed_init
from pool.host.uids import usable_range
from scheduler.deploy.images.runtimes import BASE_IMAGE


async def examine_remote(settings: Settings, engine: Engine, info: EngineInfo) -> list[Check]:
    """Return the results of all checks that a remote engine needs. Raises nothing for a bad result."""
    return [
        version(info),
        Check(
            "remote engine", "ok", "containers are reached over its API; it needs no folder of this machine"
        ),
        live_restore(info),
        *await images(engine),
        init_there(info.architecture),
        await containers(engine, settings, info.user_namespaces),
        Check(
            "egress",
            "warning",
            "not available: the gateway cannot protect another machine from containers",
            "run functions with network: egress on the gateway's own machine",
        ),
        memory(settings.memory_budget, info.memory),
    ]


def init_there(machine: str) -> Check:
    """Check whether there is an init program for the engine's machine. Nothing runs there without it."""
    try:
        installed_init(machine)
    except InitMissing as error:
        step = "run hearth setup, or install a release of Hearth: it has init for every machine"
        return Check("init", "missing", str(error), step, vital=True)
    return Check("init", "ok", f"there is one for {machine}")


async def containers(engine: Engine, settings: Settings, user_namespaces: bool) -> Check:
    """Check whether a container with a uid of its own starts there."""
    uids = usable_range(settings.uids, user_namespaces)
    try:
        async with probe_container(engine, uids.last, None):
            return uids_of_containers(uids, user_namespaces)
    except NotFound:
        found = f"not checked: image {BASE_IMAGE} was not found"
        return Check("containers", "warning", found, "build the images: hearth setup")
    except (EngineError, OSError) as error:
        step = f"read the log of the engine; let containers have the uids {uids} (HEARTH_UIDS)"
        return Check("containers", "missing", str(error), step, vital=True)
