"""Turns a reserved instance into a running one, and a running one into nothing: all engine work of the pool.

Mechanism only: what to start or destroy is decided above.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from pool.adoption.reconnect import Reconnection
from pool.clock import Clock
from pool.engine.base import (
    ContainerSpec,
    ContainerState,
    Engine,
    EngineDown,
    EngineError,
    Mount,
    NotRunnable,
)
from pool.errors import FunctionBroken, NotSent, PoolError, StartFailed
from pool.host import cgroup
from pool.host.egress import Egress
from pool.host.hosts_files import HostsFiles, wants_hosts
from pool.host.uids import with_uid
from pool.instance import Instance
from pool.transport.command import CommandLink, create_surely
from pool.transport.handler import HandlerLink
from pool.transport.http import HttpLink
from pool.transport.message import Call, read_report
from pool.transport.server import Server
from pool.workload import Keep, Kind, Order, Workload

GATEWAY_LABEL = "org.hearth.gateway"
INSTANCE_LABEL = "org.hearth.instance"
KEPT_LABEL = "org.hearth.kept-for"
"""Of containers that may stay when they have ended: the function that they are of."""
LOOK_LABEL = "org.hearth.look"
"""Label of containers that are only created to look into their image. They are no instance's."""
SOCKETS = "/run/hearth"
CODE = "/function"
OBITUARY_WAIT = 1.0
"""Seconds that the engine gets to notice that a container has ended."""


@dataclass(frozen=True, slots=True)
class LaunchSettings:
    """How instances are launched: whose they are, where sockets and hosts files lie, how long a start may
    take (seconds)."""

    gateway_id: str
    run_folder: Path
    hosts_folder: Path
    start_timeout: float = 60.0
    parallel_starts: int = 2
    network_fallback: bool = False
    code_size: int = 64 * 2**20


