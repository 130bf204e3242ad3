"""The instructions of a run of an accepted call in the gateway, counted by valgrind and not timed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.accepted_run_loop import MEASURED
from tests.support.callgrind import compile_first, instructions

LOOP = "tests.support.accepted_run_loop"
MOST_INSTRUCTIONS = 550_000
"""Of a run in a backlog, from leasing the call to its record, SQLite's included; the kernel and the sockets not."""


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
