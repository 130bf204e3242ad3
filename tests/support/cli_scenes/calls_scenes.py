"""Scenes of `hearth calls`: what runs, what went well and what failed."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.support.cli_scenes.records import CALL
from tests.support.cli_scenes.stage import Scene

AT = "2020-11-29T02:12:0{0}.512000Z"
GOOD: dict[str, Any] = {
    "id": "4d1963c3a0b64b27a6f5d1e0c9b8a7f6",
    "kind": "sync",
    "function": "hello",
    "revision": "47e24e590c7e",
    "running": False,
    "status": 200,
    "outcome": "ok",
    "blame": "none",
    "start": "warm",
    "cold_reason": None,
    "at": AT.format(1),
    "queue": 0.00006,
    "start_seconds": 0.0,
    "exec": 0.00255,
    "total": 0.00261,
    "key": "shop",
    "owner": None,
    "attempt": None,
    "error": None,
}
FAILED = GOOD | {
    "id": CALL,
    "kind": "step",
    "function": "thumbnail",
    "status": 500,
    "outcome": "handler-raised",
    "blame": "function",
    "start": "cold",
    "cold_reason": "no instance of this revision was ready; the last one was evicted 40 s ago to make room for a",
    "at": AT.format(4),
    "queue": 0.00048,
    "start_seconds": 0.335,
    "exec": 1.018,
    "total": 1.35348,
    "key": None,
    "owner": "run:9d2c7b1a4f3e4f0c8d5b6a7e8f901234/resize",
    "attempt": 2,
    "error": {
        "slug": "handler-raised",
        "title": "The handler raised an exception",
        "detail": "OSError: cannot identify image file <_io.BytesIO object at 0x7f1d2c9ab04e>",
    },
}
RUNS = GOOD | {
    "id": "c0ffee00d1e2f3a4b5c6d7e8f9012345",
    "function": "nightly-report-of-all-shops",
    "running": True,
    "status": None,
    "outcome": None,
    "at": AT.format(5),
    "total": 72.5,
}
GONE = GOOD | {
    "id": "0b5c8e7f6a9d4c3b2a1f0e9d8c7b6a5f",
    "function": None,
    "revision": None,
    "status": 404,
    "start": None,
    "blame": "caller",
    "at": AT.format(3),
    "error": {
        "slug": "no-such-function",
        "title": "No such function",
        "detail": "there is no function 'nope'; GET /functions lists them",
    },
}
LISTED = {"calls": [RUNS, FAILED, GONE, GOOD]}
FOLLOWED = "".join(f"event: call\ndata: {json.dumps(call)}\n\n" for call in (GOOD, GONE, FAILED))
STREAM = [httpx.Response(200, text=FOLLOWED), httpx.Response(200, text="")]


class Pressed:
    """Stands for the pause before a gateway is tried again: somebody presses Ctrl-C."""

    def __call__(self, seconds: float) -> None:
        raise KeyboardInterrupt


SCENES = [
    Scene("calls", {"GET /calls": LISTED}),
    Scene("calls", {"GET /calls": {"calls": []}}, note="without a call"),
    Scene("calls --slow 1h", {"GET /calls": {"calls": []}}, note="none of the wanted ones"),
    Scene("calls -n 1 --json", {"GET /calls": {"calls": [GOOD]}}),
    Scene(f"calls {CALL[:8]}", {"GET /calls": {"calls": []}, f"GET /calls/{CALL[:8]}": FAILED}),
    Scene(
        "calls --follow",
        {"GET /calls": STREAM},
        patches={"gateway.cli.commands.watching.calls.time.sleep": Pressed()},
        note="Ctrl-C",
    ),
]
