"""What the gateway is compared with, beside the engine itself: nginx, in front of responders that do equal work."""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from bench.client import Address, CallFailed, connect
from bench.gateways import free_port, tail
from bench.instances import BENCH_LABEL
from bench.worker import WorkerFailed
from pool.engine.base import ContainerSpec, Engine, Mount
from scheduler.deploy.images.runtimes import BASE_IMAGE

ROOT = Path(__file__).resolve().parent.parent
CODE = "/reference"
SOCKETS = "/sockets"
PATIENCE = 30.0
POLL = 0.02

PAYLOAD = (
    "bench/__init__.py",
    "bench/responder.py",
    "bench/streamer.py",
    "runtimes/__init__.py",
    "runtimes/python/__init__.py",
    "runtimes/python/shim.py",
    "functions/hello/handler.py",
)

Program = Literal["responder", "streamer"]

CONFIG = """\
# One worker, as the gateway is one process; connections to both sides stay open; nothing is logged.
daemon off;
{user}worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    keepalive_requests 1000000000;
    upstream instances {{
{servers}
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://instances;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            # What the gateway adds too: the instance has as many headers to read.
            proxy_set_header X-Invocation-Id $request_id;
            proxy_set_header X-Hearth-Deadline 30;
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
        }}
    }}
}}
"""


def missing() -> str | None:
    """Why nginx cannot be a reference; None if it can."""
    return None if find() else "nginx is not installed: as root, `make bench` installs it"


def find() -> str | None:
    """The nginx program; Debian has it where a user's PATH may not lead."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def payload(folder: Path) -> Path:
    """Copy the code that containers of the references run into a new folder, to be mounted at `CODE`."""
    for file in PAYLOAD:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, folder / file)
    return folder


def command(program: Program, address: str) -> tuple[str, ...]:
    """What runs a program of the payload in a container of the base image, with the shim's own options."""
    return ("python3", "-I", "-S", "-E", f"{CODE}/bench/{program}.py", address)


class Responder:
    """A container that listens on a unix socket, with the limits of an instance. `start`, then `remove`."""

    def __init__(self, engine: Engine, code: Path, folder: Path, run: str, program: Program) -> None:
        self._engine = engine
        self._code = code
        self._folder = folder / f"r-{uuid.uuid4().hex[:8]}"
        self._run = run
        self._program = program
        self.socket = self._folder / "calls.sock"

    async def start(self) -> None:
        """Create, start, wait until it listens. Raises `EngineError`, `CallFailed` and OSError."""
        self._folder.mkdir(parents=True)
        self._folder.chmod(0o777)  # its user is not ours
        spec = ContainerSpec(
            name=f"hearth-bench-{self._folder.name}",
            image=BASE_IMAGE,
            labels={BENCH_LABEL: self._run},
            command=command(self._program, f"unix:{SOCKETS}/calls.sock"),
            mounts=(Mount(str(self._code), CODE), Mount(str(self._folder), SOCKETS, read_only=False)),
        )
        await self._engine.start(await self._engine.create(spec))
        try:
            async with asyncio.timeout(PATIENCE):
                while not await listens(self.socket):
                    await asyncio.sleep(POLL)
        except TimeoutError:
            raise CallFailed("a responder does not listen in time") from None

    async def remove(self) -> None:
        """Remove the container; one that was never made is fine. Raises `EngineError`."""
        await self._engine.remove(f"hearth-bench-{self._folder.name}")
        shutil.rmtree(self._folder, ignore_errors=True)


async def listens(path: Path) -> bool:
    """Whether a connection to a unix socket is accepted.

    It is reached through its folder's file descriptor: a socket's path may have 107 bytes at most.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{path.name}")
    except OSError:
        return False
    finally:
        os.close(folder)
    writer.close()
    return True


def config(folder: Path, port: int, sockets: Sequence[Path]) -> str:
    """nginx's configuration: one worker in front of these sockets, everything of its own in `folder`.

    The sockets' paths are relative to `folder`, in which nginx runs: a socket's path may have 107 bytes at most.
    """
    paths = [os.path.relpath(path, folder) for path in sockets]
    servers = "\n".join(f"        server unix:{path} max_fails=0;" for path in paths)
    user = "user root;\n" if os.geteuid() == 0 else ""  # the sockets lie in a folder that is root's
    return CONFIG.format(folder=folder, port=port, servers=servers, user=user)


@asynccontextmanager
async def nginx(folder: Path, sockets: Sequence[Path]) -> AsyncIterator[Address]:
    """An nginx of our own in front of these sockets, stopped at the end. Raises `WorkerFailed`."""
    program, address = find(), Address("127.0.0.1", free_port())
    assert program is not None
    folder.mkdir(parents=True)
    (folder / "nginx.conf").write_text(config(folder, address.port, sockets))
    output = folder / "output.log"
    with output.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program,
            *("-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")),
            stdin=DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,  # Ctrl-C is for us: we stop it in order
        )
    try:
        async with asyncio.timeout(PATIENCE):
            while not await _answers(address):
                if process.returncode is not None:
                    raise WorkerFailed(f"nginx did not start:\n{tail(output)}")
                await asyncio.sleep(POLL)
        yield address
    except TimeoutError:
        raise WorkerFailed("nginx does not listen in time") from None
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def _answers(address: Address) -> bool:
    try:
        (await connect(address)).close()
    except CallFailed:
        return False
    return True
