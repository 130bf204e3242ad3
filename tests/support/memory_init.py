"""init for images of the engine in memory: it dials the gateway as docs/init.md says, and runs their program."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from pool.contracts.init_place import INIT
from pool.engine.memory_process import Process, Program
from pool.transport.socket_folder import CALLS_SOCKET, LOG_SOCKET
from tests.support.fake_init import FakeRun, serve_run
from tests.support.memory_shim import dial

REDIAL_SECONDS = 0.001


class RunProcess(Process):
    """The view that a program has of one run."""

    def __init__(self, outer: Process, run: FakeRun, log: asyncio.StreamWriter) -> None:
        self.spec = replace(outer.spec, env={**outer.spec.env, **run.variables})
        self.clock = outer.clock
        self._run = run
        self._log = log

    async def read(self) -> bytes | None:
        """Return the next piece of stdin, or None at its end."""
        return await self._run.stdin.read() or None

    async def write(self, data: bytes, stream: int = 1) -> None:
        """Write to stdout (1), or to stderr (2), which is the log."""
        if stream == 1:
            await self._run.write(data)
        else:
            self._log.write(data)
            await self._log.drain()


def under_init(program: Program) -> Program:
    """Return init as the program of an image, for containers in which it is the first process. It runs `program`."""

    async def init(process: Process) -> int:
        arguments = process.spec.entrypoint or ()
        assert arguments[:1] == (INIT,), "this container has no init"
        flags = arguments[: arguments.index("--")]
        slots = int(flags[flags.index("--calls") + 1])
        _, log = await dial(process, LOG_SOCKET)
        serving = [
            asyncio.ensure_future(serve(process, program, log, once="--once" in flags)) for _ in range(slots)
        ]
        try:
            done, _ = await asyncio.wait(serving, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for task in serving:
                task.cancel()
            await asyncio.wait(serving)
            log.transport.abort()

    return init


async def serve(process: Process, program: Program, log: asyncio.StreamWriter, once: bool) -> int:
    """Dial for calls, again and again, and answer runs; with `once` until the first has ended."""
    statuses = []

    async def run(run: FakeRun) -> int:
        statuses.append(await program(RunProcess(process, run, log)))
        return statuses[-1]

    while True:
        try:
            reader, writer = await dial(process, CALLS_SOCKET)
        except OSError:  # no gateway listens now
            await asyncio.sleep(REDIAL_SECONDS)
            continue
        try:
            while await serve_run(reader, writer, run):
                if once and statuses:
                    return statuses[0]
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
