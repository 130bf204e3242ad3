"""The load that `hearth top` shows, and how its screen fits a terminal."""

from __future__ import annotations

from typing import Any

import click
import pytest

from gateway.cli.commands.watching.top import FEWEST_ROWS, frame
from gateway.cli.tables import cells
from gateway.cli.watch.load_table import SORT_KEYS, FunctionLoad, LoadSample, loads, rate, summary


def pool(**functions: dict[str, Any]) -> dict[str, Any]:
    rest = {"instances": {}, "queue_depth": 0, "ended": 0, "failed": 0, "memory": 0}
    shown = {name: rest | given for name, given in functions.items()}
    return {"functions": shown, "prewarm": [{"ready": 2}], "memory_declared": 2**20, "memory_budget": 2**30}


def load(name: str, **given: Any) -> FunctionLoad:
    facts = {"calls": 0.0, "errors": 0.0, "p50": None, "p99": None, "warm": 0, "busy": 0, "starting": 0}
    return FunctionLoad(name, **(facts | {"queue": 0, "memory": 0} | given))


def test_rates_are_counted_between_two_samples() -> None:
    before = LoadSample(10.0, pool(f={"ended": 100, "failed": 10}), {})
    states = {"idle": 1, "frozen": 2, "busy": 3, "draining": 1, "starting": 1, "stopping": 5}
    now = LoadSample(
        12.0,
        pool(f={"ended": 140, "failed": 11, "instances": states, "queue_depth": 7, "memory": 5}),
        {"f": {"calls": 40, "p50": 0.01, "p99": 0.2}},
    )
    assert loads(before, now) == [FunctionLoad("f", 20.0, 0.5, 0.01, 0.2, 3, 4, 1, 7, 5)]
    assert summary(loads(before, now), now) == (
        "20 calls/s, 0.5 errors/s, 7 waiting",
        "memory 1 MiB of 1 GiB, 2 prewarmed",
    )


def test_a_restarted_gateway_and_a_new_function_have_no_rate_yet() -> None:
    before = LoadSample(0.0, pool(f={"ended": 100}), {})
    now = LoadSample(1.0, pool(f={"ended": 3}, new={"ended": 50}), {})
    assert [(found.name, found.calls) for found in loads(before, now)] == [("f", 0.0), ("new", 0.0)]


@pytest.mark.parametrize("key", list(SORT_KEYS))
def test_the_functions_are_in_the_wanted_order(key: str) -> None:
    most = {"calls": 9.0, "errors": 9.0, "p99": 9.0, "busy": 9, "queue": 9, "memory": 9}
    first = load("a") if key == "name" else load("z", **{key: most[key]})
    found = sorted([load("b"), first, load("c")], key=SORT_KEYS[key])
    assert [each.name for each in found] == [first.name, "b", "c"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "-"), (0.04, "0.0"), (0.3, "0.3"), (12.4, "12"), (4100.0, "4100")]
)
def test_rates_are_short(value: float, text: str) -> None:
    assert rate(value) == text


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("height", [10, 24, 50])
def test_the_screen_fits_the_terminal(width: int, height: int) -> None:
    found = [load(f"nightly-report-{n}", calls=1234.5, p50=0.01, p99=1.0, memory=2**31) for n in range(100)]
    lines = [click.unstyle(line) for line in frame(found, LoadSample(0.0, pool(), {}), width, height)]
    assert len(lines) <= height
    assert max(map(cells, lines)) <= width
    assert sum("nightly" in line for line in lines) >= FEWEST_ROWS
    assert any("more functions" in line for line in lines)


def test_the_screen_says_that_the_gateway_is_away_and_that_there_is_nothing() -> None:
    (line,) = frame([], None, 80, 24)
    assert "waiting for it" in line
    assert any("hearth init" in line for line in frame([], LoadSample(0.0, pool(), {}), 80, 24))
