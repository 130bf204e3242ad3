"""What becomes of the benchmark's figures: targets, comparisons of two runs, pictures and the table."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from bench import plots
from bench.compare import Change, changes, differences, main
from bench.figures import Latencies, Outcome, Series
from bench.plots import draw, nines_of
from bench.report import Report, markdown
from bench.runs import SCENARIOS
from bench.scenarios import Result, by_turns
from bench.targets import TARGETS, judge

MACHINE: dict[str, Any] = {
    "cores": 2,
    "cpu": "a CPU",
    "memory": 2**33,
    "kernel": "6.1",
    "engine": "20.10",
    "cgroup": 1,
    "python": "3.11.2",
    "revision": "abc",
    "load_average": [0.5, 0.4, 0.3],
}


class Silent:
    """A progress that nobody looks at."""

    def show(self, detail: str, done: float | None = None) -> None:
        assert done is None or 0 <= done <= 1


def report(added: float = 0.4, rates: tuple[float, ...] = (100.0, 110.0, 120.0)) -> Report:
    gateway, proxy = (
        Series("wrk-gateway", "gateway", Latencies([2_000_000] * 50), [2.0, 2.1, 2.2], list(rates)),
        Series("wrk-nginx", "nginx", Latencies([1_000_000] * 50), [1.0, 1.0, 1.0], [400.0, 400.0, 400.0]),
    )
    burst = Series("burst", "burst", Latencies([10**8]), [9.0])
    burst.timeline = [(8.0, "prewarmed"), (200.0, "cold")]
    result = Result([gateway, proxy, burst])
    result.compare_rates("warm_to_nginx", "warm / nginx", gateway, proxy, "req/s", "warm_to_nginx")
    result.judge_median("added", [added, added + 0.01, added + 0.02])
    return Report(
        *("run", "2026-01-01T00:00:00+00:00", ["/some/where/load.py", "--start"], MACHINE, {}, {}),
        series=result.series,
        ratios=result.ratios,
        findings=result.findings,
    )


def test_every_target_belongs_to_a_scenario() -> None:
    assert {target.scenario for target in TARGETS.values()} == set(SCENARIOS)
    assert all(target.name == name for name, target in TARGETS.items())


@pytest.mark.parametrize(
    ("name", "value", "met", "used"),
    [
        ("added", 0.30, True, 1.0),
        ("added", 0.36, False, 1.2),
        ("warm_to_nginx", 0.45, True, 1.0),
        ("warm_to_nginx", 0.9, True, 0.5),
        ("warm_to_nginx", 0.15, False, 3.0),
        ("stream_memory", 0.0, True, 0.0),
        ("warm_to_nginx", 0.0, False, math.inf),
    ],
)
def test_a_target_is_met_or_not(name: str, value: float, met: bool, used: float) -> None:
    finding = judge(name, value)
    assert finding.met is met
    assert plots.share(finding.as_json()) == pytest.approx(used)


def test_a_ratio_of_rates_judges_its_target() -> None:
    ratio, finding = report().ratios[0], report().findings[0]
    assert (ratio.value, ratio.unit, ratio.measured, ratio.reference) == (0.275, "req/s", 110, 400)
    assert (finding.value, finding.low, finding.high, finding.met) == (0.275, 0.2625, 0.2875, False)


async def test_loops_take_turns_and_what_they_saw_is_added_up() -> None:
    order: list[str] = []

    def loop(name: str) -> Any:
        async def once() -> Outcome:
            order.append(name)
            latencies = Latencies([1_000_000]) if name == "a" else Latencies()
            return Outcome(latencies, 5.0, 1, Counter({"bad": 1}), Counter(warm=1))

        return Series(name, name), once

    loops = [loop("a"), loop("b")]
    await by_turns(loops, 3, Silent())
    a, b = loops[0][0], loops[1][0]
    assert "".join(order) == "abbaab"
    assert (a.rates, len(a.latencies), a.faults["bad"], a.starts["warm"]) == ([5.0] * 3, 3, 3, 3)
    assert (b.rates, b.samples, b.faults["bad"]) == ([], [], 3)


def test_the_report_shows_targets_first_and_says_which_are_not_met() -> None:
    out = StringIO()
    report().show(Console(file=out, width=110))
    text = out.getvalue()
    assert text.index("Targets") < text.index("Ratios")
    assert "not met" in text
    assert "≥ 0.450" in text


def test_the_table_names_the_machine_and_no_folder_of_it() -> None:
    text = markdown(report())
    assert "| warm req/s / nginx, 16 clients | 0.275 | 0.263–0.287 | ≥ 0.450 | **not met** |" in text
    assert "`python bench/load.py --start` at abc" in text
    assert "2 cores (a CPU), 8 GiB" in text
    assert "/some/where" not in text


def test_pictures_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    drawn = draw(json.loads(json.dumps(report().as_json())), tmp_path / "r")
    assert [file.name for file in drawn] == ["r-latency.png", "r-burst.png", "r-targets.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in drawn)
    empty = replace(report(), series=[], findings=[])
    assert draw(empty.as_json(), tmp_path / "none") == []


def test_each_nine_has_as_much_room() -> None:
    assert [nines_of(percent) for percent in (0, 90, 99, 99.9)] == pytest.approx([0, 1, 2, 3])


def test_what_moves_less_than_the_noise_has_not_changed() -> None:
    old, near, far = (9.0, 10.0, 11.0), (10.0, 11.0, 12.0), (12.0, 13.0, 14.0)
    assert not Change("t", "ms", old, near, 5).changed
    assert Change("t", "ms", old, far, 5).changed
    assert Change("t", "ms", far, old, 5).changed
    assert not Change("t", "ms", (10.0,) * 3, (20.0,) * 3, 1).changed
    assert Change("t", "ms", old, far, 5).ratio == pytest.approx(1.3)
    assert Change("t", "ms", (0.0,) * 3, old, 5).ratio is None


def test_two_runs_are_compared_figure_by_figure(tmp_path: Path) -> None:
    a, b = report(), report(added=0.2, rates=(200.0, 210.0, 220.0))
    found = {(c.title, c.unit): c for c in changes(a.as_json(), b.as_json())}
    assert found["warm / nginx", ""].changed
    assert found["warm p50, added to a direct call", "ms"].ratio == pytest.approx(0.21 / 0.41)
    assert not found["nginx", "/s"].changed
    for name, one in (("a.json", a), ("b.json", b)):
        one.write(tmp_path / name)
    done = CliRunner().invoke(main, [str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    assert done.exit_code == 0
    assert "changed" in done.output
    assert "another machine" not in done.output


def test_another_machine_is_said() -> None:
    a, b = report().as_json(), report().as_json()
    b["machine"] = {**MACHINE, "cores": 64}
    assert differences(a, b) == ["cores: 2 and 64"]


@pytest.mark.parametrize("content", ["", "[]", '{"schema": 1}', '{"scheme": 2}'])
def test_what_is_no_result_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    report().write(tmp_path / "b.json")
    done = CliRunner().invoke(main, [str(tmp_path / "b.json"), str(tmp_path / "a.json")])
    assert done.exit_code == 1
    assert "a.json" in done.output
