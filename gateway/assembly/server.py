"""Runs a gateway: start-up, serving, and shutting down, from top to bottom."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import uvicorn

from gateway.assembly.definitions_file import DefinitionsFile
from gateway.assembly.memory_bound import CONNECTION_BYTES
from gateway.assembly.reload import Reload
from gateway.assembly.runtime import Runtime, stop_log
from gateway.assembly.settings import Settings
from gateway.edge.app import Edge, build_app
from gateway.edge.client_limits import ClientLimits
from gateway.edge.client_protocol import ClientProtocol
from gateway.edge.fast_path import FastPathProtocol
from gateway.invoke.body import Receive, Send
from gateway.memory.allocator import c_library_trim, give_back_freed
from gateway.memory.connections import ConnectionMemory
from pool.data_folder import DataFolder
from pool.engine.base import Engine
from scheduler.definitions.file import Definitions

log = logging.getLogger("hearth")

Asgi = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
READY_LOOK_SECONDS = 0.05
"""Pause between two looks whether a starting gateway is ready."""


class UvicornServer(uvicorn.Server):
    """uvicorn without its signal handling: ours drains first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


@dataclass(frozen=True, kw_only=True)
class Serving:
    """Everything that a gateway process needs to serve."""

    settings: Settings
    file: DefinitionsFile
    definitions: Definitions
    """As the file was read first."""
    folder: DataFolder
    engine: Engine | None = None
    """None takes Docker."""
    wrap: Callable[[Asgi], Asgi] | None = None
    """Put around the app that takes every request. With it, no call takes the fast path."""


async def serve(
    serving: Serving,
    on_ready: Callable[[Runtime, str], None],
    on_made: Callable[[Runtime], None] = lambda runtime: None,
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP, then drain and leave nothing behind.

    `on_made` is given the gateway before it starts, `on_ready` the gateway and its address when functions can be
    called. Raises OSError if the port cannot be had.
    """
    settings, definitions = serving.settings, serving.definitions
    listener = listen(settings.host, settings.port)
    url = f"http://{settings.host}:{listener.getsockname()[1]}"
    runtime = Runtime(settings, serving.folder, serving.engine)
    registry, access, bodies = (
        runtime.scheduler_floor.registry,
        runtime.gateway_floor.access,
        runtime.gateway_floor.bodies,
    )
    on_made(runtime)
    stop, hurry = stop_signals()
    server = http_server(runtime, serving.wrap)
    answering = asyncio.ensure_future(server.serve(sockets=[listener]))
    starting = asyncio.ensure_future(start(runtime, definitions, url, on_ready))
    supervise = runtime.supervisor.supervise
    reload = Reload(registry, serving.file, definitions, runtime.clock, runtime.supervisor)
    reloading = supervise("reload", reload.run)
    following = supervise("keys", access.follow)
    trimming = supervise(
        "memory", functools.partial(give_back_freed, bodies, runtime.clock, c_library_trim())
    )
    stopped = asyncio.ensure_future(stop.wait())

    def end_if_failed(task: asyncio.Future[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            stop.set()

    starting.add_done_callback(end_if_failed)
    try:
        await asyncio.wait((answering, stopped), return_when=asyncio.FIRST_COMPLETED)
        for task in (reloading, starting):
            task.cancel()
        _, started = await asyncio.gather(reloading, starting, return_exceptions=True)
        await runtime.drain(hurry)
        stop_log.info(
            "Stopping: %s", "leaving warm instances" if settings.keep_warm else "removing instances"
        )
        runtime.scheduler_floor.dispatcher.close()
        if isinstance(started, Exception):
            raise started
    finally:
        runtime.pool_floor.journal.end_readers()  # whoever follows the output would hold the server up
        server.should_exit = True
        await asyncio.gather(answering, return_exceptions=True)
        stopped.cancel()
        following.cancel()
        trimming.cancel()
        await runtime.close()


def stop_signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Return two events that SIGTERM, SIGINT and SIGHUP set.

    SIGHUP comes when the terminal is closed. Programs under nohup ignore it, and so do we. The first signal sets the
    first event, which ends the gateway. The next one sets the second event: then calls in flight are not waited for.
    """
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, lambda: (hurry if stop.is_set() else stop).set())
    return stop, hurry


def build_edge(runtime: Runtime) -> Edge:
    """Return the ASGI app that takes every request of a gateway. It takes some 0.2 s."""
    return Edge(runtime.gateway_floor.edge, build_app(runtime.api_parts))


def http_server(runtime: Runtime, wrap: Callable[[Asgi], Asgi] | None = None) -> UvicornServer:
    """Return the HTTP server of a gateway, which does not serve yet. `wrap`: see `Serving`."""
    settings, floor = runtime.settings, runtime.gateway_floor
    limits = ClientLimits(
        settings.client_timeout, most_connections(settings.body_memory), ConnectionMemory(floor.bodies)
    )
    edge = build_edge(runtime)
    app, protocol = (
        (edge, functools.partial(FastPathProtocol, floor.fast, limits))
        if wrap is None
        else (wrap(edge), functools.partial(ClientProtocol, limits))
    )
    return UvicornServer(
        uvicorn.Config(
            app,
            http=protocol,  # type: ignore[arg-type]
            loop="none",
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,  # what is drained has ended by then
        )
    )


def most_connections(body_memory: int) -> int:
    """Return how many clients may be connected at once.

    A quarter of the file descriptors is left for the engine and the instances, so that clients alone cannot bring
    calls to a halt. All idle connections together take no more memory than all bodies may (`body_memory`, bytes).
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return min(most * 3 // 4, body_memory // CONNECTION_BYTES)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises OSError with the address in its message."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}; --port takes another") from error
    listener.listen(2048)
    listener.setblocking(False)
    return listener


async def start(
    runtime: Runtime, definitions: Definitions, url: str, on_ready: Callable[[Runtime, str], None]
) -> None:
    """Bring the functions into service, and say so when calls are answered: some images may still be built."""
    loading = asyncio.ensure_future(runtime.start(definitions))
    try:
        while await runtime.why_not_ready() and not (loading.done() and loading.exception()):
            await runtime.clock.sleep(READY_LOOK_SECONDS)
        if not loading.done() or loading.exception() is None:
            on_ready(runtime, url)
        await loading
        spare_the_collector()
    finally:
        loading.cancel()


def spare_the_collector() -> None:
    """Take all that lives by now, which is mostly code and stays, out of the garbage collector's sight.

    A full collection looks at every object and stops the loop meanwhile: tens of milliseconds for what was
    imported alone, again and again, in the middle of calls.
    """
    gc.collect()
    gc.freeze()
