"""A warm call makes no task."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from tests.support.warm_call_loop import REQUEST, WarmCall


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
