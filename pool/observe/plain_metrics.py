"""Metrics that every call or every function changes: plain numbers without a lock, read when Prometheus asks.

The metrics of prometheus_client are safe for many threads, and cost several times as much. These belong to the thread
of the event loop. Anything that happens less often than a call uses prometheus_client. This module also writes their
text: a thousand functions have 68,000 lines, for which prometheus_client needs half a second.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from pool.clock import next_turn

ESCAPED = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
"""Escapes of characters in the value of a label, as Prometheus wants them."""


LINES_AT_ONCE = 500
"""Lines written in one turn of the event loop: this takes about half a millisecond."""


class Plain(Protocol):
    """A metric of this module."""

    def lines(self) -> Iterator[str]:
        """Yield the lines of its text for Prometheus, each with its line end."""


class MetricRegistry(CollectorRegistry):
    """All metrics of one gateway: plain ones and those of prometheus_client."""

    def __init__(self) -> None:
        super().__init__()
        self._plain: list[Plain] = []

    def register_plain(self, metric: Plain) -> None:
        """Add a plain metric to `text`."""
        self._plain.append(metric)

    def text(self) -> bytes:
        """Return every metric, in the text format of Prometheus."""
        plain = "".join(line for metric in self._plain for line in metric.lines())
        return generate_latest(self) + plain.encode()

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield `text` in pieces, and let the loop run between them. Labels that appear meanwhile may be missing."""
        for collector in list(self._collector_to_names):
            yield generate_latest(_One(collector))
            await next_turn()
        for metric in self._plain:
            lines = metric.lines()
            while piece := list(islice(lines, LINES_AT_ONCE)):
                yield "".join(piece).encode()
                await next_turn()


class _One:
    """A registry of one collector, in the form that `generate_latest` wants."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def collect(self) -> Iterable[Metric]:
        """Return its metrics."""
        return self._collector.collect()


def _head(name: str, text: str, kind: str) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    """Return `name="value"` for each label, separated by commas, without the braces."""
    return ",".join(f'{name}="{value.translate(ESCAPED)}"' for name, value in zip(names, values, strict=True))


class Count:
    """One counter. Callers add to `value`, which only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class PlainCounter:
    """All counters of one name, one for each combination of label values."""

    kind = "counter"

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: MetricRegistry) -> None:
        self.name = name
        self.label_names = tuple(labels)
        self._text = text
        self._of: dict[tuple[str, ...], Count] = {}
        registry.register_plain(self)

    def labels(self, *values: str) -> Count:
        """Return the counter with these label values. Callers may keep it."""
        count = self._of.get(values)
        if count is None:
            count = self._of[values] = Count()
        return count

    def value_of(self, *values: str) -> int:
        """Return the value of the counter with these label values. A missing counter is 0 and is not made."""
        count = self._of.get(values)
        return count.value if count is not None else 0

    def values(self) -> Iterator[tuple[tuple[str, ...], int]]:
        """Yield the label values of each counter with its value."""
        yield from ((values, count.value) for values, count in list(self._of.items()))

    def lines(self) -> Iterator[str]:
        """Yield the lines of its text for Prometheus, each with its line end."""
        yield _head(f"{self.name}_total", self._text, self.kind)
        for values, count in list(self._of.items()):
            yield f"{self.name}_total{{{_labels(self.label_names, values)}}} {float(count.value)}\n"


class PlainGauge:
    """Gauges of one name, by labels. They keep no numbers: `read` gives them each time Prometheus asks."""

    kind = "gauge"

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: MetricRegistry) -> None:
        self.name = name
        self.label_names = tuple(labels)
        self.read: Callable[[], Iterable[tuple[tuple[str, ...], float]]] = lambda: ()
        """Return label values with their numbers. The owner of the numbers sets this function."""
        self._text = text
        registry.register_plain(self)

    def lines(self) -> Iterator[str]:
        """Yield the lines of its text for Prometheus, each with its line end."""
        yield _head(self.name, self._text, self.kind)
        for values, number in self.read():
            yield f"{self.name}{{{_labels(self.label_names, values)}}} {float(number)}\n"


class Spread:
    """One histogram: counts of its buckets, and the sum of its values."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Add one value. A value that equals a bound belongs to the bucket below it."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class PlainHistogram:
    """Histograms of one name, by labels. `bounds` are the ascending upper bounds of the buckets, without infinity."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        bounds: Sequence[float],
        registry: MetricRegistry,
    ) -> None:
        self.name = name
        self.label_names = tuple(labels)
        self._text = text
        self._bounds = tuple(bounds)
        self._names = [*map(floatToGoString, bounds), "+Inf"]
        self._of: dict[tuple[str, ...], Spread] = {}
        registry.register_plain(self)

    def labels(self, *values: str) -> Spread:
        """Return the histogram with these label values. Callers may keep it."""
        spread = self._of.get(values)
        if spread is None:
            spread = self._of[values] = Spread(self._bounds)
        return spread

    def lines(self) -> Iterator[str]:
        """Yield the lines of its text for Prometheus, each with its line end."""
        name = self.name
        yield _head(name, self._text, self.kind)
        for values, spread in list(self._of.items()):
            labels, below = _labels(self.label_names, values), 0
            for bound, count in zip(self._names, spread.counts, strict=True):
                below += count
                yield f'{name}_bucket{{{labels},le="{bound}"}} {below}.0\n'
            yield f"{name}_count{{{labels}}} {below}.0\n{name}_sum{{{labels}}} {spread.total}\n"
