"""`remove` of a job: which ended containers stay, that nobody takes them for leftovers, and when they go."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from harness import BUSYBOX_IMAGE, Gateway, eventually
from test_jobs import ended, start, tasks

pytestmark = pytest.mark.engine

FAILS_ONCE = ["sh", "-c", "test $HEARTH_ATTEMPT -gt $HEARTH_TASK_INDEX"]


def test_ended_containers_stay_as_the_job_says_until_it_is_forgotten(tmp_path: Path) -> None:
    with Gateway(tmp_path, {}) as gateway:
        places = {
            remove: start(
                gateway,
                image=BUSYBOX_IMAGE,
                command=FAILS_ONCE,
                count=3,
                retries=2,
                backoff="1ms",
                remove=remove,
            )
            for remove in ("all", "succeeded", "none")
        }
        for place in places.values():
            assert ended(gateway, place)["status"] == "succeeded"
        eventually(lambda: len(gateway.containers()) == 3 + 6, 20)
        assert gateway.instances() == []

        def kept(remove: str) -> list[int]:
            return [len(task["containers"]) for task in tasks(gateway, places[remove])]

        assert kept("all") == [0, 0, 0]
        assert kept("succeeded") == [0, 1, 2], "of each task the runs that have failed"
        assert kept("none") == [1, 2, 3]
        shown = {c["Id"]: c["State"] for c in gateway.containers()}
        assert set(shown.values()) == {"exited"}
        assert {
            c for remove in places for t in tasks(gateway, places[remove]) for c in t["containers"]
        } == set(shown)

        for number in (signal.SIGTERM, signal.SIGKILL):  # neither a start nor an end takes them for leftovers
            gateway.stop(number)
            gateway.launch()
            gateway.wait_until_ready()
            assert {c["Id"] for c in gateway.containers()} == set(shown)
        assert kept("none") == [1, 2, 3]
        assert gateway.http.delete(places["none"]).status_code == 204
        assert len(gateway.containers()) == 3
        assert gateway.http.delete(places["succeeded"]).status_code == 204
        assert gateway.containers() == []


def test_containers_of_jobs_that_nobody_knows_any_more_go_at_the_next_start(tmp_path: Path) -> None:
    with Gateway(tmp_path, {}) as gateway:
        ended(gateway, start(gateway, image=BUSYBOX_IMAGE, command=["true"], count=2, remove="none"))
        eventually(lambda: len(gateway.containers()) == 2, 20)
        gateway.stop()
        for file in gateway.data.glob("calls.*"):
            file.unlink()
        gateway.launch()
        gateway.wait_until_ready()
        eventually(lambda: gateway.containers() == [], 20)


def test_a_run_that_had_to_be_ended_leaves_no_container(tmp_path: Path) -> None:
    with Gateway(tmp_path, {}) as gateway:
        given = {"image": BUSYBOX_IMAGE, "command": ["sleep", "60"], "count": 1, "remove": "none"}
        shown = ended(gateway, place := start(gateway, **given, timeout="200ms"))
        assert shown["status"] == "failed"
        eventually(lambda: gateway.containers() == [], 20)
        (task,) = tasks(gateway, place)
        assert (task["error"], task["containers"]) == ("timeout", [])
