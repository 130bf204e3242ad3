"""A trigger starts a job of functions.yaml, and the end of the job is an event that another trigger meets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import BUSYBOX_IMAGE, Gateway, eventually, handler
from test_jobs import ended, tasks

pytestmark = pytest.mark.engine

ECHO = "def handle(event, context): return event\n"


def test_a_job_is_started_by_a_trigger_and_its_end_starts_a_function(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, {"told": handler(ECHO), "on-success": handler(ECHO)})
    cat = {"image": BUSYBOX_IMAGE, "command": ["cat"], "count": 2, "on_success": "on-success"}
    on_end = [{"exact": {"type": "hearth.job.ended", "subject": "copies"}}]
    triggers = {
        "yearly": {"schedule": "0 0 1 1 *", "job": "copies", "input": {"year": 1}},
        "after": {"events": {"filters": on_end}, "function": "told"},
    }
    content = json.loads(gateway.file.read_text())
    gateway.write("functions.yaml", json.dumps({**content, "jobs": {"copies": cat}, "triggers": triggers}))
    with gateway:
        assert gateway.http.get("/jobs").json() == {"jobs": [], "declared": ["copies"], "cursor": None}
        assert gateway.http.post("/triggers/yearly/fire").is_success
        eventually(lambda: gateway.http.get("/jobs").json()["jobs"], 20)
        (job,) = gateway.http.get("/jobs").json()["jobs"]
        shown = ended(gateway, job["url"])
        assert (shown["name"], shown["status"]) == ("copies", "succeeded")
        for task in tasks(gateway, job["url"]):
            assert gateway.http.get(task["result"]).json() == {"year": 1}

        def answers(function: str) -> list[dict[str, object]]:
            listed = gateway.http.get(
                "/invocations", params={"function": function, "status": "succeeded"}
            ).json()
            return [gateway.http.get(i["result"]).json() for i in listed["invocations"]]

        for function in ("told", "on-success"):
            eventually(lambda function=function: answers(function), 30)
            (told,) = answers(function)
            assert (told["id"], told["name"], told["status"]) == (job["id"], "copies", "succeeded")
            assert told["tasks"] == {"queued": 0, "running": 0, "succeeded": 2, "failed": 0, "cancelled": 0}
