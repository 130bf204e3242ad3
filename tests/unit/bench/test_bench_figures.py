"""The benchmark's statistics, against values that can be checked by hand."""

from __future__ import annotations

import json
import random
from collections import Counter
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from bench.figures import HIGHEST, LOWEST, Latencies, Series, paired_ratio
from bench.report import Report, figure

MS = 1_000_000


def test_percentiles_are_exact_to_three_digits() -> None:
    values = list(range(1, 10_001))
    random.Random(1).shuffle(values)
    summary = Latencies(value * 10_000 for value in values).summary()  # 0.01 ms to 100 ms
    expected = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
    assert summary == {name: pytest.approx(value, rel=2e-3) for name, value in expected.items()}


def test_histograms_add_up_and_survive_encoding() -> None:
    low, high = Latencies([1 * MS] * 99), Latencies([50 * MS])
    both = Latencies.decode(low.encode())
    both.add_encoded(high.encode())
    assert len(both) == 100
    assert both.percentile(50) == pytest.approx(1, rel=2e-3)
    assert both.highest == pytest.approx(50, rel=2e-3)
    assert len(low) == 99, "what was added to is another one"


def test_values_beyond_the_range_are_kept_at_its_ends() -> None:
    latencies = Latencies([0, 2 * HIGHEST])
    assert len(latencies) == 2
    assert latencies.percentile(50) * MS <= 2 * LOWEST
    assert latencies.highest * MS == pytest.approx(HIGHEST, rel=2e-3)


def test_nothing_measured_is_no_error() -> None:
    assert Latencies().summary() == dict.fromkeys(("p50", "p90", "p99", "p99.9", "max"), 0.0)
    assert Series("s", "s").median is None
    assert paired_ratio("r", "r", [], [1.0]) is None


def test_a_ratio_of_pairs_ignores_a_machine_that_becomes_slower() -> None:
    reference = [100.0, 110.0, 150.0, 300.0, 900.0]
    ratio = paired_ratio("r", "twice as long", [2 * value for value in reference], reference)
    assert ratio is not None
    assert (ratio.low, ratio.value, ratio.high, ratio.pairs) == (2.0, 2.0, 2.0, 5)
    assert (ratio.measured, ratio.reference, ratio.added) == (300.0, 150.0, 150.0)


def test_a_ratio_has_the_quartiles_of_the_pairs() -> None:
    ratio = paired_ratio("r", "r", [1.0, 2.0, 3.0, 4.0, 5.0], [1.0] * 5)
    assert ratio is not None
    assert (ratio.low, ratio.value, ratio.high) == (2.0, 3.0, 4.0)
    one = paired_ratio("r", "r", [3.0], [2.0])
    assert one is not None
    assert (one.low, one.value, one.high) == (1.5, 1.5, 1.5)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0294, "0.029"), (1.234, "1.23"), (12.34, "12.3"), (7005.4, "7005"), (-236.4, "-236")],
)
def test_figures_have_three_digits_and_no_exponent(value: float, shown: str) -> None:
    assert figure(value) == shown


def report_of(series: Series) -> Report:
    return Report("run", "2026-01-01T00:00:00+00:00", ["load.py"], {}, {}, {}, series=[series])


def test_a_report_says_faults_loudly(tmp_path: Path) -> None:
    bad = Series(
        "warm-1", "warm, 1 client", Latencies([MS]), faults=Counter({"status 503": 2, "wrong body": 1})
    )
    report = report_of(bad)
    out = StringIO()
    report.show(Console(file=out, width=120))
    assert "FAULT warm, 1 client: 2 × status 503" in out.getvalue()
    assert "worth nothing" in out.getvalue()
    report.write(tmp_path / "new" / "result.json")
    written = json.loads((tmp_path / "new" / "result.json").read_text())
    assert written["faults"] == {"status 503": 2, "wrong body": 1}
    assert len(Latencies.decode(written["series"]["warm-1"]["histogram"])) == 1
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["result.json"]


def test_a_report_without_faults_says_nothing_of_them() -> None:
    out = StringIO()
    report_of(Series("warm-1", "warm, 1 client", Latencies([MS]))).show(Console(file=out, width=120))
    assert "FAULT" not in out.getvalue()
    assert "warm, 1 client" in out.getvalue()
