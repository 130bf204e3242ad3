"""Recorded answers of a gateway: what its API gives about a small shop."""

from __future__ import annotations

from typing import Any

CALL = "2e16dc3290329f5f74ccb6021d486ad7"
JOB = "0f3a1c5b7d9e4f60a1b2c3d4e5f60718"
RUN = "6f1d2c9ab04e4f7c8a3e5d7b90c1f2e4"
OTHER_RUN = "6f1d2c9ab14e4f7c8a3e5d7b90c1f2e4"
DIGEST = "b7a038a77d4647fae67a7b9c6c0b0a41f36f1bd4a4e3a6f5b0f0e3b8f3a1d2c9"

NO_MODULE = "ModuleNotFoundError: No module named 'PIL'; add Pillow to functions/thumbnail/requirements.txt"
FUNCTIONS: list[dict[str, Any]] = [
    {
        "name": "hello",
        "kind": "handler",
        "state": "ready",
        "version": DIGEST,
        "fault": None,
        "input": "described",
    },
    {"name": "thumbnail", "kind": "handler", "state": "failed", "version": None, "fault": NO_MODULE},
    {"name": "order-confirmation", "kind": "http", "state": "building", "version": None, "fault": None},
]
END_OF_TRACEBACK = """  File "/function/handler.py", line 3, in <module>
    import PIL
ModuleNotFoundError: No module named 'PIL'
"""
BROKEN: list[dict[str, Any]] = [
    {
        "name": "thumbnail",
        "kind": "handler",
        "state": "ready",
        "version": DIGEST,
        "fault": "No module named 'PIL' (handler.py, line 3)",
        "printed": END_OF_TRACEBACK,
    },
]
INSTANCES: list[dict[str, Any]] = [
    {
        "id": "be5e875eabc7",
        "function": "hello",
        "state": "frozen",
        "in_use": 0,
        "served": 1204,
        "memory": 2**27,
        "age": 7500.0,
        "idle": 42.0,
        "started_because": "it was started ahead of calls: its function came into service lately, and its imports "
        "take long",
    },
    {
        "id": "0c11f2a94d3b",
        "function": "order-confirmation",
        "state": "busy",
        "in_use": 3,
        "served": 17,
        "memory": 2**28,
        "age": 12.5,
        "idle": 0.0,
    },
    {
        "id": "9a7703c2be41",
        "function": None,
        "state": "prewarmed",
        "in_use": 0,
        "served": 0,
        "memory": 2**27,
        "age": 61.0,
        "idle": 61.0,
    },
]
POOL: dict[str, Any] = {
    "prewarm": [{"image": f"sha256:{DIGEST}", "wanted": 2, "ready": 1, "starting": 1}],
    "spares": {"ready": 1, "starting": 0, "memory": 2**27, "memory_share": 3 * 2**30},
    "memory_declared": 2**29,
    "memory_budget": 12 * 2**30,
}


def job(status: str, count: int, **tasks: int) -> dict[str, Any]:
    """Return a job of the API."""
    none = {"queued": 0, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0}
    times = {"created": "2026-11-29T02:12:05.120Z", "ended": None}
    names = {"id": JOB, "name": None, "image": "hearth-example/busybox:latest", "function": None}
    return {**names, **times, "status": status, "count": count, "parallel": 4, "tasks": none | tasks}


JOBS: dict[str, Any] = {
    "jobs": [
        job("running", 100, queued=40, running=4, succeeded=54, failed=2),
        job("succeeded", 1, succeeded=1) | {"id": "7c9e6679a5f64bd19a1f0c3e2d4b5a60", "name": "nightly"},
        job("failed", 10, succeeded=7, failed=3)
        | {"id": "16fd2706a5f64bd19a1f0c3e2d4b5a60", "function": "thumbnail", "image": None},
    ],
    "declared": ["nightly", "import-catalogue"],
    "cursor": None,
}


def task(index: int, status: str, **more: Any) -> dict[str, Any]:
    """Return a task of a job of the API."""
    times = {"started": "2026-11-29T02:12:06Z", "ended": f"2026-11-29T02:12:{8 + index:02d}.5Z"}
    named = {"invocation": CALL, "error": None, "detail": ""}
    return {"index": index, "status": status, "attempts": 1, **times, **named, **more}


TASKS: dict[str, Any] = {
    "tasks": [
        task(0, "succeeded"),
        task(
            1,
            "failed",
            attempts=3,
            error="command-failed",
            detail="exit status 1: sh: ./flaky: not found, because the image has no such program in its path",
        ),
    ],
    "cursor": None,
}


