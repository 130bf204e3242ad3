"""A hundred thousand accepted calls of one function, on a real gateway: others hardly notice."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from harness import Gateway, eventually, handler

from scheduler.store.sqlite.rows.batch_rows import insert_all
from scheduler.store.sqlite.writer import Writer
from scheduler.work import NewCall, Request

pytestmark = pytest.mark.engine

FLOOD = 100_000
SLEEP = "import time\n\ndef handle(event, context):\n    time.sleep(1)\n"


async def keep(file: Path) -> None:
    """Have a store that an earlier process has left, full of calls of `flood`."""
    writer, now = Writer(file), time.time()
    calls = [(NewCall(f"{number:032x}", "flood", Request(), b"{}"), now) for number in range(FLOOD)]
    await writer.do(lambda db: insert_all(db, calls))
    await writer.close()


def test_a_flood_of_one_function_holds_no_other_up(tmp_path: Path) -> None:
    functions = {
        "flood": handler(SLEEP, max_instances=2),
        "other": handler("def handle(event, context):\n    return event\n", min_instances=1),
    }
    gateway = Gateway(tmp_path, functions)
    gateway.data.mkdir()
    asyncio.run(keep(gateway.data / "calls.db"))
    with gateway:
        eventually(lambda: gateway.metric("hearth_async_ended_total", function="flood"), 30)
        before = gateway.metric("hearth_async_ended_total", function="flood")
        answer = gateway.call("other", 1, headers={"prefer": "respond-async, wait=30"})
        assert (answer.status_code, answer.json()) == (200, 1)
        assert gateway.call("other", 2).json() == 2
        assert gateway.call("flood", 3, timeout=30).status_code == 200, (
            "half of its slots are for direct calls"
        )
        after = gateway.metric("hearth_async_ended_total", function="flood")
        assert after - before < 30, "one place, a second each: others waited for none of them"
        assert gateway.metric("hearth_async_backlog", function="flood") > FLOOD - 100
