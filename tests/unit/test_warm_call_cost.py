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

from tests.unit.warm_call_loop import ANSWER, WarmCall

ROOT = Path(__file__).parents[2]
MOST_INSTRUCTIONS = 260_000
"""Of a warm call within the gateway: its own code, without sockets and uvicorn. Builds of Python differ: 200,000 to
223,000 were counted."""


async def test_a_warm_call_makes_no_task() -> None:
    call = WarmCall()
    await call()
    loop, made = asyncio.get_running_loop(), []

    def count(
        loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **more: Any
    ) -> asyncio.Task[Any]:
        made.append(work)
        return asyncio.Task(work, loop=loop, **more)

    loop.set_task_factory(count)
    for _ in range(100):
        await call()
        assert call.sent[1]["body"] == ANSWER
        assert (b"x-hearth-start", b"warm") in call.sent[0]["headers"]
    loop.set_task_factory(None)
    assert made == []
    await call.pool.close()


def test_a_warm_call_stays_within_its_instructions(tmp_path: Path) -> None:
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        pytest.skip("valgrind counts instructions; make test installs it where it can")

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        environment = {"PYTHONHASHSEED": "0", "PATH": "/usr/bin:/bin"}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)

    loop = (sys.executable, "-m", "tests.unit.warm_call_loop")
    run(*loop, "0")  # compiles what has changed, which would be counted

    def instructions(calls: int) -> int:
        ran = run(valgrind, "--tool=callgrind", f"--callgrind-out-file={tmp_path / 'out'}", *loop, str(calls))
        line = next(line for line in ran.stderr.splitlines() if "Collected" in line)
        return int(line.rsplit(":", 1)[1])

    per_call = (instructions(600) - instructions(100)) // 500
    print(f"{per_call} instructions a warm call")
    assert 10_000 < per_call < MOST_INSTRUCTIONS