def run(status: str, id: str = RUN, **more: Any) -> dict[str, Any]:
    """Return a run of a workflow of the API."""
    times = {"started": "2026-11-29T02:12:05.120Z", "ended": "2026-11-29T02:13:17.950Z"}
    return {
        "id": id,
        "workflow": "gallery",
        "status": status,
        **times,
        "error": None,
        "detail": "",
        "output": None,
        **more,
    }


STEP_FAILED = (
    "step pay failed: handler-raised: ValueError: the card was refused by the bank for want of funds"
)
RUNS: dict[str, Any] = {
    "runs": [
        run("succeeded"),
        run("failed", OTHER_RUN, workflow="fulfilment", error="step-failed", detail=STEP_FAILED),
    ],
    "cursor": None,
}


def step(name: str, function: str, status: str, **more: Any) -> dict[str, Any]:
    """Return a step of a run of the API."""
    times = {"started": "2026-11-29T02:12:06Z", "ended": "2026-11-29T02:12:18Z"}
    none = {"items": None, "attempts": 1, "error": None, "detail": "", "invocation": CALL}
    return {"name": name, "function": function, "status": status, **times, **none, **more}


STEPS: list[dict[str, Any]] = [
    step("list", "list-pictures", "succeeded"),
    step(
        "thumbnails",
        "thumbnail",
        "succeeded",
        attempts=7,
        items={"waiting": 0, "running": 0, "succeeded": 6, "failed": 0},
    ),
    step("page", "render-page", "succeeded"),
]
FAILED_STEPS: list[dict[str, Any]] = [
    step("reserve", "reserve-stock", "succeeded"),
    step("pay", "charge-card", "failed", attempts=3, error="handler-raised", detail=STEP_FAILED[17:]),
    step("send", "order-confirmation", "cancelled", started=None, ended=None, attempts=0),
]
WORKFLOWS: list[dict[str, Any]] = [
    {"name": "gallery", "steps": [{"name": "list"}, {"name": "thumbnails"}, {"name": "page"}]},
    {"name": "fulfilment", "steps": [{"name": one} for one in ("reserve", "pay", "send", "tell-the-shop")]},
]

AT = "2026-11-29T02:12:05.120Z"
TRIGGERS: list[dict[str, Any]] = [
    {
        "name": "nightly",
        "cause": "schedule",
        "definition": {"schedule": "0 3 * * *"},
        "action": {"job": "import-catalogue"},
        "paused": False,
        "fault": None,
        "next": "2026-11-30T02:00:00Z",
        "last": {"at": "2026-11-29T02:00:00Z", "outcome": "started"},
    },
    {
        "name": "order-paid",
        "cause": "events",
        "definition": {},
        "action": {"workflow": "fulfilment"},
        "paused": False,
        "fault": "the workflow fulfilment does not exist; declare it in functions.yaml, or remove the trigger",
        "next": None,
        "last": None,
    },
]
SOURCES: list[dict[str, Any]] = [
    {
        "name": "orders",
        "kind": "redis",
        "state": "connected",
        "function": "order-confirmation",
        "counts": {"started": 1204, "refused": 2},
        "lag": 7,
        "last": AT,
        "error": None,
    },
    {
        "name": "meters",
        "kind": "mqtt",
        "state": "connecting",
        "function": None,
        "counts": {},
        "lag": None,
        "last": None,
        "error": "no answer from mqtt.example:1883 in time; trying again",
    },
]
STARTED: dict[str, Any] = {
    "events": 1,
    "started": [
        {"trigger": "order-paid", "outcome": "started", "id": RUN, "detail": ""},
        {"trigger": "count-orders", "outcome": "known", "id": CALL, "detail": ""},
    ],
}


def accepted(status: str, **more: Any) -> dict[str, Any]:
    """Return an accepted call of the API."""
    times = {"accepted": AT, "due": None, "started": AT, "ended": "2026-11-29T02:12:09Z"}
    fault = {"error": None, "detail": "", "blame": "none"}
    return {"id": CALL, "function": "thumbnail", "status": status, "attempts": 1, **times, **fault, **more}


DEAD: dict[str, Any] = {
    "invocations": [
        accepted("dead", attempts=5, error="handler-raised", detail=NO_MODULE, blame="function"),
        accepted("expired", id=RUN, function="hello", error="expired", detail="was not run in time"),
    ],
    "cursor": None,
}
