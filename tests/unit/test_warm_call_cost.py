"""What a warm call costs in the gateway, counted and not timed."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.unit.warm_call_loop import REQUEST, WarmCall

ROOT = Path(__file__).parents[2]
MOST_INSTRUCTIONS = {"same": 165_000, "changing": 260_000}
"""Of a warm call from the bytes of the request to those of the response, HTTP included, the kernel and the loop's
sockets not: with the head of the call before it, and with another one. Builds of Python differ: 100,000 to 127,000
and 160,000 to 205,000 were counted."""


async def test_a_warm_call_makes_no_task() -> None:
    call = WarmCall()
    await call.start()
    call()
    loop, made = asyncio.get_running_loop(), []

    def count(
        loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **more: Any
    ) -> asyncio.Task[Any]:
        made.append(work)
        return asyncio.Task(work, loop=loop, **more)

    loop.set_task_factory(count)
    for n in range(100):
        response = call(REQUEST % (b"x-n: %d\r\n" % (n // 2)))
        head, _, body = response.partition(b"\r\n\r\n")
        assert body == b'{"message":"Hello, Ada!"}'
        assert b"\r\nx-hearth-start: warm\r\n" in head
    loop.set_task_factory(None)
    assert made == []
    await call.pool.close()


@pytest.mark.parametrize("heads", MOST_INSTRUCTIONS)
def test_a_warm_call_stays_within_its_instructions(heads: str, tmp_path: Path) -> None:
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        pytest.skip("valgrind counts instructions; make test installs it where it can")

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        environment = {"PYTHONHASHSEED": "0", "PATH": "/usr/bin:/bin"}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)

    loop = (sys.executable, "-m", "tests.unit.warm_call_loop", heads)
    run(*loop, "0")  # compiles what has changed, which would be counted

    def instructions(calls: int) -> int:
        ran = run(valgrind, "--tool=callgrind", f"--callgrind-out-file={tmp_path / 'out'}", *loop, str(calls))
        line = next(line for line in ran.stderr.splitlines() if "Collected" in line)
        return int(line.rsplit(":", 1)[1])

    per_call = (instructions(600) - instructions(100)) // 500
    print(f"{per_call} instructions a warm call, {heads} head")
    assert 10_000 < per_call < MOST_INSTRUCTIONS[heads]
