"""Metrics that cost nothing until something is counted."""

from __future__ import annotations

from prometheus_client import Counter
from prometheus_client.parser import text_string_to_metric_families

from pool.observe.plain_metrics import MetricRegistry, PlainCounter, PlainGauge, PlainHistogram


def test_asking_for_a_counter_makes_none():
    registry = MetricRegistry()
    starts = PlainCounter("starts", "Starts", ["function", "kind"], registry)
    assert starts.value_of("f", "warm") == 0
    assert b"warm" not in registry.text()
    starts.labels("f", "warm").value += 3
    assert starts.value_of("f", "warm") == 3
    assert b'starts_total{function="f",kind="warm"} 3.0' in registry.text()


def test_a_gauge_is_what_is_true_when_it_is_read():
    registry = MetricRegistry()
    depth = PlainGauge("depth", "Depth", ["function"], registry)
    waiting = {"a": 1, "b": 0}
    depth.read = lambda: (((name,), number) for name, number in waiting.items())
    shown = registry.text()
    assert b'depth{function="a"} 1.0\ndepth{function="b"} 0.0' in shown
    del waiting["a"]
    assert b'function="a"' not in registry.text(), "a function that is withdrawn has no series"


def test_prometheus_reads_what_is_written_out() -> None:
    registry = MetricRegistry()
    odd = 'a "b"\\ c\nd'
    Counter("removals", "Removals", ["reason"], registry=registry).labels("timeout").inc()
    PlainCounter("starts", "Starts", ["function", "kind"], registry).labels(odd, "warm").value += 2
    PlainGauge("depth", "Depth", ["function"], registry).read = lambda: [(("f",), 0.5)]
    seconds = PlainHistogram("seconds", "Seconds", ["function"], (0.005, 0.1, 1e6), registry).labels("f")
    for value in (0.001, 0.005, 0.05, 2.0, 2e6):
        seconds.observe(value)
    families = {family.name: family for family in text_string_to_metric_families(registry.text().decode())}
    assert {name: family.type for name, family in families.items() if not name.endswith("created")} == {
        "removals": "counter",
        "starts": "counter",
        "depth": "gauge",
        "seconds": "histogram",
    }
    assert families["starts"].documentation == "Starts"
    [start] = families["starts"].samples
    assert (start.name, start.labels, start.value) == ("starts_total", {"function": odd, "kind": "warm"}, 2.0)
    assert [(s.labels, s.value) for s in families["depth"].samples] == [({"function": "f"}, 0.5)]
    shown = {(s.name, s.labels.get("le")): s.value for s in families["seconds"].samples}
    assert shown == {
        ("seconds_bucket", "0.005"): 2.0,
        ("seconds_bucket", "0.1"): 3.0,
        ("seconds_bucket", "1e+06"): 4.0,
        ("seconds_bucket", "+Inf"): 5.0,
        ("seconds_count", None): 5.0,
        ("seconds_sum", None): 0.001 + 0.005 + 0.05 + 2.0 + 2e6,
    }
