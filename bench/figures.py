"""Statistics: histograms that can be added up, and ratios of what was measured side by side."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

LOWEST, HIGHEST, DIGITS = 100, 600 * 10**9, 3
"""Nanoseconds that a histogram tells apart, from and to, and to how many significant digits."""
PERCENTILES = (50.0, 90.0, 99.0, 99.9)


class Latencies:
    """An HdrHistogram of nanoseconds."""

    def __init__(self, nanoseconds: Iterable[int] = ()) -> None:
        self._histogram = HdrHistogram(LOWEST, HIGHEST, DIGITS)
        for value in nanoseconds:
            self._histogram.record_value(min(HIGHEST, max(LOWEST, value)))

    @classmethod
    def decode(cls, text: str) -> Latencies:
        """From what `encode` gave."""
        made = cls()
        made.add_encoded(text)
        return made

    def encode(self) -> str:
        """HdrHistogram's own compressed form (V2, base64), which its other tools read."""
        return str(self._histogram.encode().decode("ascii"))

    def add_encoded(self, text: str) -> None:
        """Add what another histogram has counted."""
        self._histogram.decode_and_add(text)

    def record(self, seconds: float, count: int = 1) -> None:
        """Add one value, `count` times."""
        self._histogram.record_value(min(HIGHEST, max(LOWEST, round(seconds * 1e9))), count)

    def __len__(self) -> int:
        return int(self._histogram.get_total_count())

    def percentile(self, percent: float) -> float:
        """Milliseconds; 0 if nothing was counted."""
        return float(self._histogram.get_value_at_percentile(percent)) / 1e6 if len(self) else 0.0

    @property
    def highest(self) -> float:
        """Milliseconds; 0 if nothing was counted."""
        return float(self._histogram.get_max_value()) / 1e6 if len(self) else 0.0

    def summary(self) -> dict[str, float]:
        """Percentiles and the highest value in milliseconds, as p50, p90, p99, p99.9 and max."""
        return {f"p{p:g}": self.percentile(p) for p in PERCENTILES} | {"max": self.highest}


@dataclass(slots=True)
class Outcome:
    """What was measured in one loop. `rate` is right answers a second, or MiB/s of a stream."""

    latencies: Latencies
    rate: float
    requests: int
    faults: Counter[str]
    starts: Counter[str]


@dataclass(slots=True)
class Series:
    """One line of the report: what was called how, and everything that was measured of it."""

    name: str
    title: str
    latencies: Latencies = field(default_factory=Latencies)
    """Of single calls."""
    samples: list[float] = field(default_factory=list)
    """Milliseconds, one for each sample that was taken beside the others, in their order: p50 of a round (warm),
    one call (prewarmed, cold, raw start), or the time until the last answer (burst)."""
    rates: list[float] = field(default_factory=list)
    """Right answers a second, or MiB/s of a stream; one for each round."""
    timeline: list[tuple[float, str]] = field(default_factory=list)
    """Of the last burst: when each answer came, in ms from its beginning, and the kind of its start."""
    faults: Counter[str] = field(default_factory=Counter)
    starts: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        """Add a loop: a sample (its p50) and a rate, if it had any right answer."""
        self.latencies.add_encoded(outcome.latencies.encode())
        self.faults.update(outcome.faults)
        self.starts.update(outcome.starts)
        if len(outcome.latencies):
            self.samples.append(outcome.latencies.percentile(50))
            self.rates.append(outcome.rate)

    @property
    def median(self) -> float | None:
        """Of the samples, milliseconds; None if there are none."""
        return statistics.median(self.samples) if self.samples else None

    @property
    def rate(self) -> float | None:
        """Median of the rates; None if there are none."""
        return statistics.median(self.rates) if self.rates else None

    def as_json(self) -> dict[str, Any]:
        """What the result file holds of it."""
        return {
            "title": self.title,
            "count": len(self.latencies),
            "latency_ms": self.latencies.summary(),
            "histogram": self.latencies.encode(),
            "sample_median_ms": self.median,
            "samples_ms": self.samples,
            "rate_median": self.rate,
            "rates": self.rates,
            "timeline": self.timeline,
            "faults": dict(self.faults),
            "starts": dict(self.starts),
        }


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as much one thing is as another, sample by sample: the median, and the quartiles."""

    name: str
    title: str
    value: float
    low: float
    high: float
    pairs: int
    measured: float
    reference: float
    """Medians, in `unit`."""
    added: float
    """Median of the differences, in `unit`."""
    unit: str = "ms"

    def as_json(self) -> dict[str, Any]:
        """What the result file holds of it."""
        return {
            "title": self.title,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "pairs": self.pairs,
            "measured": self.measured,
            "reference": self.reference,
            "added": self.added,
            "unit": self.unit,
        }


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median and third quartile of at least one value."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def paired_ratio(
    name: str, title: str, samples: Sequence[float], reference: Sequence[float], unit: str = "ms"
) -> Ratio | None:
    """The ratio of two things that were measured alternately, so that a machine that becomes slower meanwhile
    slows both. None if there is no pair."""
    pairs = [(a, b) for a, b in zip(samples, reference, strict=False) if b > 0]
    if not pairs:
        return None
    ratios = sorted(a / b for a, b in pairs)
    low, value, high = quartiles(ratios)
    return Ratio(
        name,
        title,
        value,
        low,
        high,
        len(pairs),
        measured=statistics.median(a for a, _ in pairs),
        reference=statistics.median(b for _, b in pairs),
        added=statistics.median(a - b for a, b in pairs),
        unit=unit,
    )
