"""The engine's verbs as contracts use them: create, start and watch the container of one instance."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from pool.clock import Clock
from pool.contracts.init_place import with_init
from pool.contracts.missing_rights import missing_right
from pool.contracts.obituary import ended_words
from pool.contracts.remote_init import RemoteInit
from pool.engine.base import ContainerSpec, ContainerState, Engine, EngineDown, EngineError, Mount
from pool.engine.creation import create_surely
from pool.engine.labels import GATEWAY_LABEL, INSTANCE_LABEL, container_name
from pool.errors import FunctionBroken, StartFailed
from pool.host import cgroup
from pool.host.egress import Egress
from pool.host.etc_files import EtcFiles
from pool.host.kept_calls import KeptCalls
from pool.host.uids import with_uid
from pool.instance import Instance
from pool.transport.slots import SlotLink
from pool.transport.socket_folder import SocketFolder
from pool.transport.way import Way

NO_EGRESS_THERE = (
    "network: egress is not available on a remote engine, whose machine the gateway cannot protect; "
    "run such functions on the gateway's own machine"
)
LAST_WORDS_BYTES = 2000
"""Bounds the output of a container that is quoted in an error: some twenty lines."""


@dataclass(frozen=True, slots=True)
class LaunchSettings:
    """Settings of launches: for which gateway, in which folders, how fast."""

    gateway_id: str
    run_folder: Path
    """Holds a folder with sockets for each instance."""
    etc_folder: Path
    start_timeout: float = 60.0
    """Seconds from the start of a container until its program is ready."""
    code_size: int = 64 * 2**20
    """Bytes of the tmpfs for a handler's code."""


@dataclass(frozen=True, slots=True)
class InstanceReports:
    """Callbacks that are told what happens to an instance."""

    on_slots: Callable[[Instance], None]
    """Takes an instance whose slots have changed."""
    on_output: Callable[[Instance, bytes], None]
    """Takes what an instance has printed."""
    on_running: Callable[[Instance], None] = lambda instance: None
    """Takes an instance whose container has just started."""
    printed: Callable[[Instance], bytes] = lambda instance: b""
    """Returns what an instance has printed outside of calls, as far as it is kept."""