class Launcher:
    """Starts, specialises and destroys the containers behind instances."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        settings: LaunchSettings,
        egress: Egress,
        on_slots: Callable[[Instance], None],
        on_output: Callable[[Instance, bytes], None],
        on_running: Callable[[Instance], None] = lambda instance: None,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._settings = settings
        self._hosts = HostsFiles(settings.hosts_folder)
        self._egress = egress
        self._on_slots = on_slots
        self._on_output = on_output
        self._on_running = on_running
        self._command_starts = asyncio.Semaphore(settings.parallel_starts)
        self._reconnection = Reconnection(
            engine, clock, egress, settings.network_fallback, self._handler_link
        )
        self.maps_uids = False
        """Whether the engine has user namespaces: files of this machine cannot be given to a container's uid."""

    async def launch(self, instance: Instance, prototype: ContainerSpec) -> None:
        """Create and start the container of an instance and wait until it can be reached.

        Sets `container`, `cgroup` and `link` as soon as they are known. Raises `StartFailed` (platform) or
        `FunctionBroken` (the image does not start or does not serve).
        """
        if (
            not self._settings.run_folder.parent.is_dir()
        ):  # made anew it would be in the way of the one that comes back
            raise StartFailed("the data folder was deleted or moved; move it back, or restart the gateway")
        try:
            kind = instance.workload.kind if instance.workload else Kind.HANDLER
            await {
                Kind.HANDLER: self._launch_handler,
                Kind.HTTP: self._launch_server,
                Kind.COMMAND: self._prepare_command,
            }[kind](instance, prototype)
        except OSError as error:
            raise StartFailed(f"the instance's folders could not be made: {error}") from error
        except NotRunnable as error:
            raise FunctionBroken(f"the image does not start: {error}") from error
        except EngineError as error:
            raise start_failed("the engine could not start the instance", error) from error

    def _handler_link(self, instance: Instance) -> HandlerLink:
        return HandlerLink(
            self._settings.run_folder / instance.id,
            self._clock,
            on_change=lambda: self._on_slots(instance),
            sink=lambda data: self._on_output(instance, data),
            owner=None if self.maps_uids else user_of(instance),
        )

    async def _launch_handler(self, instance: Instance, prototype: ContainerSpec) -> None:
        link = instance.link = self._handler_link(instance)
        await link.open()
        spec = replace(
            prototype,
            mounts=(*prototype.mounts, Mount(str(link.folder.resolve()), SOCKETS)),
            writable=(*prototype.writable, (CODE, self._settings.code_size)),
        )
        await self._run(instance, spec)
        await self._unless_it_dies(instance, link.connected())
        instance.cgroup = cgroup.of_container(link.peer, cast(str, instance.container))

    async def _launch_server(self, instance: Instance, prototype: ContainerSpec) -> None:
        workload = cast(Workload, instance.workload)
        spec = replace(prototype, env={**prototype.env, "PORT": str(workload.port)})
        await self._run(instance, spec)
        state = await self._engine.inspect(cast(str, instance.container))
        if not state.running:
            raise FunctionBroken(f"the image ended at once{await self._last_words(instance)}")
        instance.cgroup = cgroup.of_container(state.pid, state.id)
        try:
            fallback = self._settings.network_fallback or workload.egress
            server = Server(state, workload.port, fallback, self._clock)
        except (OSError, StartFailed):
            with contextlib.suppress(EngineError, TimeoutError):  # the engine may learn of an end after we do
                async with self._clock.timeout(OBITUARY_WAIT):
                    status = await self._engine.wait(cast(str, instance.container))
                words = await self._last_words(instance)
                raise FunctionBroken(f"the image ended at once, with exit status {status}{words}") from None
            raise
        instance.link = HttpLink(server.dial, workload.concurrency, self._clock, server.close)
        again = await self._engine.inspect(state.id)
        if (
            not again.running or again.pid != state.pid
        ):  # else the namespace could be of who got its pid since
            raise FunctionBroken(f"the image ended at once{await self._last_words(instance)}")
        await self._unless_it_dies(instance, server.ready(workload.health))

    async def _prepare_command(self, instance: Instance, prototype: ContainerSpec) -> None:
        workload = cast(Workload, instance.workload)
        spec = replace(self._named(instance, prototype), stdin=True, keep_output=False)
        if workload.keep is not Keep.NONE:
            spec = replace(spec, labels={**spec.labels, KEPT_LABEL: workload.function})
        if workload.egress:
            spec = replace(spec, network=await self._egress.ensure())
        spec = self._with_hosts(instance, spec)

        def created(container: str) -> None:
            instance.container = container

        link = CommandLink(self._engine, spec, self._command_starts, created, workload.max_response)
        link.log = lambda data: self._on_output(instance, data)
        instance.link = link

    def _named(self, instance: Instance, prototype: ContainerSpec) -> ContainerSpec:
        labels = {GATEWAY_LABEL: self._settings.gateway_id, INSTANCE_LABEL: instance.id}
        name = container_name(instance.id)
        named = replace(prototype, name=name, hostname=instance.id, labels=labels)
        return with_uid(named, instance.uid)

    def _with_hosts(self, instance: Instance, spec: ContainerSpec) -> ContainerSpec:
        """Let a container without a network know `localhost` and its own name. Raises OSError."""
        if not wants_hosts(spec):
            return spec
        mount = self._hosts.mount(instance.id, (instance.id, spec.name))
        return replace(spec, mounts=(*spec.mounts, mount))

    async def _run(self, instance: Instance, prototype: ContainerSpec) -> None:
        spec = self._named(instance, prototype)
        if instance.workload is not None and instance.workload.egress:
            spec = replace(spec, network=await self._egress.ensure())
        elif instance.workload is not None and instance.workload.kind is Kind.HTTP:
            spec = replace(spec, network=await self._egress.fallback(self._settings.network_fallback))

        def created(container: str) -> None:
            instance.container = container

        spec = self._with_hosts(instance, spec)
        await self._engine.start(await create_surely(self._engine, spec, created))
        self._on_running(instance)

    async def _unless_it_dies(self, instance: Instance, ready: object) -> None:
        """Wait for readiness and for the container's end, whichever comes first; `start_timeout` at most, which
        counts from here: the time that the engine takes is not the function's."""
        waiting = asyncio.ensure_future(ready)  # type: ignore[call-overload]
        dying = asyncio.ensure_future(self._engine.wait(cast(str, instance.container)))
        try:
            patience = self._settings.start_timeout
            with contextlib.suppress(TimeoutError):
                async with self._clock.timeout(patience):
                    await asyncio.wait((waiting, dying), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                waiting.result()
                return
            if not dying.done():
                words = await self._last_words(instance)
                raise FunctionBroken(f"not ready within {patience:g} s{words}")
            try:
                status = dying.result()
            except EngineError as error:
                raise start_failed("the engine lost the instance while it was starting", error) from error
            words = await self._last_words(instance)
            raise FunctionBroken(f"the instance ended with exit status {status} before it was ready{words}")
        finally:
            for task in (waiting, dying):
                task.cancel()
            await asyncio.gather(waiting, dying, return_exceptions=True)

    async def specialise(self, instance: Instance, workload: Workload) -> None:
        """Make a generic instance one of a function, once and for ever.

        Raises `FunctionBroken` if the handler cannot be imported, `StartFailed` if the instance does not answer.
        """
        link = cast(HandlerLink, instance.link)
        try:
            order = await asyncio.to_thread(cast(Order, workload.order).read)
        except OSError as error:
            raise StartFailed(f"the function's code is not in the data folder any more: {error}") from error
        try:
            if instance.born_generic:
                await self._resize(instance, workload)
            async with self._clock.timeout(self._settings.start_timeout):
                connection = link.take()
                if connection is None:
                    raise StartFailed("the prewarmed instance has lost its connection")
                link.slots = workload.concurrency
                headers = [
                    (b"host", b"hearth"),
                    (b"content-type", b"application/json"),
                    (b"x-hearth-control", b"1"),
                ]
                answer = await connection.exchange(Call(b"POST", b"/specialise", headers, order))
                if answer.status != 200:
                    kind, message = await read_report(answer)
                    raise FunctionBroken(message, kind, imported=False)
                while await answer.read():
                    pass
                link.give(connection)
        except TimeoutError:
            raise FunctionBroken(
                f"the handler was not imported within {self._settings.start_timeout:g} s"
            ) from None
        except NotSent as error:
            raise StartFailed(str(error)) from error
        except EngineError as error:
            raise start_failed("the engine could not set the instance's limits", error) from error
        except (FunctionBroken, StartFailed):
            raise
        except PoolError as error:
            raise FunctionBroken(f"the instance ended while it imported the handler: {error}") from error

    async def _resize(self, instance: Instance, workload: Workload) -> None:
        """Give a prewarmed instance its function's memory and CPUs."""
        spec = workload.container
        if instance.cgroup is not None:
            with contextlib.suppress(OSError):
                instance.cgroup.resize(spec.memory, spec.cpus)
                return
        await self._engine.resize(cast(str, instance.container), spec.memory, spec.cpus)

    async def adopt(self, instance: Instance) -> None:
        """Take over the running container of an instance that an earlier process started. Raises `StartFailed`."""
        try:
            await self._reconnection.adopt(instance)
        except StartFailed:
            raise
        except PoolError as error:
            raise StartFailed(str(error)) from error

    async def leave(self, instance: Instance) -> None:
        """Let go of an instance that the next process is to adopt; it goes on as it is."""
        if instance.link is not None:
            await instance.link.close()

    async def pause(self, instance: Instance) -> None:
        """Freeze an instance over the engine. Raises `EngineError`."""
        await self._engine.pause(cast(str, instance.container))

    async def unpause(self, instance: Instance) -> None:
        """Thaw an instance that was paused. Raises `EngineError`."""
        await self._engine.unpause(cast(str, instance.container))

    async def _last_words(self, instance: Instance) -> str:
        """The end of what a container that did not start has printed, for the error's message."""
        if instance.container is None:
            return ""
        with contextlib.suppress(EngineError):
            text = (await self._engine.logs(instance.container, 2000)).decode(errors="replace").strip()
            return f"; it printed: {text}" if text else ""
        return ""

    async def obituary(self, instance: Instance) -> str:
        """How an instance that has just closed its connection ended, in words. Waits a moment for its end."""
        with contextlib.suppress(EngineError, TimeoutError):
            container = cast(str, instance.container)
            async with self._clock.timeout(OBITUARY_WAIT):
                status = await self._engine.wait(container)
                if (await self._engine.inspect(container)).oom_killed:
                    return f"it was killed for want of memory ({instance.memory >> 20} MiB)"
            return f"its process ended with exit status {status}"
        return "it closed its connection"

    async def destroy(self, instance: Instance) -> None:
        """Remove the container and everything that belonged to the instance. Raises `EngineError`; call again.

        The container goes by its name: it may have been created although the answer never reached us.
        """
        if instance.link is not None:
            await instance.link.close()
        if not stays(instance):
            await self._engine.remove(instance.container or container_name(instance.id))
            self._hosts.drop(instance.id)
        shutil.rmtree(self._settings.run_folder / instance.id, ignore_errors=True)

    async def logs(self, instance: Instance, limit: int) -> bytes:
        """What the engine has kept of an instance's output, `limit` bytes at most. Raises `EngineError`."""
        if instance.container is None:
            return b""
        return await self._engine.logs(instance.container, limit)


def stays(instance: Instance) -> bool:
    """Whether an instance's container is left on the engine when the instance goes."""
    link, workload = instance.link, instance.workload
    return isinstance(link, CommandLink) and workload is not None and workload.keep.keeps(link.exit_status)


def is_kept(container: ContainerState) -> bool:
    """Whether a container is one that was left so: it is nobody's instance, and no leftover."""
    return KEPT_LABEL in container.labels and not container.running


def start_failed(deed: str, error: EngineError) -> StartFailed:
    """The engine's error as one of the start."""
    failed = StartFailed(f"{deed}: {error}")
    failed.engine_down = isinstance(error, EngineDown)
    return failed


def is_instance(labels: Mapping[str, str]) -> bool:
    """Return whether a container was made as an instance.

    The containers of a build, and those that somebody makes of a function's image by hand, have this gateway's label
    too, from the image; and containers that only look into an image have it. None of them is ours to remove."""
    return INSTANCE_LABEL in labels and LOOK_LABEL not in labels


def instance_of(container: str, labels: Mapping[str, str]) -> str:
    """The id of the instance that a container of ours is; one that says nothing of it has its own."""
    return labels.get(INSTANCE_LABEL) or container[:12]


def user_of(instance: Instance) -> int | None:
    """Return the uid that an instance's container runs as, or None where only the image knows it.

    One that was adopted from a gateway that gave all containers the same uid says None as well.
    """
    if instance.uid is not None or instance.workload is None:
        return instance.uid
    uid = (instance.workload.container.user or "").partition(":")[0]
    return int(uid) if uid.isdecimal() else None


def container_name(instance: str) -> str:
    """The container's name, by the instance's id, which is unique over all gateways."""
    return f"hearth-{instance}"
