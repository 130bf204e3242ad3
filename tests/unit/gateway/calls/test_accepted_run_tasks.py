"""Accepted calls are run without a task each, and recorded many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from tests.support.accepted_run_loop import MEASURED, AcceptedRuns


async def test_a_backlog_is_run_with_few_tasks_and_few_commits(tmp_path: Path) -> None:
    floor = AcceptedRuns(tmp_path / "calls.db")
    await floor.start()
    loop, made = asyncio.get_running_loop(), []

    def count(
        loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **more: Any
    ) -> asyncio.Task[Any]:
        made.append(work.__qualname__)
        return asyncio.Task(work, loop=loop, **more)

    await floor.accept(MEASURED)
    commits = floor.store.commits
    loop.set_task_factory(count)
    await floor.until_all_have_run()
    loop.set_task_factory(None)
    assert set(made) == {"Worker._take", "Recorder._write"}, "leasing and recording, no run"
    assert len(made) < MEASURED / 4
    assert floor.store.commits - commits < MEASURED / 4
    assert not any(lane.running for lane in floor.worker.lanes)
    await floor.close()
