"""The terminal of this process, tied to that of a container."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import termios
import tty
from collections.abc import Iterator

from pool.engine.base import EngineError
from pool.engine.docker import DockerEngine
from pool.engine.hijack import HijackedConnection

READ_BYTES = 4096


@contextlib.contextmanager
def raw_terminal(descriptor: int) -> Iterator[None]:
    """Have a terminal pass each key on as it is. At the end it is as before."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


async def tie(engine: DockerEngine, container: str) -> int:
    """Start a container, pass keys and output on until it has ended, and return its exit status."""
    loop = asyncio.get_running_loop()
    connection = await engine.terminal(container)
    keys: asyncio.Queue[bytes] = asyncio.Queue()

    def resize() -> None:
        size = shutil.get_terminal_size()
        resizing.append(asyncio.ensure_future(fit(engine, container, size.lines, size.columns)))

    resizing: list[asyncio.Task[None]] = []
    typing = asyncio.ensure_future(pass_keys(keys, connection))
    try:
        await engine.start(container)
        resize()
        loop.add_signal_handler(signal.SIGWINCH, resize)
        with raw_terminal(0):
            loop.add_reader(0, lambda: keys.put_nowait(os.read(0, READ_BYTES)))
            try:
                while data := await connection.read_terminal():
                    os.write(1, data)
            finally:
                loop.remove_reader(0)
        return await engine.wait(container)
    finally:
        for task in (typing, *resizing):
            task.cancel()
        await asyncio.gather(typing, *resizing, return_exceptions=True)
        await connection.close()


async def pass_keys(keys: asyncio.Queue[bytes], connection: HijackedConnection) -> None:
    """Send what is typed, until the terminal is closed."""
    while data := await keys.get():
        await connection.write(data)
    await connection.close_stdin()


async def fit(engine: DockerEngine, container: str, lines: int, columns: int) -> None:
    """Give the container's terminal the size of ours. One that has ended needs none."""
    with contextlib.suppress(EngineError):
        await engine.resize_terminal(container, lines, columns)
