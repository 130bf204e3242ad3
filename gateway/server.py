"""Runs a gateway: start-up, serving, and shutting down, from top to bottom."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import uvicorn
from watchfiles import awatch

from gateway.app import Edge
from gateway.guard import Guard
from gateway.runtime import Runtime
from gateway.settings import Settings
from pool.data_folder import DataFolder
from scheduler.definitions import Definitions, DefinitionsError, load

log = logging.getLogger("hearth")


class Server(uvicorn.Server):
    """uvicorn without its signal handling: ours drains first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


async def serve(
    settings: Settings,
    definitions: Definitions,
    folder: DataFolder,
    on_ready: Callable[[Runtime, str], None],
    on_made: Callable[[Runtime], None] = lambda runtime: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and leave nothing behind.

    `on_made` is given the parts before they start, `on_ready` the address when functions can be called. Raises OSError if the port cannot be had.
    """
    listener = listen(settings.host, settings.port)
    url = f"http://{settings.host}:{listener.getsockname()[1]}"
    runtime = Runtime(settings, folder)
    on_made(runtime)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    edge = Edge(runtime, Guard(settings.host, settings.allowed_hosts))
    server = Server(
        uvicorn.Config(
            edge,
            http="httptools",
            loop="none",
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=5,
        )
    )
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    starting = asyncio.ensure_future(start(runtime, definitions, url, on_ready))
    watching = asyncio.ensure_future(watch(runtime, settings))
    stopped = asyncio.ensure_future(stop.wait())

    def end_if_failed(task: asyncio.Future[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            stop.set()

    for task in (starting, watching):
        task.add_done_callback(end_if_failed)
    try:
        await asyncio.wait((serving, stopped), return_when=asyncio.FIRST_COMPLETED)
        for task in (watching, starting):
            task.cancel()
        results = await asyncio.gather(watching, starting, return_exceptions=True)
        await runtime.drain()
        for result in results:
            if isinstance(result, Exception):
                raise result
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        stopped.cancel()
        await runtime.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError with the address in its message."""
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
    """Bring the functions into service and say so when it is done."""
    await runtime.start(definitions)
    while await runtime.why_not_ready():
        await asyncio.sleep(0.05)
    on_ready(runtime, url)


async def watch(runtime: Runtime, settings: Settings) -> None:
    """Load the definitions again whenever their file, or a function's source, has changed."""
    file = settings.functions.resolve()
    async for changed in changes(runtime, file):
        try:
            definitions = load(file, allowed_volumes=settings.allowed_volumes)
        except DefinitionsError as error:
            for fault in error.faults:
                log.error("%s", fault)
            log.error("%s is not taken over; what is in service stays", file)
            continue
        log.info("%s changed: loading the functions again", ", ".join(sorted(changed)))
        await runtime.registry.apply(definitions)


async def changes(runtime: Runtime, file: Path) -> AsyncIterator[set[str]]:
    """Names of what has changed, in batches. What is watched follows what is declared."""
    while True:
        folders = {d.definition.source for d in runtime.registry.declared.values() if d.definition.source}
        watched = [file.parent, *(Path(folder) for folder in folders if Path(folder).is_dir())]
        roots = [str(Path(folder)) for folder in folders]

        def concerns(_: object, path: str, roots: list[str] = roots) -> bool:
            if "__pycache__" in path or path.endswith((".pyc", "~", ".swp")):
                return False
            return path == str(file) or any(path.startswith(root + "/") for root in roots)

        async for batch in awatch(*watched, watch_filter=concerns, recursive=True, step=50, debounce=200):
            yield {Path(path).name for _, path in batch}
            break
