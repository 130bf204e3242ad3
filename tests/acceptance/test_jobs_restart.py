"""Jobs against SIGKILL: what has ended is not run again, what has not goes on, also in functions of the jobs' own."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from harness import BUSYBOX_IMAGE, Gateway, eventually, handler
from test_jobs import ended, start, tasks

pytestmark = pytest.mark.engine

SLOW = "import time\ndef handle(event, context): time.sleep(0.2); return event\n"
COUNT = 16


def test_a_job_killed_half_way_goes_on_and_runs_no_finished_task_again(tmp_path: Path) -> None:
    with Gateway(tmp_path, {"slow": handler(SLOW, max_instances=4)}, prewarm={"python": 1}) as gateway:
        places = [
            start(gateway, function="slow", count=COUNT),
            start(
                gateway, image=BUSYBOX_IMAGE, command=["sh", "-c", "sleep 0.2; cat"], count=COUNT, parallel=2
            ),
        ]

        def done(place: str) -> dict[int, dict[str, Any]]:
            return {task["index"]: task for task in tasks(gateway, place, status="succeeded")}

        for _ in range(2):
            wanted = {place: len(done(place)) + 2 for place in places}
            eventually(lambda wanted=wanted: all(len(done(place)) >= wanted[place] for place in places), 60)
            before = {place: done(place) for place in places}
            gateway.stop(signal.SIGKILL)
            gateway.launch()
            gateway.wait_until_ready()
            for place in places:
                after = {task["index"]: task for task in tasks(gateway, place)}
                for index, task in before[place].items():
                    assert after[index] == task, "it was run again"
        for place in places:
            shown = ended(gateway, place, 120)
            assert (shown["status"], shown["tasks"]["succeeded"]) == ("succeeded", COUNT)
            listed = tasks(gateway, place)
            assert [task["index"] for task in listed] == list(range(COUNT))
            assert [gateway.http.get(t["result"]).text for t in listed] == [str(i) for i in range(COUNT)]
            for index, task in before[place].items():
                assert listed[index] == task
        again = sum(task["attempts"] - 1 for place in places for task in tasks(gateway, place))
        assert again <= 2 * (2 + 4 + 2), "only what ran when the gateway was killed"
        assert len(gateway.http.get("/jobs").json()["jobs"]) == 2
        eventually(gateway.books_agree, 30)


def test_a_job_that_was_being_cancelled_ends_cancelled_after_a_kill(tmp_path: Path) -> None:
    with Gateway(tmp_path, {}) as gateway:
        place = start(gateway, image=BUSYBOX_IMAGE, command=["sleep", "600"], count=5, parallel=2)
        name = f"job:{place.rpartition('/')[2]}"
        eventually(lambda: [i["state"] for i in gateway.instances(name)] == ["busy", "busy"], 20)
        assert gateway.http.post(f"{place}/cancel").is_success
        gateway.stop(signal.SIGKILL)
        gateway.launch()
        gateway.wait_until_ready()
        shown = ended(gateway, place)
        assert (shown["status"], shown["tasks"]["cancelled"]) == ("cancelled", 5)
        eventually(lambda: gateway.containers() == [], 20)
        assert gateway.http.post(f"{place}/retry").status_code == 202, "it can be taken up again"
        eventually(lambda: [i["state"] for i in gateway.instances(name)] == ["busy", "busy"], 20)
        assert gateway.http.post(f"{place}/cancel").is_success
        assert ended(gateway, place)["tasks"]["cancelled"] == 5
