"""Scenes of `hearth top`, each of one interval."""

from __future__ import annotations

import itertools
from typing import Any

import httpx

from tests.support.cli_scenes.stage import MadeAnew, Scene


class TwoSeconds:
    """Stands for the module `time`: two seconds pass between two looks."""

    def __init__(self) -> None:
        self._moments = itertools.count(0.0, 2.0)

    def monotonic(self) -> float:
        """Return the time of a look."""
        return next(self._moments)

    def sleep(self, seconds: float) -> None:
        """Return at once."""


def pool(*calls: int) -> httpx.Response:
    """Return the answer of `GET /pool` after so many calls of each function."""
    states: list[dict[str, int]] = [{"idle": 1, "busy": 3}, {"frozen": 1}, {"starting": 1}]
    names = ("hello", "thumbnail", "nightly-report-of-all-shops")
    functions: dict[str, Any] = {
        name: {
            "instances": instances,
            "queue_depth": 12 * (name == "hello"),
            "ended": ended,
            "failed": ended // 40,
            "memory": sum(instances.values()) * 128 * 2**20,
        }
        for name, instances, ended in zip(names, states, calls, strict=False)
    }
    prewarm = [{"image": "sha256:0", "wanted": 2, "ready": 2, "starting": 0}]
    shown = {"functions": functions, "prewarm": prewarm, "memory_declared": 768 * 2**20}
    return httpx.Response(200, json=shown | {"memory_budget": 16 * 2**30})


TIMES = {
    "hello": {"calls": 9000, "p50": 0.00061, "p99": 0.0124},
    "thumbnail": {"calls": 3, "p50": 0.41, "p99": 1.84},
}
BUSY = {"GET /pool": [pool(0, 40, 0), pool(8400, 43, 0)], "GET /calls/times": TIMES}
TIME = {"gateway.cli.commands.watching.top.time": MadeAnew(TwoSeconds)}

SCENES = [
    Scene("top --once", BUSY, patches=TIME),
    Scene("top --once --sort p99 --json", BUSY, patches=TIME),
    Scene(
        "top --once", {"GET /pool": [pool()], "GET /calls/times": {}}, patches=TIME, note="without a function"
    ),
    Scene(
        "top", {"GET /pool": httpx.ConnectError("refused"), "GET /calls/times": {}}, note="without a gateway"
    ),
]
