"""A gateway in this process over an engine in memory, and for each contract a program that keeps it.

The programs do the same thing: they answer a body in capitals, fail on the body `fail` and end on the body `die`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.access.access import Access
from gateway.access.guard import Guard
from gateway.edge.fast_path import FastPathProtocol
from gateway.invoke.deaths import Deaths
from gateway.invoke.endpoint import InvokeEndpoint
from gateway.invoke.fast_call import FastPath
from gateway.invoke.outcome import Outcomes
from gateway.invoke.recent_calls import RecentCalls
from gateway.memory.budget import BodyBudget
from gateway.memory.connections import ConnectionMemory
from pool.adoption.adoption import Adoption
from pool.adoption.records import Records
from pool.clock import LoopClock
from pool.contracts.base import Contract
from pool.contracts.command import COMMAND
from pool.contracts.handler import HANDLER
from pool.contracts.http import HTTP
from pool.contracts.init_place import INIT_FOLDER
from pool.contracts.starter import InstanceReports, LaunchSettings
from pool.data_folder import DataFolder
from pool.engine.base import ContainerSpec, Mount
from pool.engine.memory import Latency, MemoryEngine
from pool.engine.memory_process import Process
from pool.host.egress import Egress
from pool.instance import Instance
from pool.launcher import Launcher
from pool.observe.logs import LogStore
from pool.observe.metrics import Metrics
from pool.pool import Pool
from pool.reaper import Reaper
from pool.states import State
from pool.supervise import Supervisor
from pool.workload import Order, Workload
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.dispatch.function import Limits
from tests.support.line_platform import LINES, line_program
from tests.support.memory_init import under_init
from tests.support.serving_init import serving
from tests.support.warm_call_loop import NoFaults, what_uvicorn_gives

SHIM = Path(__file__).parents[2] / "runtimes" / "python" / "shim.py"
CODE = b"""
import os

def handle(event, context):
    text = event.decode()
    if text == "fail":
        raise ValueError("asked to")
    if text == "die":
        os._exit(3)
    if text == "own error":
        return "mine", 500
    if text == "print":
        print("printed")
    return text.upper()
