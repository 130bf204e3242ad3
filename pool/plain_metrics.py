"""Metrics for the way of every call, and of every function: plain numbers without a lock, read when Prometheus asks.

prometheus_client's own are safe to use from many threads, and cost several times as much. Those here belong to
the thread of the event loop; everything that happens less often than a call uses prometheus_client's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Count:
    """One counter. Add to `value`; it only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class PlainCounter(Collector):
    """Counters of one name, by labels."""

    kind = "counter"

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self.name = name
        self.label_names = tuple(labels)
        self._text = text
        self._of: dict[tuple[str, ...], Count] = {}
        registry.register(self)

    def labels(self, *values: str) -> Count:
        """The counter with these label values; it may be kept."""
        count = self._of.get(values)
        if count is None:
            count = self._of[values] = Count()
        return count

    def value_of(self, *values: str) -> int:
        """What the counter with these label values stands at; asking makes none."""
        count = self._of.get(values)
        return count.value if count is not None else 0

    def collect(self) -> Iterable[CounterMetricFamily]:
        """For the registry."""
        family = CounterMetricFamily(self.name, self._text, labels=self.label_names)
        for values, count in self._of.items():
            family.add_metric(values, count.value)
        yield family


class PlainGauge(Collector):
    """Gauges of one name that are read where the truth is, each time Prometheus asks, and held nowhere."""

    kind = "gauge"

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self.name = name
        self.label_names = tuple(labels)
        self.read: Callable[[], Iterable[tuple[tuple[str, ...], float]]] = lambda: ()
        """Gives label values and numbers; set by whoever has them."""
        self._text = text
        registry.register(self)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """For the registry."""
        family = GaugeMetricFamily(self.name, self._text, labels=self.label_names)
        for values, number in self.read():
            family.add_metric(values, number)
        yield family


class Spread:
    """One histogram."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Add one value; a bound belongs to the bucket below it."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class PlainHistogram(Collector):
    """Histograms of one name, by labels. `bounds` are the buckets' upper bounds, growing, without infinity."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self.name = name
        self.label_names = tuple(labels)
        self._text = text
        self._bounds = tuple(bounds)
        self._names = [*map(floatToGoString, bounds), "+Inf"]
        self._of: dict[tuple[str, ...], Spread] = {}
        registry.register(self)

    def labels(self, *values: str) -> Spread:
        """The histogram with these label values; it may be kept."""
        spread = self._of.get(values)
        if spread is None:
            spread = self._of[values] = Spread(self._bounds)
        return spread

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """For the registry."""
        family = HistogramMetricFamily(self.name, self._text, labels=self.label_names)
        for values, spread in self._of.items():
            below, buckets = 0, []
            for bound, count in zip(self._names, spread.counts, strict=True):
                below += count
                buckets.append((bound, below))
            family.add_metric(values, buckets, spread.total)
        yield family
