"""What a warm call costs in the gateway, counted and not timed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.callgrind import compile_first, instructions
from tests.support.warm_call_loop import REQUEST, WarmCall

LOOP = "tests.support.warm_call_loop"
MOST_INSTRUCTIONS = {"same": 165_000, "changing": 260_000}
"""Of a warm call from the bytes of the request to those of the response, HTTP included, the kernel and the loop's
sockets not: with the head of the call before it, and with another one. Builds of Python differ."""


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
    await call.close()


@pytest.mark.timeout(900)  # valgrind takes fifty times as long, on a busy machine much more
def test_a_warm_call_stays_within_its_instructions(tmp_path: Path) -> None:
    compile_first(LOOP, "same", "0")

    def counted(heads: str, calls: int) -> int:
        return instructions(LOOP, heads, str(calls), report=tmp_path / f"{heads}{calls}")

    with ThreadPoolExecutor() as threads:  # what is counted does not depend on what runs beside
        none = threads.submit(counted, "same", 0)
        ends = {heads: threads.submit(counted, heads, 500) for heads in MOST_INSTRUCTIONS}
        per_call = {heads: (end.result() - none.result()) // 500 for heads, end in ends.items()}
    print(f"instructions a warm call, by head: {per_call}")
    for heads, most in MOST_INSTRUCTIONS.items():
        assert 10_000 < per_call[heads] < most
