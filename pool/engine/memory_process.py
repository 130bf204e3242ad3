"""The containers of a `MemoryEngine`: each has a program and streams."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace

from pool.clock import Clock, next_turn
from pool.engine.base import ContainerSpec, ContainerState, EngineError

KILLED = 128 + 9
OUTPUT_KEPT = 2**20
PIPE_PIECES = 16
"""Unread pieces of a stream at which its writer waits."""


class Pipe:
    """One direction of a container's streams; bounded, so that a writer waits for its reader."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[int, bytes]] = deque()
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def full(self) -> bool:
        """Return whether writers wait."""
        return len(self._pieces) >= PIPE_PIECES

    @property
    def size(self) -> int:
        """Return how many bytes wait to be read."""
        return sum(len(data) for _, data in self._pieces)

    async def put(self, stream: int, data: bytes) -> None:
        """Write data; a closed pipe drops it."""
        while self.full and not self._closed:
            await self._change()
        if not self._closed:
            self._pieces.append((stream, data))
            self._changed.set()

    async def get(self) -> tuple[int, bytes] | None:
        """Return the next piece, or None at the end."""
        while not self._pieces:
            if self._closed:
                return None
            await self._change()
        self._changed.set()
        return self._pieces.popleft()

    def close(self) -> None:
        """Close for writing; pieces written before can still be read."""
        self._closed = True
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class Process:
    """The view that a program has of its container."""

    def __init__(self, container: MemoryContainer, clock: Clock) -> None:
        self.spec = container.spec
        self.clock = clock
        self._container = container

    async def read(self) -> bytes | None:
        """Return the next piece of stdin, or None at its end or if stdin is not open."""
        await self._container.unpaused.wait()
        if not self.spec.stdin:
            return None
        piece = await self._container.stdin.get()
        return None if piece is None else piece[1]

    async def write(self, data: bytes, stream: int = 1) -> None:
        """Write to stdout (1) or stderr (2); wait for an attached reader."""
        container = self._container
        await container.unpaused.wait()
        if self.spec.keep_output:
            container.output += data
            del container.output[:-OUTPUT_KEPT]
        for pipe in list(container.watchers):
            await pipe.put(stream, data)
        if not container.watchers:
            await next_turn()  # one that writes for ever lets others run


Program = Callable[[Process], Awaitable[int]]
"""The program of an image. It returns the exit status."""


async def sleep_forever(process: Process) -> int:
    """Run until killed: the program of an image without one."""
    await asyncio.get_running_loop().create_future()
    return 0


class MemoryContainer:
    """A container of a `MemoryEngine`."""

    def __init__(
        self,
        container: str,
        pid: int,
        spec: ContainerSpec,
        image: str,
        program: Program,
        publish: Callable[[MemoryContainer, str], None],
    ) -> None:
        self.id = container
        self.spec = spec
        self.image = image
        self.running = False
        self.exit_code: int | None = None
        self.oom_killed = False
        self.volumes: tuple[str, ...] = ()
        self.stdin = Pipe()
        self.watchers: list[Pipe] = []
        self.output = bytearray()
        self.changed = asyncio.Event()
        self.unpaused = asyncio.Event()
        """Set unless it is paused: a program waits for it when it reads or writes."""
        self.unpaused.set()
        self._pid = pid
        self._program = program
        self._publish = publish
        self._task: asyncio.Task[None] | None = None

    def state(self) -> ContainerState:
        """Return the state as `inspect` does. The pid is made up: no process has it."""
        return ContainerState(
            id=self.id,
            name=self.spec.name,
            image=self.image,
            labels=dict(self.spec.labels),
            running=self.running,
            pid=self._pid if self.running else 0,
            paused=self.running and not self.unpaused.is_set(),
            exit_code=self.exit_code,
            oom_killed=self.oom_killed,
            volumes=self.volumes,
        )

    def start(self, clock: Clock) -> None:
        """Run the program; harmless if it runs already."""
        if self.running:
            return
        self.running, self.exit_code = True, None
        self._publish(self, "start")
        self._task = asyncio.ensure_future(self._run(Process(self, clock)))

    def pause(self) -> None:
        """Let the program stop at its next read or write. Raises `EngineError` when it is not running."""
        if not self.running:
            raise EngineError(f"Cannot pause container {self.id[:12]}: it is not running")
        self.unpaused.clear()

    def unpause(self) -> None:
        """Let the program go on. Raises `EngineError` when it is not running."""
        if not self.running:
            raise EngineError(f"Cannot unpause container {self.id[:12]}: it is not running")
        self.unpaused.set()

    def resize(self, memory: int, cpus: float) -> None:
        """Change the limits. Raises `EngineError` when it is not running."""
        if not self.running:
            raise EngineError(f"Cannot resize container {self.id[:12]}: it is not running")
        self.spec = replace(self.spec, memory=memory, cpus=cpus)

    def end(self, exit_code: int, oom: bool = False) -> None:
        """End with this status; harmless if it does not run."""
        if not self.running:
            return
        self.running, self.exit_code, self.oom_killed = False, exit_code, oom
        self.stop_program()
        if not self.stdin.full:  # else who writes goes on waiting, as with Docker
            self.stdin.close()
        for pipe in self.watchers:
            pipe.close()
        self.changed.set()
        if oom:
            self._publish(self, "oom")
        self._publish(self, "die")

    def stop_program(self) -> None:
        """Cancel the program's task, unless that task itself calls this."""
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    async def _run(self, process: Process) -> None:
        try:
            exit_code = await self._program(process)
        except Exception as error:  # a program that raises is a process that failed
            await process.write(f"{type(error).__name__}: {error}\n".encode(), 2)
            exit_code = 1
        self.end(exit_code)


class MemoryAttachment:
    """Streams of a `MemoryContainer`.

    As with Docker, a write that waits when it ends goes on waiting. Meanwhile the end of the output is not told to
    who is attached to both.
    """

    def __init__(self, container: MemoryContainer, stdin: bool, output: bool) -> None:
        self._container = container
        self._stdin = stdin
        self._output = Pipe()
        self._nothing_waits = asyncio.Event()
        self._nothing_waits.set()
        if output and container.exit_code is None:
            container.watchers.append(self._output)
        else:
            self._output.close()

    async def write(self, data: bytes) -> None:
        self._nothing_waits.clear()
        try:
            await self._container.stdin.put(0, data)
        finally:
            self._nothing_waits.set()

    @property
    def unread(self) -> int:
        """Return how many bytes of output wait to be read."""
        return self._output.size

    async def close_stdin(self) -> None:
        self._container.stdin.close()

    async def read(self) -> tuple[int, bytes] | None:
        frame = await self._output.get()
        if frame is None:
            await self._nothing_waits.wait()
        return frame

    async def close(self) -> None:
        if self._stdin:  # Docker ends a stdin that was opened once when its client leaves.
            self._container.stdin.close()
        self._output.close()
        if self._output in self._container.watchers:
            self._container.watchers.remove(self._output)
