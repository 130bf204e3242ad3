"""The way to a command: one container for one call. Body to stdin, stdout is the answer, exit status decides."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import IO

from pool.engine.base import Attachment, ContainerSpec, Engine, EngineError, EngineUnreachable, NotRunnable
from pool.engine.labels import INVOCATION_LABEL
from pool.errors import AnswerTooLarge, CommandFailed, EngineLost, NotSent
from pool.transport.message import Answer, Call

MAX_IN_MEMORY_BYTES = 2**20
"""Bounds an answer in memory, in bytes. A longer one waits in a temporary file for the exit status."""
PIECE_BYTES = 64 * 1024
STDOUT = 1


async def create_surely(engine: Engine, spec: ContainerSpec, created: Callable[[str], None]) -> str:
    """Create a container and tell `created` its id, also if we are cancelled meanwhile. Raises `EngineError`.

    The engine creates it all the same, and it has to be removed.
    """
    creating = asyncio.ensure_future(engine.create(spec))
    try:
        container = await asyncio.shield(creating)
    except asyncio.CancelledError:
        with contextlib.suppress(EngineError):
            created(await creating)
        raise
    created(container)
    return container


@dataclass(frozen=True, slots=True)
class CommandStreams:
    """The standard streams of a command, over a connection each way.

    Over one, the engine does not tell the end of the output of a command that has ended before it read its input.
    """

    stdin: Attachment
    output: Attachment

    @classmethod
    async def attach(cls, engine: Engine, container: str) -> CommandStreams:
        """Attach to a container before it starts. Raises `EngineError`."""
        stdin = await engine.attach(container, output=False)
        try:
            return cls(stdin, await engine.attach(container, stdin=False))
        except BaseException:
            await stdin.close()
            raise

    async def close(self) -> None:
        """Let go of both; safe to call twice."""
        await self.stdin.close()
        await self.output.close()


class CommandLink:
    """The right to run one container of an image.

    The container is created for its call, since the call's meta-variables are part of its environment.
    """

    def __init__(
        self,
        engine: Engine,
        spec: ContainerSpec,
        starts: asyncio.Semaphore,
        created: Callable[[str], None],
        max_output: int,
    ) -> None:
        self._engine = engine
        self._spec = spec
        self._starts = starts
        self._created = created
        self._max_output = max_output
        self.log: Callable[[bytes], None] = lambda data: None
        """Takes what the command writes to stderr."""
        self._run: CommandRun | None = None

    @property
    def exit_status(self) -> int | None:
        """Return the exit status of the container, or None if it has not ended by itself."""
        return None if self._run is None else self._run.exit_status

    @property
    def alive(self) -> bool:
        """Return True: between calls there is no process that could be dead."""
        return True

    def free_slots(self, in_use: int) -> int:
        """Return 1 before the first call, and 0 after it."""
        return 0 if in_use or self._run else 1

    def take(self) -> None:
        """Return None: no connection is open before `connect`."""
        return

    async def connect(self, call: Call) -> CommandRun:
        """Create and start the container for this call. Raises `NotSent` if the engine does not, and
        `CommandFailed` if the image does not have the command."""
        meta = call.meta or {}
        labels = {**self._spec.labels, INVOCATION_LABEL: meta.get("HEARTH_INVOCATION_ID", "")}
        spec = replace(self._spec, env={**meta, **self._spec.env}, labels=labels)
        async with self._starts:
            try:
                container = await create_surely(self._engine, spec, self._created)
                streams = await CommandStreams.attach(self._engine, container)
                try:
                    await self._engine.start(container)
                except BaseException:
                    await streams.close()
                    raise
            except NotRunnable as error:
                raise CommandFailed(f"the command cannot be run: {error}") from error
            except EngineError as error:
                raise NotSent(f"the command's container could not be started: {error}") from error
        self._run = CommandRun(self._engine, container, streams, self._max_output, self.log)
        return self._run

    def give(self, connection: CommandRun) -> None:
        """Do nothing: the pool destroys the container."""

    def drain_log(self) -> None:
        """Do nothing: stderr is read before the answer is complete."""

    async def close(self) -> None:
        """Let go of the streams."""
        if self._run is not None:
            await self._run.close()


class CommandRun:
    """A running command, and then its answer."""

    def __init__(
        self,
        engine: Engine,
        container: str,
        streams: CommandStreams,
        limit: int,
        log: Callable[[bytes], None],
    ) -> None:
        self._engine = engine
        self._container = container
        self._streams = streams
        self._limit = limit
        self._log = log
        self._output: IO[bytes] = tempfile.SpooledTemporaryFile(MAX_IN_MEMORY_BYTES)  # noqa: SIM115 - closed by close()
        self._size = 0
        self.exit_status: int | None = None
        """Exit status, or None until it has ended by itself."""
        self.status = 200
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False
        self._left = 0

    async def exchange(self, call: Call) -> Answer:
        """Feed the body, collect the output and wait for the exit status.

        The end of the command ends it, however much of the body is left. So does a body that breaks off.

        Raises `CommandFailed` for a status other than 0, `AnswerTooLarge` for output over the limit, `EngineLost`,
        and what the body raises.
        """
        feeding = asyncio.ensure_future(self._feed(call))
        running = asyncio.ensure_future(self._run_to_its_end())
        try:
            await asyncio.wait((feeding, running), return_when=asyncio.FIRST_COMPLETED)
            if feeding.done():
                feeding.result()
            status = await running
            if feeding.done():
                feeding.result()
        except EngineUnreachable as error:
            raise EngineLost(f"the engine went away while the command ran: {error}") from error
        except EngineError as error:
            raise CommandFailed(f"the command's container was lost: {error}") from error
        finally:
            feeding.cancel()
            running.cancel()
            await asyncio.gather(feeding, running, return_exceptions=True)
        if status != 0:
            raise CommandFailed(await self._obituary(status))
        self._output.seek(0)
        self._left = self._size
        self.headers = [(b"content-length", b"%d" % self._size)]
        return self

    async def _run_to_its_end(self) -> int:
        await self._collect()
        self.exit_status = await self._engine.wait(self._container)
        return self.exit_status

    async def _feed(self, call: Call) -> None:
        piece = call.first
        while True:
            if piece:
                await self._streams.stdin.write(piece)
            if call.more is None:
                break
            piece = await call.more()
            if not piece:
                break
        await self._streams.stdin.close_stdin()

    async def _collect(self) -> None:
        while (frame := await self._streams.output.read()) is not None:
            stream, data = frame
            if stream != STDOUT:
                self._log(data)
                continue
            self._size += len(data)
            if self._size > self._limit:
                raise AnswerTooLarge(f"the command wrote more than {self._limit} bytes")
            self._output.write(data)

    async def _obituary(self, status: int) -> str:
        with contextlib.suppress(EngineError):
            if (await self._engine.inspect(self._container)).oom_killed:
                return f"the command was killed for want of memory (exit status {status})"
        return f"the command ended with exit status {status}"

    def take(self) -> bytes:
        """Return the next piece of the output."""
        data = self._output.read(PIECE_BYTES)
        self._left -= len(data)
        self.complete = self._left <= 0
        return data

    async def read(self) -> bytes:
        """Return the next piece of the output; empty at its end."""
        return self.take()

    @property
    def reusable(self) -> bool:
        """Return False: one container serves one call."""
        return False

    async def close(self) -> None:
        """Let go of the streams and of the output."""
        self._output.close()
        await self._streams.close()
