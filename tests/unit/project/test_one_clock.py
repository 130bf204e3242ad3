"""No floor asks the event loop for the time, which a simulator could not move. ruff bans more of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FLOORS = ("gateway", "scheduler", "pool")
EXEMPT = ("pool/clock.py", "gateway/cli/")
"""The clock itself, and commands: each is a process of its own, in real time."""
UVICORN = "uvicorn's protocol sets its timers so, and a clock would cost each request one call more"
ALLOWED = {
    ("gateway/edge/client_protocol.py", "self.loop.call_later"): UVICORN,
    ("gateway/edge/slow_reader.py", "self.loop.call_later"): UVICORN,
}
"""By file and call: why it may ask the loop."""
BANNED_OF_ASYNCIO = {"timeout", "timeout_at", "wait_for", "sleep"}


def loop_time(tree: ast.Module) -> Iterator[str]:
    """Yield every call that takes the event loop's own time, as it is written."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        receiver, verb = ast.unparse(call.func.value), call.func.attr
        is_clock = receiver.endswith("clock")
        is_loop = receiver.endswith(("loop", "loop()"))
        if (
            (verb in ("call_later", "call_at") and not is_clock)
            or (verb == "time" and is_loop)
            or (receiver == "asyncio" and verb in BANNED_OF_ASYNCIO)
            or (
                receiver == "asyncio"
                and verb == "wait"
                and any(key.arg == "timeout" for key in call.keywords)
            )
        ):
            yield f"{receiver}.{verb}"


def uses() -> set[tuple[str, str]]:
    """Return each use in the three floors: the file and the call."""
    found: set[tuple[str, str]] = set()
    for floor in FLOORS:
        for file in (ROOT / floor).rglob("*.py"):
            name = str(file.relative_to(ROOT))
            if not name.startswith(EXEMPT):
                found |= {(name, call) for call in loop_time(ast.parse(file.read_text()))}
    return found


def test_nothing_takes_the_time_of_the_event_loop() -> None:
    found = uses()
    assert found - ALLOWED.keys() == set(), "use a pool.clock.Clock"
    assert ALLOWED.keys() - found == set(), "no longer needed here"


@pytest.mark.parametrize(
    "code",
    [
        "self._loop.time()",
        "asyncio.get_running_loop().time()",
        "loop.call_later(1, f)",
        "asyncio.get_event_loop().call_at(1, f)",
        "asyncio.timeout(1)",
        "asyncio.wait_for(f, 1)",
        "asyncio.wait(tasks, timeout=1)",
    ],
)
def test_each_way_to_the_loops_time_is_found(code: str) -> None:
    assert len(list(loop_time(ast.parse(code)))) == 1


@pytest.mark.parametrize("code", ["self._clock.call_later(1, f)", "clock.timeout(1)", "asyncio.wait(tasks)"])
def test_the_clock_s_own_time_is_allowed(code: str) -> None:
    assert list(loop_time(ast.parse(code))) == []
