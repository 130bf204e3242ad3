"""Metrics that cost nothing until something is counted."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from pool.plain_metrics import PlainCounter, PlainGauge


def test_asking_for_a_counter_makes_none():
    registry = CollectorRegistry()
    starts = PlainCounter("starts", "Starts", ["function", "kind"], registry)
    assert starts.value_of("f", "warm") == 0
    assert b"warm" not in generate_latest(registry)
    starts.labels("f", "warm").value += 3
    assert starts.value_of("f", "warm") == 3
    assert b'starts_total{function="f",kind="warm"} 3.0' in generate_latest(registry)


def test_a_gauge_is_what_is_true_when_it_is_read():
    registry = CollectorRegistry()
    depth = PlainGauge("depth", "Depth", ["function"], registry)
    waiting = {"a": 1, "b": 0}
    depth.read = lambda: (((name,), number) for name, number in waiting.items())
    shown = generate_latest(registry)
    assert b'depth{function="a"} 1.0\ndepth{function="b"} 0.0' in shown
    del waiting["a"]
    assert b'function="a"' not in generate_latest(registry), "a function that is withdrawn has no series"
