"""The gateway that is measured: one that runs already, or one of the benchmark's own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from bench.client import Address, CallFailed, Greeting, Reply, connect, fault_of
from pool.engine.base import Engine
from pool.engine.labels import GATEWAY_LABEL

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = "from gateway.cli import main; main()"
"""The hearth command, run by the Python that runs us."""
READY_TIMEOUT = 90.0
BUILD_TIMEOUT = 600.0
"""Until a function's packages are fetched, unpacked, compiled and in its image."""
STOP_TIMEOUT = 90.0
QUIET_TIMEOUT = 90.0
CALL_TIMEOUT = 60.0
POLL = 0.02
SETTLE = 0.05
"""Seconds that the engine is left alone before a sample, after the last container has come or gone."""


AT_REST = ("idle", "frozen", "prewarmed")
"""States of an instance with which nothing is being done."""


class GatewayFault(Exception):
    """The gateway is not there, or does not do what the benchmark needs of it; the message says what."""


class Gateway:
    """A gateway as its API shows it. `fresh` gives functions that were never called, each once."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.pid: int | None = None
        """Its process, if it is one of our own."""
        self._api = httpx.AsyncClient(base_url=address.url, timeout=30.0, trust_env=False)
        self._fresh: list[str] = []
        self._greetings = 0

    async def close(self) -> None:
        """Let go of the connections."""
        await self._api.aclose()

    async def redrive(self, function: str) -> int:
        """Queue the dead letters of a function again; how many there were. Raises `GatewayFault`."""
        try:
            response = await self._api.post("/dead-letters/redrive", params={"function": function})
            response.raise_for_status()
            return int(response.json()["count"])
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise GatewayFault(f"the gateway redrives no dead letters: {error}") from error

    async def count(self, metric: str, **labels: str) -> float:
        """Sum of the samples of a metric that have these labels. Raises `GatewayFault`."""
        try:
            text = (await self._api.get("/metrics")).text
        except httpx.HTTPError as error:
            raise GatewayFault(f"the gateway does not show its metrics: {type(error).__name__}") from error
        families = (line for line in text.splitlines() if line.startswith((f"{metric} ", f"{metric}{{")))
        wanted = [f'{name}="{value}"' for name, value in labels.items()]
        return sum(
            float(line.rsplit(" ", 1)[1]) for line in families if all(label in line for label in wanted)
        )

    async def get(self, path: str) -> Any:
        """A JSON answer of the API. Raises `GatewayFault`."""
        try:
            response = await self._api.get(path)
        except httpx.HTTPError as error:
            raise GatewayFault(
                f"no gateway answers at {self.address.url} ({type(error).__name__}): "
                "`make serve` starts one, and --start one of the benchmark's own"
            ) from error
        if response.status_code != 200:
            raise GatewayFault(
                f"GET {path} was answered with status {response.status_code}: {response.text[:200]}"
            )
        try:
            return response.json()
        except ValueError:
            raise GatewayFault(f"what answers at {self.address.url} is no Hearth gateway") from None

    async def in_service(self, names: Sequence[str], prewarmed: bool, seconds: float = READY_TIMEOUT) -> None:
        """Wait until these functions are in service, and the prewarm pools are there if there shall be any.

        Being ready is not enough: a gateway sets its functions up while it serves. Raises `GatewayFault`.
        """
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            functions = {function["name"]: function for function in await self.get("/functions")}
            for name in names:
                if name in functions and functions[name]["fault"]:
                    raise GatewayFault(f"function {name}: {functions[name]['fault']}")
            ready = all(name in functions and functions[name]["state"] == "ready" for name in names)
            if ready and await self.keeps_prewarmed() == prewarmed:
                return
            await asyncio.sleep(POLL)
        raise GatewayFault(f"not every function is in service after {seconds:g} s")

    async def find_fresh(self, names: Iterable[str]) -> None:
        """Look which of these functions are in service and were never called."""
        pool = (await self.get("/pool"))["functions"]
        self._fresh = [
            name
            for name in names
            if name in pool and not any(pool[name]["starts"].values()) and not pool[name]["instances"]
        ]
        self._fresh.sort(reverse=True)

    @property
    def fresh_count(self) -> int:
        """Functions that are left."""
        return len(self._fresh)

    def fresh(self) -> str:
        """A function that was never called. Raises `GatewayFault` when none is left."""
        if not self._fresh:
            raise GatewayFault(
                "no function is left that was never called: restart the gateway, or use --start"
            )
        return self._fresh.pop()

    async def keeps_prewarmed(self) -> bool:
        """Whether it keeps a prewarm pool at all."""
        return any(pool["wanted"] for pool in (await self.get("/pool"))["prewarm"])

    async def quiet(self) -> None:
        """Wait until nothing is being started or removed and the prewarm pools are full.

        Raises `GatewayFault` if that takes too long.
        """
        ends = time.monotonic() + QUIET_TIMEOUT
        while time.monotonic() < ends:
            pools = (await self.get("/pool"))["prewarm"]
            instances = await self.get("/pool/instances")
            full = all(pool["ready"] >= pool["wanted"] and not pool["starting"] for pool in pools)
            if full and all(instance["state"] in AT_REST for instance in instances):
                await asyncio.sleep(SETTLE)
                return
            await asyncio.sleep(POLL)
        raise GatewayFault(f"the gateway has not come to rest within {QUIET_TIMEOUT:g} s")

    @property
    def own_pid(self) -> int:
        """Its process. Raises `GatewayFault` if it is somebody else's."""
        if self.pid is None:
            raise GatewayFault("only a gateway of the benchmark's own shows what its process takes")
        return self.pid

    async def first_call(self, function: str) -> tuple[float, str]:
        """Call a function over a new connection: seconds until the whole answer was here, and the kind of start.

        Making the connection does not count. Raises `CallFailed`.
        """
        took, reply = await self.call(function)
        return took, reply.start

    async def call(self, function: str) -> tuple[float, Reply]:
        """The same with the whole answer."""
        self._greetings += 1
        greeting = Greeting(f"/invoke/{function}", self.address.authority, prefix=f"f{self._greetings:x}-")
        request, expected = greeting.next()
        connection = await connect(self.address)
        try:
            began = time.perf_counter()
            reply = await connection.call(request, CALL_TIMEOUT)
            took = time.perf_counter() - began
        finally:
            connection.close()
        fault = fault_of(reply, expected)
        if fault is not None:
            raise CallFailed(fault)
        return took, reply

    async def remove(self, id: str) -> None:
        """Have an instance removed."""
        await self._api.delete(f"/pool/instances/{id}")

    async def forget(self, functions: Iterable[str]) -> None:
        """Have the instances of these functions removed, and wait until they are gone. Raises `GatewayFault`."""
        names = frozenset(functions)
        ends = time.monotonic() + QUIET_TIMEOUT
        asked: set[str] = set()
        while time.monotonic() < ends:
            left = [i for i in await self.get("/pool/instances") if i["function"] in names]
            if not left:
                return
            for instance in left:
                if instance["id"] not in asked:
                    asked.add(instance["id"])
                    with contextlib.suppress(httpx.HTTPError):
                        await self.remove(instance["id"])
            await asyncio.sleep(POLL)
        raise GatewayFault(f"instances were not removed within {QUIET_TIMEOUT:g} s")


