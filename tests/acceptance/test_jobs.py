"""Jobs from the outside: tasks are run once each, tried again, counted, cancelled, and not lost by a kill."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from harness import BUSYBOX_IMAGE, Gateway, eventually, handler, in_parallel

pytestmark = pytest.mark.engine

ECHO = """
def handle(event, context):
    told = {name: value for name, value in context.headers.items() if name.startswith("x-hearth-")}
    return {"event": event, "told": told}
"""
FLAKY = """
def handle(event, context):
    if int(context.headers["x-hearth-attempt"]) <= event:
        raise RuntimeError(f"attempt {context.headers['x-hearth-attempt']} fails")
    return event
"""
SLEEP = "import time\ndef handle(event, context): time.sleep(event)\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    functions = {
        "echo": handler(ECHO),
        "flaky": handler(FLAKY, max_instances=4),
        "sleep": handler(SLEEP, max_instances=4),
    }
    with Gateway(tmp_path_factory.mktemp("jobs"), functions, prewarm={"python": 1}) as running:
        yield running


def start(gateway: Gateway, **body: object) -> str:
    """Start a job; its address."""
    answer = gateway.http.post("/jobs", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.headers["location"])


def ended(gateway: Gateway, place: str, seconds: float = 60) -> dict[str, Any]:
    """The job, when it has ended."""
    eventually(lambda: gateway.http.get(place).json()["ended"], seconds)
    return dict(gateway.http.get(place).json())


def tasks(gateway: Gateway, place: str, **query: Any) -> list[dict[str, Any]]:
    return list(gateway.http.get(f"{place}/tasks", params=query).json()["tasks"])


def test_each_input_is_a_call_of_the_function_that_knows_which_it_is(gateway: Gateway) -> None:
    place = start(gateway, function="echo", inputs=["a", {"b": 1}, None, 3])
    shown = ended(gateway, place)
    assert (shown["status"], shown["count"], shown["tasks"]["succeeded"]) == ("succeeded", 4, 4)
    listed = tasks(gateway, place)
    assert [t["index"] for t in listed] == [0, 1, 2, 3]
    for task, given in zip(listed, ["a", {"b": 1}, None, 3], strict=True):
        result = gateway.http.get(task["result"]).json()
        assert result["event"] == given
        assert result["told"]["x-hearth-task-index"] == str(task["index"])
        assert result["told"]["x-hearth-task-count"] == "4"
        assert result["told"]["x-hearth-job-id"] == place.rpartition("/")[2]
        assert (task["attempts"], result["told"]["x-hearth-attempt"]) == (1, "1")


def test_the_same_key_gives_the_same_job_and_another_request_is_refused(gateway: Gateway) -> None:
    key = {"idempotency-key": "order 17"}
    given = {"function": "echo", "count": 2}
    answers = in_parallel(lambda _: gateway.http.post("/jobs", json=given, headers=key), 8)
    assert {answer.status_code for answer in answers} == {202}
    (place,) = {answer.headers["location"] for answer in answers}
    ended(gateway, place)
    answer = gateway.http.post("/jobs", json=given, headers=key)
    assert (answer.headers["location"], answer.json()["status"]) == (place, "succeeded")
    answer = gateway.http.post("/jobs", json=given | {"count": 3}, headers=key)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:hearth:problem:key-reused")
    assert gateway.http.post("/jobs", json=given, headers={"idempotency-key": ""}).status_code == 400
    assert gateway.http.delete(place).status_code == 204
    assert gateway.http.post("/jobs", json=given, headers=key).headers["location"] != place


def test_an_image_is_run_in_a_container_for_each_task_and_leaves_none(gateway: Gateway) -> None:
    script = (
        'read word; echo "$word $HEARTH_TASK_INDEX/$HEARTH_TASK_COUNT $HEARTH_ATTEMPT $COLOUR"; echo said >&2'
    )
    given = {"image": BUSYBOX_IMAGE, "command": ["sh", "-c", script], "env": {"COLOUR": "blue"}}
    place = start(gateway, **given, inputs=["one", "two", {"a": 1}], memory="32MB", cpu_shares=10)
    shown = ended(gateway, place)
    assert (shown["status"], shown["tasks"]["succeeded"]) == ("succeeded", 3)
    words = [gateway.http.get(t["result"]).text for t in tasks(gateway, place)]
    assert words == ["one 0/3 1 blue\n", "two 1/3 1 blue\n", '{"a": 1} 2/3 1 blue\n']
    assert {gateway.http.get(t["logs"]).text for t in tasks(gateway, place)} == {"said\n"}
    eventually(lambda: not [i for i in gateway.instances() if (i["function"] or "").startswith("job:")], 20)
    assert "job" not in gateway.http.get("/functions").text
    assert "job:" not in gateway.http.get("/metrics").text, "a label for each job would be labels without end"
    assert gateway.metric("hearth_async_ended_total", function="(jobs)", status="succeeded") >= 3
    assert gateway.metric("hearth_jobs_ended_total", status="succeeded") >= 1
    assert not [name for name in gateway.http.get("/pool").json()["functions"] if ":" in name]


def test_what_cannot_be_started_is_told_at_once(gateway: Gateway) -> None:
    for body, status, words in (
        ({"image": "nobody/not-there:1", "count": 1}, 404, "docker pull nobody/not-there:1"),
        ({"image": BUSYBOX_IMAGE, "count": 1, "memory": "900GiB"}, 422, "HEARTH_MEMORY_BUDGET"),
        ({"image": BUSYBOX_IMAGE}, 422, "`count`"),
        ({"function": "echo", "count": 0}, 422, "count: must be a whole number from 1"),
        ({"function": "echo", "count": 1, "memory": "1GiB"}, 422, "belongs to a job with `image`"),
        ({"function": "echo", "count": 1, "tries": 3}, 422, "tries: there is no such key"),
        ({"function": "absent", "count": 1}, 404, "no function 'absent'"),
        ({"function": "echo", "count": 1, "on_success": "absent"}, 404, "no function 'absent'"),
        ({"image": BUSYBOX_IMAGE, "count": 1, "volumes": ["/etc:/data"]}, 422, "functions.yaml"),
        ({"job": "absent"}, 404, "no job 'absent'"),
        (["a list"], 400, "a JSON object"),
    ):
        answer = gateway.http.post("/jobs", json=body)
        assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text
    for content, status in ((b"{no json", 400), (b'{"function": "echo", "inputs": [NaN]}', 422)):
        assert gateway.http.post("/jobs", content=content).status_code == status
    assert gateway.http.get("/jobs/0").status_code == 404


def test_nobody_calls_a_jobs_own_function(gateway: Gateway) -> None:
    place = start(gateway, image=BUSYBOX_IMAGE, command=["sleep", "60"], count=1)
    name = f"job:{place.rpartition('/')[2]}"
    eventually(lambda: gateway.pool(name)["instances"].get("busy"), 20)
    for headers in ({}, {"prefer": "respond-async"}):
        answer = gateway.call(name, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:hearth:problem:no-such-function")
    assert gateway.http.delete(place).status_code == 409
    assert gateway.http.post(f"{place}/cancel").json()["status"] in ("cancelling", "cancelled")
    assert ended(gateway, place)["status"] == "cancelled"
    assert gateway.http.post(f"{place}/cancel").status_code == 409
    assert gateway.http.delete(place).status_code == 204
    assert gateway.http.get(place).status_code == 404
    assert gateway.http.get("/invocations", params={"function": name}).json()["invocations"] == []


def test_a_failing_task_is_tried_again_and_the_job_fails_with_one_that_has_no_runs_left(
    gateway: Gateway,
) -> None:
    place = start(gateway, function="flaky", inputs=[0, 2, 5], retries=3, backoff="1ms")
    shown = ended(gateway, place)
    assert (shown["status"], shown["tasks"]["succeeded"], shown["tasks"]["failed"]) == ("failed", 2, 1)
    assert [t["attempts"] for t in tasks(gateway, place)] == [1, 3, 4]
    (failed,) = tasks(gateway, place, status="failed")
    assert (failed["index"], failed["error"]) == (2, "handler-raised")
    assert "attempt 4 fails" in failed["detail"]
    assert gateway.http.post(f"{place}/retry").status_code == 202
    shown = ended(gateway, place)
    assert (shown["status"], shown["tasks"]["succeeded"]) == ("succeeded", 3)
    assert [t["attempts"] for t in tasks(gateway, place)] == [1, 3, 6], "what had succeeded is not run again"
    assert gateway.http.post(f"{place}/retry").status_code == 409
