"""Scenes of the commands that ask a gateway."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.support.cli_scenes.records import (
    BROKEN,
    CALL,
    DEAD,
    FAILED_STEPS,
    FUNCTIONS,
    INSTANCES,
    JOB,
    JOBS,
    OTHER_RUN,
    POOL,
    RUN,
    RUNS,
    SOURCES,
    STARTED,
    STEP_FAILED,
    STEPS,
    TASKS,
    TRIGGERS,
    WORKFLOWS,
    accepted,
    job,
    run,
)
from tests.support.cli_scenes.stage import MadeAnew, Scene, problem

TIMING = {
    "x-hearth-start": "warm",
    "server-timing": "queue;dur=0.06, start;dur=0.00, exec;dur=2.55",
    "x-invocation-id": CALL,
}
ANSWER = httpx.Response(200, json={"message": "Hello, Ada!"}, headers=TIMING)
NOT_RUN = problem(404, "no-such-function", "No such function", "there is no function 'helo'")
RAISED = problem(
    500, "handler-raised", "The handler raised an exception", "ValueError: no name was given", "function"
)
DONE = job("succeeded", 2, succeeded=1, failed=1) | {"status": "failed"}
ENDED_JOB = {
    f"GET /jobs/{JOB}": DONE,
    f"GET /jobs/{JOB}/tasks": TASKS,
    f"GET /invocations/{CALL}/result": ANSWER,
}
GOOD_RUN = run("succeeded", steps=STEPS)
BAD_RUN = run(
    "failed", OTHER_RUN, workflow="fulfilment", error="step-failed", detail=STEP_FAILED, steps=FAILED_STEPS
)
PRINTED = "".join(
    json.dumps(
        {
            "time": f"2020-11-29T02:12:0{second}.120Z",
            "function": "thumbnail",
            "revision": 1,
            "invocation": CALL,
            "instance": "be5e875eabc7",
            "text": text,
        }
    )
    + "\n"
    for second, text in enumerate(("reading a.jpg", "\x1b[31mno such picture: a.jpg"))
)
SVG = httpx.Response(200, text="<svg>…</svg>")
EMPTY_PAGE: dict[str, Any] = {"jobs": [], "runs": [], "declared": [], "invocations": [], "cursor": None}


class TickingClock:
    """A clock that goes on by a hundredth of a second whenever somebody looks at it."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        """Return the time in seconds."""
        self._now += 0.01
        return self._now


CALLING = [
    Scene(
        "invoke hello --data @ada.json", {"POST /invoke/hello": ANSWER}, files={"ada.json": '{"name":"Ada"}'}
    ),
    Scene("invoke hello -i", {"POST /invoke/hello": ANSWER}),
    Scene("invoke hello", {"POST /invoke/hello": RAISED}),
    Scene("invoke helo", {"POST /invoke/helo": NOT_RUN, "GET /functions": FUNCTIONS}),
    Scene(
        "invoke hello --repeat 100",
        {"POST /invoke/hello": [RAISED, *[ANSWER] * 99]},
        patches={"gateway.cli.commands.calling.repeated.time": MadeAnew(TickingClock)},
    ),
    Scene("invoke thumbnail --async", {"POST /invoke/thumbnail": accepted("queued", attempts=0, ended=None)}),
    Scene(
        "invoke thumbnail --async --wait",
        {
            "POST /invoke/thumbnail": accepted("queued", attempts=0, ended=None),
            f"GET /invocations/{CALL}": accepted("succeeded"),
            f"GET /invocations/{CALL}/result": ANSWER,
        },
    ),
    Scene(
        f"result {CALL}",
        {f"GET /invocations/{CALL}": accepted("succeeded"), f"GET /invocations/{CALL}/result": ANSWER},
    ),
    Scene(f"result {CALL[:8]}", {f"GET /invocations/{CALL[:8]}": accepted("running", ended=None)}),
    Scene(f"result --cancel {CALL}", {f"DELETE /invocations/{CALL}": accepted("cancelled")}),
    Scene("run busybox:latest ./flaky --count 2 --retries 2", {"POST /jobs": job("running", 2), **ENDED_JOB}),
    Scene("run nightly --detach", {"POST /jobs": job("running", 1, queued=1)}),
    Scene(
        "emit com.example.order.paid --source /shop --data {}",
        {"POST /events": httpx.Response(202, json=STARTED)},
    ),
    Scene("emit nothing", {"POST /events": httpx.Response(202, json={"events": 1, "started": []})}),
    Scene(
        "start gallery",
        {
            "POST /workflows/gallery": run("running", ended=None),
            f"GET /runs/{RUN}": GOOD_RUN,
            f"GET /runs/{RUN}/output": httpx.Response(200, text="<html>the gallery</html>"),
        },
    ),
    Scene("start galery", {"GET /workflows": WORKFLOWS}),
    Scene("start gallery --detach", {"POST /workflows/gallery": run("running", ended=None)}),
    Scene(
        f"resume {OTHER_RUN}",
        {
            f"POST /runs/{OTHER_RUN}/resume": {},
            f"GET /runs/{OTHER_RUN}": BAD_RUN,
        },
    ),
]

LISTING = [
    Scene("functions", {"GET /functions": FUNCTIONS}),
    Scene("functions", {"GET /functions": BROKEN}, note="whose import fails"),
    Scene("functions", {"GET /functions": []}, note="without a function"),
    Scene("functions", {"GET /functions": httpx.Response(200, text="<html>")}, note="another server answers"),
    Scene("functions", {"GET /functions": httpx.ConnectError("refused")}, note="without a gateway"),
    Scene("ps", {"GET /pool": POOL, "GET /pool/instances": INSTANCES}),
    Scene("ps --function hello", {"GET /pool": POOL, "GET /pool/instances": INSTANCES[:1]}),
    Scene("ps", {"GET /pool": POOL, "GET /pool/instances": []}, note="without an instance"),
    Scene(f"logs {CALL}", {f"GET /invocations/{CALL}/logs": httpx.Response(200, text="greeting Ada\n")}),
    Scene("logs thumbnail", {"GET /logs": httpx.Response(200, text=PRINTED)}),
    Scene("logs --json", {"GET /logs": httpx.Response(200, text=PRINTED)}),
    Scene(
        "logs hello",
        {"GET /logs": httpx.Response(200, text=""), "GET /functions": FUNCTIONS},
        note="nothing was printed",
    ),
    Scene("logs helo", {"GET /logs": httpx.Response(200, text=""), "GET /functions": FUNCTIONS}),
    Scene("jobs", {"GET /jobs": JOBS}),
    Scene("jobs", {"GET /jobs": EMPTY_PAGE}, note="without a job"),
    Scene("jobs list --status failed", {"GET /jobs": {**JOBS, "jobs": JOBS["jobs"][2:]}}),
    Scene(f"jobs show {JOB}", ENDED_JOB),
    Scene(f"jobs cancel {JOB}", {f"POST /jobs/{JOB}/cancel": job("cancelling", 10, cancelled=8, running=2)}),
    Scene(f"jobs retry {JOB}", {f"POST /jobs/{JOB}/retry": job("running", 10, succeeded=8, queued=2)}),
    Scene(f"jobs forget {JOB}", {f"DELETE /jobs/{JOB}": httpx.Response(204)}),
    Scene("workflows", {"GET /workflows": WORKFLOWS}),
    Scene("workflows", {"GET /workflows": []}, note="without a workflow"),
    Scene("runs", {"GET /runs": RUNS}),
    Scene("runs", {"GET /runs": EMPTY_PAGE}, note="without a run"),
    Scene(f"runs {RUN}", {f"GET /runs/{RUN}": GOOD_RUN}),
    Scene(f"runs --follow {OTHER_RUN}", {f"GET /runs/{OTHER_RUN}": BAD_RUN}),
    Scene("graph gallery", {"GET /workflows/gallery/graph.svg": SVG}),
    Scene("triggers", {"GET /triggers": TRIGGERS}),
    Scene("triggers", {"GET /triggers": []}, note="without a trigger"),
    Scene("sources", {"GET /sources": SOURCES}),
    Scene("sources", {"GET /sources": []}, note="without a source"),
    Scene("dead-letters list", {"GET /dead-letters": DEAD}),
    Scene("dead-letters", {"GET /dead-letters": EMPTY_PAGE}, note="without a dead letter"),
    Scene(f"dead-letters show {CALL}", {f"GET /invocations/{CALL}": DEAD["invocations"][0]}),
    Scene("dead-letters redrive", {"POST /dead-letters/redrive": httpx.Response(200, json={"count": 2})}),
    Scene("dead-letters purge", {"DELETE /dead-letters": {"count": 2}}, stdin="y\n"),
]
SCENES = [*CALLING, *LISTING]
