"""Which key may start, see and cancel which jobs; and what `hearth prune` does about what they have kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import BUSYBOX_IMAGE, Gateway, eventually, handler
from test_jobs import ended, start

from gateway.access.keys import create
from gateway.access.limits import UNLIMITED
from gateway.access.scopes import parse_scopes

pytestmark = pytest.mark.engine

ECHO = "def handle(event, context): return event\n"
IMAGE = {"image": BUSYBOX_IMAGE, "command": ["true"]}


def test_keys_start_and_see_what_they_may_invoke_or_deploy(tmp_path: Path) -> None:
    scopes = {
        "echo": "invoke:echo",
        "named": "invoke:n*",
        "anything": "invoke:*",
        "ci": "deploy",
        "reader": "read",
    }
    texts = {name: create(name, parse_scopes([s]), UNLIMITED, None, 0.0)[0] for name, s in scopes.items()}
    settings = {"api_keys": "; ".join(f"{texts[n]} {scopes[n]} name={n}" for n in scopes)}
    headers = {name: {"authorization": f"Bearer {text}"} for name, text in texts.items()}
    gateway = Gateway(tmp_path, {"echo": handler(ECHO), "other": handler(ECHO)}, settings=settings)
    content = json.loads(gateway.file.read_text())
    gateway.write("functions.yaml", json.dumps({**content, "jobs": {"nightly": {**IMAGE, "count": 1}}}))
    with gateway:

        def statuses(method: str, path: str, body: object = None) -> dict[str, int]:
            return {
                name: gateway.http.request(method, path, json=body, headers=given).status_code
                for name, given in headers.items()
            }

        refused = dict.fromkeys(scopes, 403)
        of_function = statuses("POST", "/jobs", {"function": "echo", "count": 1})
        assert of_function == {**refused, "echo": 202, "anything": 202}
        followed = {"function": "echo", "count": 1, "on_success": "other"}
        assert statuses("POST", "/jobs", followed) == {**refused, "anything": 202}
        assert statuses("POST", "/jobs", {"job": "nightly"}) == {**refused, "named": 202, "anything": 202}
        assert statuses("POST", "/jobs", {**IMAGE, "count": 1}) == {**refused, "ci": 202}

        answer = gateway.http.post("/jobs", json={**IMAGE, "count": 1}, headers=headers["ci"])
        place = answer.headers["location"]
        eventually(lambda: gateway.http.get(place, headers=headers["ci"]).json()["ended"], 30)
        for path in (place, f"{place}/tasks"):
            shown = statuses("GET", path)
            assert shown == {"echo": 404, "named": 404, "anything": 200, "ci": 200, "reader": 200}
        (task,) = gateway.http.get(f"{place}/tasks", headers=headers["ci"]).json()["tasks"]
        assert statuses("GET", f"/invocations/{task['invocation']}") == {
            **dict.fromkeys(scopes, 404),
            "anything": 200,
            "reader": 200,
        }
        assert statuses("POST", f"{place}/cancel") == {
            "echo": 404,
            "named": 404,
            "anything": 403,
            "ci": 409,
            "reader": 403,
        }
        listed = {
            name: {job["name"] or job["function"] or "image" for job in answer["jobs"]}
            | set(answer["declared"])
            for name, given in headers.items()
            for answer in (gateway.http.get("/jobs", headers=given).json(),)
        }
        everything = {"echo", "nightly", "image"}
        assert listed == {
            "echo": {"echo"},
            "named": {"nightly"},
            "anything": everything,
            "ci": {"nightly", "image"},
            "reader": everything,
        }
        assert gateway.http.get("/jobs").status_code == 401


def test_what_a_job_has_kept_goes_with_prune(tmp_path: Path) -> None:
    with Gateway(tmp_path, {}) as gateway:
        ended(gateway, start(gateway, **IMAGE, count=2, remove="none"))
        eventually(lambda: len(gateway.containers()) == 2, 20)
        assert gateway.stop() == 0
        done = subprocess.run(
            [Path(sys.executable).with_name("hearth"), "prune", "--yes", "--data-dir", gateway.data],
            env=dict(os.environ),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert gateway.containers() == []