def declare(
    folder: Path,
    names: Iterable[str],
    prewarm: int,
    others: Mapping[str, str] | None = None,
) -> Path:
    """Write a functions.yaml of equal functions, with their code, into a folder; returns the file.

    `others` are declared as they say: name to keys, with `HELLO` for those of the equal ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "functions/hello", folder / "hello", dirs_exist_ok=True)
    lines = ["version: 1", f"prewarm: {{python: {prewarm}}}", "functions:"]
    hello = "runtime: python, source: hello, handler: 'handler:handle'"
    lines += [f"  {name}: {{{hello}}}" for name in names]
    lines += [f"  {name}: {{{keys.replace('HELLO', hello)}}}" for name, keys in (others or {}).items()]
    file = folder / "functions.yaml"
    file.write_text("\n".join(lines) + "\n")
    return file


@asynccontextmanager
async def running_gateway(address: Address) -> AsyncIterator[Gateway]:
    """A gateway that somebody else runs. Raises `GatewayFault` if it is not there or not ready."""
    gateway = Gateway(address)
    try:
        await gateway.get("/readyz")
        yield gateway
    finally:
        await gateway.close()


@asynccontextmanager
async def own_gateway(
    engine: Engine,
    functions: Path,
    folder: Path,
    memory: int,
    volumes: Path | None = None,
    wrapper: Sequence[str] = (),
) -> AsyncIterator[Gateway]:
    """A gateway with a port and a data folder of its own, that may declare `memory` bytes; stopped at the end.

    Its functions may mount the folder `volumes`. `wrapper` is a command that runs it.
    `folder` is there and empty. Raises `GatewayFault` if it does not start, or leaves anything on the engine.
    """
    address = Address("127.0.0.1", free_port())
    output, data = folder / "output.log", folder / "data"
    gateway = Gateway(address)
    settings = {"HEARTH_MEMORY_BUDGET": f"{memory}B", "HEARTH_LOG_LEVEL": "warning"}
    if volumes is not None:
        settings["HEARTH_ALLOWED_VOLUMES"] = str(volumes)
    options = ["--functions", str(functions), "--data-dir", str(data)]
    options += ["--host", address.host, "--port", str(address.port)]
    process = await _launch([*wrapper, sys.executable, "-c", PROGRAM, "serve", *options], settings, output)
    gateway.pid = process.pid
    try:
        await _until_ready(gateway, process, output)
        yield gateway
    finally:
        await gateway.close()
        await _stop(process)
        left = await _remove_leftovers(engine, data)
    if left:
        raise GatewayFault(
            f"the benchmark's gateway left {left} containers on the engine; they are removed now"
        )
    if process.returncode != 0:
        raise GatewayFault(f"the benchmark's gateway ended with status {process.returncode}:\n{tail(output)}")


async def _launch(command: Sequence[str], settings: Mapping[str, str], output: Path) -> Process:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEARTH_")}
    with output.open("wb") as log:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=DEVNULL,
            stdout=log,
            stderr=log,
            env={**environment, **settings},
            cwd=ROOT,
            start_new_session=True,  # Ctrl-C is for us: we stop it in order
        )


async def _until_ready(gateway: Gateway, process: Process, output: Path) -> None:
    ends = time.monotonic() + READY_TIMEOUT
    while time.monotonic() < ends:
        if process.returncode is not None:
            raise GatewayFault(f"the benchmark's gateway did not start:\n{tail(output)}")
        with contextlib.suppress(GatewayFault):
            await gateway.get("/readyz")
            return
        await asyncio.sleep(POLL)
    raise GatewayFault(f"the benchmark's gateway was not ready within {READY_TIMEOUT:g} s:\n{tail(output)}")


async def _stop(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _remove_leftovers(engine: Engine, data: Path) -> int:
    try:
        identity = (data / "identity").read_text().strip()
    except FileNotFoundError:
        return 0
    left = await engine.containers({GATEWAY_LABEL: identity})
    await asyncio.gather(*(engine.remove(container.id) for container in left))
    for image in await engine.images({GATEWAY_LABEL: identity}):  # made of a requirements.txt
        await engine.remove_image(image.id)
    return len(left)


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tail(file: Path, characters: int = 2000) -> str:
    """The end of a file."""
    return file.read_text(errors="replace")[-characters:].strip()