class Starter:
    """Starts containers for instances and watches how that goes. Contracts launch and reconnect with it."""

    def __init__(
        self, engine: Engine, clock: Clock, settings: LaunchSettings, egress: Egress, reports: InstanceReports
    ) -> None:
        self.engine = engine
        self.clock = clock
        self.settings = settings
        self.egress = egress
        self.reports = reports
        self.etc = EtcFiles(settings.etc_folder)
        self.kept_calls = KeptCalls(settings.run_folder)
        self.maps_uids = False
        """True if the engine has user namespaces. Files of this host then cannot be given to a container's uid."""
        self.init: Mount | None = None
        """Mount of the folder with the init program, or None until there is one."""
        self.remote: RemoteInit | None = None
        """Ways to containers of an engine that shares no folders with the gateway, or None if it shares them."""

    async def spec_of(self, instance: Instance, prototype: ContainerSpec) -> ContainerSpec:
        """Return what an instance's container is made from: named, labelled, with its uid, network and files.

        Raises `StartFailed` without a free uid or a safe network, `EngineError`, and OSError.
        """
        labels = {**prototype.labels, GATEWAY_LABEL: self.settings.gateway_id, INSTANCE_LABEL: instance.id}
        name = container_name(instance.id)
        spec = with_uid(replace(prototype, name=name, hostname=instance.id, labels=labels), instance.uid)
        workload = instance.workload
        if workload is not None and workload.egress:
            if self.remote is not None:
                raise StartFailed(NO_EGRESS_THERE)
            spec = replace(spec, network=await self.egress.ensure())
        if self.remote is None:  # else the engine has none of our files
            spec = replace(spec, mounts=(*spec.mounts, *self.etc.mounts(instance.id, spec)))
        return spec

    async def start(self, instance: Instance, prototype: ContainerSpec) -> None:
        """Create and start an instance's container. Sets `container`. Raises as `spec_of` does."""
        spec = await self.spec_of(instance, prototype)
        container = await create_surely(self.engine, spec, self.container_setter(instance))
        await self.engine.start(container)
        self.reports.on_running(instance)

    async def start_with(self, way: Way, instance: Instance, prototype: ContainerSpec) -> None:
        """Create and start an instance's container, which has an open way to us. As `start`; raises as `Way` does."""
        await self.start(instance, way.container(prototype))
        await way.started(cast(str, instance.container))

    async def start_slots(self, instance: Instance, prototype: ContainerSpec, link: SlotLink) -> None:
        """Listen, start an instance's container, and wait until it has dialled for every slot.

        Sets `link`, `container` and `cgroup`. Raises as `start_with` and `unless_it_ends` do.
        """
        instance.link = link
        await link.open()
        await self.start_with(link.way, instance, prototype)
        await self.unless_it_ends(instance, link.connected())
        instance.cgroup = cgroup.of_container(link.peer, cast(str, instance.container))

    @staticmethod
    async def reopen_slots(instance: Instance, link: SlotLink) -> None:
        """Listen again, and wait until a running container has dialled for every slot: none is in an earlier call.

        Sets `link` and `cgroup`. Raises as `SlotLink.reopen` does.
        """
        container = cast(str, instance.container)
        instance.link = link
        await link.reopen(container)
        await link.connected()
        if instance.cgroup is None:
            instance.cgroup = cgroup.of_container(link.peer, container)

    def way_of(self, instance: Instance) -> Way:
        """Return a new way for an instance's container."""
        if self.remote is not None:
            return self.remote.way(instance.id, instance.image)
        owner = None if self.maps_uids else user_of(instance)
        return SocketFolder(self.settings.run_folder / instance.id, self.clock, owner)

    def with_init(self, spec: ContainerSpec, *flags: str) -> ContainerSpec:
        """Return a container whose first process is init. Raises `StartFailed` without init, and `NotRunnable`."""
        init = self.init if self.remote is None else self.remote.place
        if init is None:
            raise StartFailed("the init program is missing; run `hearth setup`")
        return with_init(spec, init, flags)

    @staticmethod
    def container_setter(instance: Instance) -> Callable[[str], None]:
        """Return what sets `container` of an instance."""

        def set_container(container: str) -> None:
            instance.container = container

        return set_container

    def sink_of(self, instance: Instance) -> Callable[[bytes], None]:
        """Return what takes the output of an instance."""
        on_output = self.reports.on_output
        return lambda data: on_output(instance, data)

    async def state_of(self, instance: Instance) -> ContainerState:
        """Return what the engine says of a running instance. Raises `FunctionBroken` if it has ended."""
        state = await self.engine.inspect(cast(str, instance.container))
        if not state.running:
            raise await self.end_of(instance, self.engine.wait(state.id))
        return state

    async def unless_it_ends(self, instance: Instance, ready: Awaitable[None]) -> None:
        """Wait until `ready` is done, for `start_timeout` at most. The time that the engine takes does not count.

        Raises `FunctionBroken` if the container ends first or the time is over, and what `ready` raises.
        """
        waiting = asyncio.ensure_future(ready)
        dying = asyncio.ensure_future(self.engine.wait(cast(str, instance.container)))
        try:
            timeout = self.settings.start_timeout
            with contextlib.suppress(TimeoutError):
                async with self.clock.timeout(timeout):
                    await asyncio.wait((waiting, dying), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                waiting.result()
                return
            if not dying.done():
                awaits = f": {instance.awaits}" if instance.awaits else ""
                words = await self.last_words(instance)
                raise FunctionBroken(f"not ready within {timeout:g} s (HEARTH_START_TIMEOUT){awaits}{words}")
            raise await self.end_of(instance, dying)
        finally:
            for task in (waiting, dying):
                task.cancel()
            await asyncio.gather(waiting, dying, return_exceptions=True)

    async def end_of(self, instance: Instance, wait: Awaitable[int]) -> FunctionBroken:
        """Return how an instance ended that was starting. `wait` returns its exit status.

        Raises `StartFailed` if the engine does not know.
        """
        try:
            status = await wait
        except EngineError as error:
            raise start_failed("the engine lost the instance while it was starting", error) from error
        ended = await ended_words(self.engine, self.clock, instance, status)
        return FunctionBroken(f"{ended} before it was ready{await self.last_words(instance)}")

    async def last_words(self, instance: Instance) -> str:
        """Return the end of an instance's output as part of an error, or an empty string if there is none.

        What the output tells about a missing right comes first, with what to do.
        """
        text = await self.printed(instance)
        return f"{missing_right(text, instance)}; it printed: {text}" if text else ""

    async def printed(self, instance: Instance) -> str:
        """Return the end of an instance's output."""
        output = b""
        if instance.container is not None:
            with contextlib.suppress(EngineError):
                output = await self.engine.logs(instance.container, LAST_WORDS_BYTES)
        if instance.link is not None:
            instance.link.drain_log()
        output = (output + self.reports.printed(instance))[-LAST_WORDS_BYTES:]
        return output.decode(errors="replace").strip()


def user_of(instance: Instance) -> int | None:
    """Return the uid that an instance's container runs as, or None if only the image knows it.

    It is None also for one that was adopted from a gateway that gave all containers the same uid.
    """
    if instance.uid is not None or instance.workload is None:
        return instance.uid
    uid = (instance.workload.container.user or "").partition(":")[0]
    return int(uid) if uid.isdecimal() else None


def start_failed(action: str, error: EngineError) -> StartFailed:
    """Return an engine's error as one of a start."""
    failed = StartFailed(f"{action}: {error}")
    failed.engine_down = isinstance(error, EngineDown)
    return failed
