"""What a run of an accepted call costs in the gateway, counted and not timed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.accepted_run_loop import MEASURED, AcceptedRuns
from tests.support.callgrind import compile_first, instructions

LOOP = "tests.support.accepted_run_loop"
MOST_INSTRUCTIONS = 550_000
"""Of a run in a backlog, from leasing the call to its record, SQLite's included; the kernel and the sockets not."""


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
    assert not floor.worker._attempts
    await floor.close()


@pytest.mark.timeout(900)  # valgrind takes fifty times as long, on a busy machine much more
def test_a_run_stays_within_its_instructions(tmp_path: Path) -> None:
    compile_first(LOOP, str(tmp_path / "first.db"), "run")

    def counted(what: str) -> int:
        return instructions(LOOP, str(tmp_path / f"{what}.db"), what, report=tmp_path / what)

    with ThreadPoolExecutor() as threads:  # what runs beside changes only how many share a commit
        kept, ran = threads.map(counted, ("keep", "run"))
    per_run = (ran - kept) // MEASURED
    print(f"instructions a run: {per_run}")
    assert 50_000 < per_run < MOST_INSTRUCTIONS
