"""Timing and counting the calls to a container engine, the same for every implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pool.engine.base import EngineError
from pool.observe.metrics import Metrics


@contextmanager
def measured(metrics: Metrics, verb: str, now: Callable[[], float]) -> Iterator[None]:
    """Observe how long the body takes (seconds of `now`), and count it when it raises `EngineError`."""
    began = now()
    try:
        yield
    except EngineError:
        metrics.engine_errors.labels(verb).inc()
        raise
    finally:
        metrics.engine_seconds.labels(verb).observe(now() - began)
