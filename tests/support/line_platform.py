"""A platform that exists in tests only: its contract, and a program that keeps it, in one file.

The program dials `lines.sock` in its folder. A call is one line of JSON, and so is its answer: `{"ok": text}` or
`{"error": text}`. Nothing of Hearth knows it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pool.contracts import problem_slugs as slugs
from pool.contracts.base import Contract
from pool.contracts.facts import Freezing
from pool.contracts.starter import Starter
from pool.engine.base import ContainerSpec, ContainerState, Mount
from pool.engine.memory_process import Process
from pool.errors import AnswerFault, InstanceDied, NotSent
from pool.instance import Instance
from pool.transport.message import Answer, Call
from pool.transport.socket_folder import listen

SOCKET = "lines.sock"


class LineAnswer:
    """The answer to one line."""

    complete = True
    feeding = None

    def __init__(self, line: bytes) -> None:
        self.said: dict[str, str] = json.loads(line)
        self._body = self.said.get("ok", "").encode()
        self.status = 200
        self.headers: list[tuple[bytes, bytes]] = [(b"content-type", b"text/plain")]

    def take(self) -> bytes:
        body, self._body = self._body, b""
        return body

    async def read(self) -> bytes:
        return self.take()


class LineConnection:
    """The connection that the program has dialled. One call at a time."""

    reusable = True

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    async def exchange(self, call: Call) -> Answer:
        self.writer.write(json.dumps({"call": call.first.decode()}).encode() + b"\n")
        line = await self._reader.readline()
        if not line:
            raise InstanceDied("the program closed its connection")
        return LineAnswer(line)


class LineLink:
    """One slot: the connection of the program, when there is one."""

    exit_status = None

    def __init__(self, folder: Path, on_change: Callable[[], None]) -> None:
        self._folder = folder
        self._on_change = on_change
        self._server: asyncio.Server | None = None
        self._connection: LineConnection | None = None
        self._taken = False
        self.connected = asyncio.Event()

    async def open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / SOCKET).unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._dialled, sock=listen(self._folder, SOCKET))

    async def _dialled(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connection = LineConnection(reader, writer)
        self.connected.set()
        self._on_change()

    @property
    def alive(self) -> bool:
        return self._connection is not None and not self._connection.writer.is_closing()

    def free_slots(self, in_use: int) -> int:
        return int(self.alive and not self._taken)

    def take(self) -> LineConnection | None:
        self._taken = True
        return self._connection

    async def connect(self, call: Call) -> LineConnection:
        raise NotSent("the program has not dialled")

    def give(self, connection: LineConnection) -> None:
        self._taken = False

    def drain_log(self) -> None:
        pass

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._connection is not None:
            self._connection.writer.close()


class LineContract(Contract):
    """The contract of the platform."""

    name = "lines"
    freezing = Freezing.ALWAYS
    dies_with_connection = True
    methods = frozenset({"POST", "PUT"})

    async def launch(self, starter: Starter, instance: Instance, prototype: ContainerSpec) -> None:
        link = await self._listen(starter, instance)
        folder = Mount(str(starter.settings.run_folder / instance.id), "/run/lines")
        await starter.start(instance, replace(prototype, mounts=(*prototype.mounts, folder)))
        await starter.unless_it_ends(instance, self._dialled(link))

    async def reconnect(self, starter: Starter, instance: Instance, state: ContainerState) -> None:
        await self._dialled(await self._listen(starter, instance))

    async def _listen(self, starter: Starter, instance: Instance) -> LineLink:
        folder = starter.settings.run_folder / instance.id
        link = LineLink(folder, lambda: starter.reports.on_slots(instance))
        instance.link = link
        await link.open()
        return link

    async def _dialled(self, link: LineLink) -> None:
        await link.connected.wait()

    async def check_answer(self, answer: Answer) -> None:
        assert isinstance(answer, LineAnswer)
        if (error := answer.said.get("error")) is not None:
            raise AnswerFault(slugs.HANDLER_RAISED, error)


LINES = LineContract()


async def line_program(process: Process) -> int:
    """Dial, answer each line in capitals, and dial again after the gateway has gone."""
    folder = os.open(process.spec.mounts[0].source, os.O_RDONLY)
    try:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{SOCKET}")
                try:
                    while line := await reader.readline():
                        text = json.loads(line)["call"]
                        if text == "die":
                            return 3
                        answer = {"error": "asked to"} if text == "fail" else {"ok": text.upper()}
                        writer.write(json.dumps(answer).encode() + b"\n")
                finally:
                    writer.close()
            await asyncio.sleep(0.01)
    finally:
        os.close(folder)
