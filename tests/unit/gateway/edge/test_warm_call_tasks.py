"""A warm call makes no task, and stays within its bytecodes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from tests.support.bytecodes import bytecodes
from tests.support.warm_call_loop import REQUEST, WarmCall

MOST_BYTECODES = 1_930
"""From the bytes of the request to those of the response, with the head of the call before it."""


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


async def test_a_warm_call_stays_within_its_bytecodes() -> None:
    """Builds of one version of Python have the same bytecodes; later versions have fewer."""
    call = WarmCall()
    await call.start()
    for _ in range(3):
        call()
    found = bytecodes(call)
    print(f"bytecodes of a warm call: {found.total()}; {found.most_common(8)}")
    assert 1_000 < found.total() <= MOST_BYTECODES
    await call.close()
