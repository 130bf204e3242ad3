"""The instructions of a warm call in the gateway, counted by valgrind and not timed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.callgrind import compile_first, instructions

LOOP = "tests.support.warm_call_loop"
MOST_INSTRUCTIONS = {"same": 132_000, "changing": 230_000}
"""Of a warm call from the bytes of the request to those of the response, HTTP included, the kernel and the loop's
sockets not: with the head of the call before it, and with another one. Builds of Python differ."""


CALLS = 500


@pytest.mark.parametrize("heads", MOST_INSTRUCTIONS)
def test_a_warm_call_stays_within_its_instructions(heads: str, tmp_path: Path) -> None:
    compile_first(LOOP, heads, "0")
    per_call = instructions(LOOP, heads, str(CALLS), report=tmp_path / "report") // CALLS
    print(f"instructions a warm call, {heads} head: {per_call}")
    assert 10_000 < per_call < MOST_INSTRUCTIONS[heads]
