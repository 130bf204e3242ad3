"""The instructions of a run of an accepted call in the gateway, counted by valgrind and not timed."""

from __future__ import annotations

from pathlib import Path

from tests.support.accepted_run_loop import MEASURED
from tests.support.callgrind import compile_first, instructions

LOOP = "tests.support.accepted_run_loop"
MOST_INSTRUCTIONS = 550_000
"""Of a run in a backlog, from leasing the call to its record, SQLite's included; the kernel and the sockets not."""


def test_a_run_stays_within_its_instructions(tmp_path: Path) -> None:
    compile_first(LOOP, str(tmp_path / "first.db"))
    per_run = instructions(LOOP, str(tmp_path / "counted.db"), report=tmp_path / "report") // MEASURED
    print(f"instructions a run: {per_run}")
    assert 50_000 < per_run < MOST_INSTRUCTIONS