"""


async def shim_program(process: Process) -> int:
    """Run the Python shim as a process of its own."""
    [folder] = [mount.source for mount in process.spec.mounts if mount.target == "/run/hearth"]
    code = Path(folder).with_name(f"{Path(folder).name}.code")
    code.mkdir(exist_ok=True)
    environment = {"HEARTH_SOCKET_DIR": folder, "HEARTH_CODE_DIR": str(code), "PATH": os.environ["PATH"]}
    shim = subprocess.Popen([sys.executable, "-I", "-S", str(SHIM)], env=environment)
    try:
        return await asyncio.to_thread(shim.wait)
    finally:
        shim.kill()
        shim.wait()


async def http_program(process: Process) -> int:
    """Serve HTTP on the port in the environment."""
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length:")[2].split()[:1]
                body = await reader.readexactly(int(length[0]) if length else 0)
                if body == b"die":
                    ended.set_result(3)
                    break
                if body == b"fail":
                    writer.write(b"this is not HTTP\r\n\r\n")
                    break
                status, answer = (
                    (500, b"mine") if body == b"own error" else (200, body.upper() or head.split()[1])
                )
                writer.write(
                    b"HTTP/1.1 %d X\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b"
                    % (status, len(answer), answer)
                )
        writer.close()

    while True:
        try:
            server = await asyncio.start_server(serve, "127.0.0.1", int(process.spec.env["PORT"]))
            break
        except OSError:  # here the port is that of the container before, which is just ending
            await asyncio.sleep(0.01)
    try:
        return await ended
    finally:
        server.close()


async def command_program(process: Process) -> int:
    """Answer the standard input."""
    text = b""
    while (piece := await process.read()) is not None:
        text += piece
    if text in (b"fail", b"die"):
        return 3
    await process.write(text.upper())
    return 0


@dataclass(frozen=True)
class Case:
    """One contract, and how its program fails."""

    contract: Contract
    program: Callable[[Process], Awaitable[int]]
    problem: str
    """Problem of a call with the body `fail`."""
    death: str
    """Problem of a call with the body `die`."""
    reuse: bool = True

    def __repr__(self) -> str:
        return self.contract.name if self.reuse else f"{self.contract.name}, fresh"


CASES = (
    Case(HANDLER, shim_program, "handler-raised", "instance-died"),
    Case(HTTP, serving(http_program), "contract-broken", "instance-died"),
    Case(COMMAND, under_init(command_program), "command-failed", "command-failed"),
    Case(COMMAND, under_init(command_program), "command-failed", "command-failed", reuse=False),
    Case(LINES, line_program, "handler-raised", "instance-died"),
)


class ContractWorld:
    """One gateway with one function; `restarted` is the next gateway on the same engine and data folder."""

    def __init__(self, case: Case, path: Path, engine: MemoryEngine | None = None, port: int = 0) -> None:
        self.case = case
        self.path = path
        self.port = port or free_port()
        self.clock = LoopClock()
        self.engine = engine or MemoryEngine(self.clock, latency=Latency(0, 0, 0, 0))
        image = self.engine.add_image("image", program=case.program)
        self.metrics, self.logs = Metrics(), LogStore()
        self.folder = DataFolder(path)
        self._supervisor = Supervisor(self.clock, self.metrics)
        egress = Egress(self.engine, self.folder.id, self.clock, self._supervisor)
        settings = LaunchSettings(self.folder.id, self.folder.run, self.folder.etc, start_timeout=30.0)
        reports = InstanceReports(
            on_slots=lambda instance: self.pool.slots_changed(instance),
            on_output=lambda instance, data: self.pool.output(instance, data),
            on_running=lambda instance: self.pool.running(instance),
        )
        self.launcher = Launcher(self.engine, self.clock, settings, egress, reports)
        self.launcher.starter.init = Mount(str(path), INIT_FOLDER)
        self.records = Records(self.folder.records, self.clock)
        self.pool = Pool(self.launcher, self.clock, self.metrics, self.logs, 2**34, self.records)
        self.dispatcher = Dispatcher(self.pool, self.clock, 2)
        self._reaper = Reaper(
            self.pool, self.engine, self.clock, self.folder.id, self.dispatcher.is_provisioned
        )
        self.workload = self._workload(image.id)
        self._server: asyncio.Server | None = None

    def _workload(self, image: str) -> Workload:
        order = None
        if self.case.contract.specialises:
            code = self.path / "code"
            code.write_text(json.dumps([["main.py", base64.b64encode(CODE).decode()]]))
            order = Order(
                json.dumps({"function": "f", "version": "1", "handler": "main:handle"}).encode(), code
            )
        return Workload(
            function="f",
            version="1",
            contract=self.case.contract,
            container=ContainerSpec(name="", image=image, user=None, program=("answer",)),
            reuse=self.case.reuse,
            freeze_after=60.0,
            order=order,
            port=self.port,
        )

    async def start(self) -> None:
        """Adopt what is there, deploy the function and serve."""
        adoption = Adoption(self.engine, self.pool, self.records, self.folder, self.clock)
        await adoption.look()
        adoption.expect(["f"])
        adoption.claim(self.workload)
        adoption.claim_generic({})
        self.dispatcher.deploy(self.workload, Limits(timeout=20.0), max_instances=1)
        while adoption.under_way:
            await asyncio.sleep(0.005)
        self._reaper.start(self._supervisor)
        outcomes = Outcomes(self.metrics, RecentCalls(self.clock))
        deaths = Deaths(self.pool.printed, self.launcher.obituary)
        endpoint = InvokeEndpoint(self.dispatcher, NoFaults(), outcomes, self.clock, deaths)
        bodies = BodyBudget(2**30)
        access = Access(self.clock, self.metrics)
        guard = Guard("127.0.0.1")
        fast = FastPath(endpoint, guard, access, self.dispatcher, outcomes, self.logs, self.clock, bodies)
        given = what_uvicorn_gives(endpoint, ConnectionMemory(bodies))
        self._server = await asyncio.get_running_loop().create_server(
            lambda: FastPathProtocol(fast, **given), "127.0.0.1", 0
        )

    async def call(self, body: str = "hello", method: str = "POST", path: str = "/invoke/f") -> Reply:
        """Make a call over a connection of its own."""
        assert self._server is not None
        reader, writer = await asyncio.open_connection(*self._server.sockets[0].getsockname())
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/x-test\r\nconnection: close\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
        try:
            return Reply(await reader.read())
        finally:
            writer.close()

    async def warm_call(self, body: str = "hello") -> Reply:
        """Make a call on a connection that stays open, so that it may take the fast path."""
        assert self._server is not None
        reader, writer = await asyncio.open_connection(*self._server.sockets[0].getsockname())
        writer.write(
            f"POST /invoke/f HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/x-test\r\n"
            f"content-length: {len(body)}\r\n\r\n{body}".encode()
        )
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            return Reply(head + await reader.readexactly(length))
        finally:
            writer.close()

    @property
    def instances(self) -> list[Instance]:
        """Return the function's instances."""
        return list(self.pool.ledger.of("f"))

    async def idle(self) -> Instance:
        """Wait until the one instance is idle, and return it."""
        while [str(instance.state) for instance in self.instances] != ["idle"]:
            await asyncio.sleep(0.005)
        return self.instances[0]

    async def gone(self, instances: list[Instance]) -> None:
        """Wait until instances are removed."""
        while any(instance.state is not State.GONE for instance in instances):
            await asyncio.sleep(0.005)

    async def restarted(self) -> ContractWorld:
        """Let this gateway go as `--keep-warm` does, and start the next one."""
        await self._stop(keep_warm=True)
        after = ContractWorld(self.case, self.path, self.engine, self.port)
        await after.start()
        return after

    async def close(self) -> None:
        """Remove everything and check that the engine has nothing left."""
        await self._stop()
        assert self.engine.alive() == 0
        for _ in range(5):  # the programs of containers that were just removed close their connections
            await asyncio.sleep(0)

    async def _stop(self, keep_warm: bool = False) -> None:
        if self._server is not None:
            self._server.close()
        await self._reaper.close()
        self.dispatcher.close()
        await self.pool.close(keep_warm)
        self.folder.close()


class Reply:
    """A response as it came."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        status, *fields = head.split(b"\r\n")
        self.status = int(status.split()[1])
        self.headers = {name.lower(): value for name, _, value in (f.partition(b": ") for f in fields)}

    @property
    def start(self) -> bytes | None:
        """Return the kind of start that served the call."""
        return self.headers.get(b"x-hearth-start")

    @property
    def problem(self) -> Any:
        """Return the problem that it tells, or None if it tells none."""
        return json.loads(self.body) if b"problem+json" in self.headers.get(b"content-type", b"") else None


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
