"""The instructions of a warm call in the gateway, counted by valgrind and not timed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.callgrind import compile_first, instructions

LOOP = "tests.support.warm_call_loop"
MOST_INSTRUCTIONS = {"same": 132_000, "changing": 230_000}
"""Of a warm call from the bytes of the request to those of the response, HTTP included, the kernel and the loop's
sockets not: with the head of the call before it, and with another one. Builds of Python differ."""


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
