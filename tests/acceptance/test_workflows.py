"""Workflows on a real gateway: the whole surface of docs/workflows.md, and the example that the README runs."""

from __future__ import annotations

import json
import re
import shutil
import signal
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from harness import Gateway, command, eventually, handler

from gateway.access.keys import create
from gateway.access.limits import UNLIMITED
from gateway.access.scopes import parse_scopes

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
ECHO = """
def handle(event, context):
    told = {name[9:]: value for name, value in context.headers.items() if name.startswith("x-hearth-")}
    return {"event": event.decode() if isinstance(event, bytes) else event, "told": told}
"""
INCREASE = "def handle(event, context):\n    return event + 1\n"
FLAKY = """
def handle(event, context):
    print("attempt", context.headers["x-hearth-attempt"])
    if int(context.headers["x-hearth-attempt"]) <= event["fails"]:
        raise ValueError(event["fails"])
    return int(context.headers["x-hearth-attempt"])
"""
SLEEP = "import time\n\ndef handle(event, context):\n    time.sleep(event)\n    return event\n"
AGAIN = {"attempts": 3, "backoff": "10ms", "max_backoff": "20ms"}
WORKFLOWS: dict[str, object] = {
    "three": ["increase", "increase", "increase"],
    "words": ["text", "count"],
    "tell": {
        "steps": {
            "one": {"function": "echo"},
            "many": {"function": "echo", "needs": ["one"], "map": "input.l", "input": "{i: index, v: item}"},
            "no": {"function": "echo", "when": "input.wanted"},
            "all": {
                "function": "echo",
                "needs": ["one", "many", "no"],
                "input": "[steps.no.status, steps.no.output]",
            },
        }
    },
    "branch": {
        "steps": {
            "first": {"function": "flaky", "retries": AGAIN, "may_fail": True},
            "well": {"function": "echo", "needs": ["first"], "when": "steps.first.status == 'succeeded'"},
            "ill": {"function": "echo", "needs": ["first"], "when": "steps.first.status == 'failed'"},
        }
    },
    "fails": {
        "steps": {
            "before": {"function": "increase", "input": "`1`"},
            "some": {
                "function": "flaky",
                "needs": ["before"],
                "map": "input.fails",
                "input": "{fails: item}",
                "parallel": 2,
                "retries": AGAIN,
            },
            "after": {"function": "echo", "needs": ["some"]},
        },
        "on_failure": "told",
    },
    "slow": {
        "steps": {
            "a": {"function": "sleep", "input": "input.seconds"},
            "b": {"function": "sleep", "needs": ["a"]},
        }
    },
    "picky": {"steps": {"a": {"function": "echo", "map": "input"}}},
    "brief": {"steps": {"a": {"function": "sleep", "timeout": "100ms", "retries": {"attempts": 1}}}},
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    functions = {
        "echo": handler(ECHO),
        "increase": handler(INCREASE),
        "flaky": handler(FLAKY),
        "sleep": handler(SLEEP),
        "told": handler("def handle(event, context):\n    print(event['run_id'], event['detail'])\n"),
        "text": handler("def handle(event, context):\n    return 'one two ' + event['word']\n"),
        "count": command("wc", "-w"),
    }
    with Gateway(tmp_path_factory.mktemp("workflows"), functions, sections={"workflows": WORKFLOWS}) as made:
        yield made


def start(gateway: Gateway, workflow: str, payload: object = None, **headers: str) -> str:
    """Start a run; its address."""
    answer = gateway.http.post(f"/workflows/{workflow}", json=payload, headers=headers)
    assert answer.status_code == 202, answer.text
    assert answer.json()["workflow"] == workflow
    return str(answer.headers["location"])


def ended(gateway: Gateway, place: str, seconds: float = 30) -> dict[str, Any]:
    """A run, when it has ended."""
    return eventually(lambda: (run := gateway.http.get(place).json())["ended"] and run, seconds)


def steps(run: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["status"] for step in run["steps"]}


def slug(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["type"]).removeprefix("urn:hearth:problem:")


def test_a_pipeline_hands_on_what_each_has_answered(gateway: Gateway) -> None:
    place = start(gateway, "three", 1)
    run = ended(gateway, place)
    assert run["status"] == "succeeded"
    assert steps(run) == dict.fromkeys(["increase", "increase-2", "increase-3"], "succeeded")
    assert gateway.http.get(run["output"]).json() == 4
    assert [step["attempts"] for step in run["steps"]] == [1, 1, 1]
    call = gateway.http.get(f"/invocations/{run['steps'][1]['invocation']}").json()
    assert (call["owner"], call["part"], call["status"]) == (f"run:{run['id']}/increase-2", "0", "succeeded")


def test_with_wait_a_run_answers_with_its_output(gateway: Gateway) -> None:
    answer = gateway.http.post("/workflows/words", json={"word": "three"}, headers={"prefer": "wait=30"})
    assert (answer.status_code, answer.text) == (200, "3\n")
    assert answer.headers["preference-applied"] == "wait=30"
    assert gateway.http.get(answer.headers["location"]).json()["status"] == "succeeded"
    answer = gateway.http.post("/workflows/slow", json={"seconds": 0.2}, headers={"prefer": "wait=0"})
    assert answer.status_code == 202
    assert ended(gateway, answer.headers["location"])["status"] == "succeeded"


def test_functions_are_told_where_they_are_called_from_and_items_come_in_order(gateway: Gateway) -> None:
    place = start(gateway, "tell", {"l": ["x", "y", "z"]})
    run = ended(gateway, place)
    assert steps(run) == {"one": "succeeded", "many": "succeeded", "no": "skipped", "all": "succeeded"}
    many = gateway.http.get(f"{place}/steps/many").json()["invocations"]
    results = [gateway.http.get(f"/invocations/{call['id']}/result").json() for call in reversed(many)]
    assert [result["event"] for result in results] == [{"i": i, "v": v} for i, v in enumerate("xyz")]
    told = {"attempt": "1", "workflow": "tell", "run-id": run["id"], "step": "many"}
    assert [result["told"] for result in results] == [{**told, "item": str(item)} for item in range(3)]
    assert gateway.http.get(run["output"]).json()["event"] == ["skipped", None]
    counts = {"waiting": 0, "running": 0, "succeeded": 3, "failed": 0}
    assert [step["items"] for step in run["steps"]] == [None, counts, None, None]


def test_a_step_that_may_fail_leads_to_another_branch(gateway: Gateway) -> None:
    run = ended(gateway, start(gateway, "branch", {"fails": 2}))
    assert steps(run) == {"first": "succeeded", "well": "succeeded", "ill": "skipped"}
    assert run["steps"][0]["attempts"] == 3
    run = ended(gateway, start(gateway, "branch", {"fails": 9}))
    assert (run["status"], steps(run)) == (
        "succeeded",
        {"first": "failed", "well": "skipped", "ill": "succeeded"},
    )
    assert (run["steps"][0]["error"], run["steps"][0]["detail"]) == ("handler-raised", "ValueError: 9")


def test_a_failed_run_says_why_tells_its_function_and_is_resumed_from_what_failed(gateway: Gateway) -> None:
    place = start(gateway, "fails", {"fails": [0, 0, 4, 0]})
    run = ended(gateway, place)
    assert (run["status"], run["error"], run["detail"]) == ("failed", "step-failed", "some failed")
    assert steps(run) == {"before": "succeeded", "some": "failed", "after": "cancelled"}
    assert (run["steps"][1]["error"], run["steps"][1]["detail"]) == (
        "handler-raised",
        "item 2: ValueError: 4",
    )
    assert slug(gateway.http.get(f"{place}/output")) == "conflict"
    (call,) = eventually(
        lambda: gateway.http.get("/invocations?function=told&status=succeeded").json()["invocations"]
    )
    assert gateway.http.get(f"/invocations/{call['id']}/logs").text == f"{run['id']} some failed\n"

    assert gateway.http.post(f"{place}/resume").status_code == 202
    run = ended(gateway, place)
    assert (run["status"], steps(run)) == (
        "succeeded",
        dict.fromkeys(["before", "some", "after"], "succeeded"),
    )
    calls = gateway.http.get(f"{place}/steps/some").json()["invocations"]
    assert {call["part"]: call["attempts"] for call in calls} == {"0": 1, "1": 1, "2": 5, "3": 1}
    assert run["steps"][0]["attempts"] == 1
    assert slug(gateway.http.post(f"{place}/resume")) == "conflict"


def test_what_an_expression_does_not_hold_over_fails_its_step(gateway: Gateway) -> None:
    run = ended(gateway, start(gateway, "picky", {"no": "list"}))
    assert run["status"] == "failed"
    assert (run["steps"][0]["error"], run["steps"][0]["detail"]) == (
        "expression-failed",
        "map: input does not give a list",
    )
    run = ended(gateway, start(gateway, "picky", []))
    assert run["status"] == "succeeded" and gateway.http.get(run["output"]).json() == []


def test_a_step_has_a_timeout_and_retries_of_its_own(gateway: Gateway) -> None:
    run = ended(gateway, start(gateway, "brief", 5))
    assert (run["status"], run["steps"][0]["error"], run["steps"][0]["attempts"]) == ("failed", "timeout", 1)


def test_a_run_is_cancelled_resumed_and_forgotten(gateway: Gateway) -> None:
    place = start(gateway, "slow", {"seconds": 0.3})
    eventually(lambda: gateway.http.get(place).json()["steps"][0]["attempts"])
    cancelled = gateway.http.delete(place).json()
    assert cancelled["status"] == "cancelled"
    run = gateway.http.get(place).json()
    assert steps(run) == {"a": "cancelled", "b": "cancelled"}
    assert gateway.http.get(f"{place}/steps/a").json()["invocations"][0]["status"] == "cancelled"
    assert gateway.http.post(f"{place}/resume").json()["status"] == "running"
    run = ended(gateway, place)
    assert (run["status"], steps(run)) == ("succeeded", {"a": "succeeded", "b": "succeeded"})
    call = gateway.http.get(f"{place}/steps/a").json()["invocations"][0]["id"]
    assert gateway.http.delete(place).json()["status"] == "succeeded"
    for gone in (place, f"{place}/output", f"/invocations/{call}"):
        assert slug(gateway.http.get(gone)) == "not-found"


def test_the_same_key_gives_the_same_run(gateway: Gateway) -> None:
    key = {"idempotency-key": "once"}
    places = {start(gateway, "three", 7, **key) for _ in range(3)}
    assert len(places) == 1
    answer = gateway.http.post("/workflows/three", json=8, headers=key)
    assert (answer.status_code, slug(answer)) == (422, "key-reused")
    assert start(gateway, "three", 7) not in places


def test_runs_are_listed_newest_first_by_pages(gateway: Gateway) -> None:
    started = [start(gateway, "three", number).rpartition("/")[2] for number in range(3)]
    for id in started:
        ended(gateway, f"/runs/{id}")
    page = gateway.http.get("/runs?workflow=three&status=succeeded&limit=2").json()
    assert [run["id"] for run in page["runs"]] == started[:0:-1]
    page = gateway.http.get(f"/runs?workflow=three&limit=1&cursor={page['cursor']}").json()
    assert [run["id"] for run in page["runs"]] == started[:1]
    assert gateway.http.get("/runs?workflow=none").json() == {"runs": [], "cursor": None}


def test_what_is_wrong_with_a_start_is_told_at_once(gateway: Gateway) -> None:
    post = gateway.http.post
    assert slug(post("/workflows/none")) == "not-found"
    assert (
        slug(post("/workflows/three", content=b"{", headers={"content-type": "application/json"}))
        == "bad-request"
    )
    assert slug(post("/workflows/three", json=1, headers={"idempotency-key": "k" * 256})) == "bad-request"
    assert slug(post("/workflows/three", content=b"x" * (6 * 2**20 + 1))) == "body-too-large"
    for place in ("/runs/none", "/runs/none/output", "/runs/none/steps/a", "/workflows/none"):
        assert slug(gateway.http.get(place)) == "not-found"
    assert slug(gateway.http.delete("/runs/none")) == "not-found"
    assert slug(post("/runs/none/resume")) == "not-found"


def test_workflows_are_shown_as_they_are_declared(gateway: Gateway) -> None:
    shown = {workflow["name"]: workflow for workflow in gateway.http.get("/workflows").json()}
    assert set(shown) == set(WORKFLOWS)
    assert shown["fails"] == gateway.http.get("/workflows/fails").json()
    assert shown["fails"]["on_failure"] == "told"
    some = next(step for step in shown["fails"]["steps"] if step["name"] == "some")
    assert (some["function"], some["needs"], some["map"], some["parallel"]) == (
        "flaky",
        ["before"],
        "input.fails",
        2,
    )


def test_a_key_sees_and_starts_what_it_may_invoke_all_of(tmp_path: Path) -> None:
    scopes = {"all": "invoke:*", "half": "invoke:f", "reads": "read"}
    keys = {
        name: create(name, parse_scopes([scope]), UNLIMITED, None, 0.0)[0] for name, scope in scopes.items()
    }
    settings = {"api_keys": "; ".join(f"{keys[name]} {scopes[name]} name={name}" for name in scopes)}
    functions = {name: handler(ECHO) for name in "fg"}
    sections = {"workflows": {"both": ["f", "g"], "one": ["f"]}}
    with Gateway(tmp_path, functions, settings=settings, sections=sections) as gateway:
        everything, half, reads = ({"authorization": f"Bearer {keys[name]}"} for name in scopes)
        gateway.http.headers.update(everything)
        place = start(gateway, "both", 1)
        ended(gateway, place)
        assert [w["name"] for w in gateway.http.get("/workflows", headers=half).json()] == ["one"]
        assert len(gateway.http.get("/workflows", headers=reads).json()) == 2
        assert slug(gateway.http.post("/workflows/both", headers=half)) == "not-found"
        assert gateway.http.post("/workflows/one", headers=half).status_code == 202
        assert slug(gateway.http.post("/workflows/both", headers=reads)) == "forbidden"
        assert gateway.http.get(place, headers=reads).status_code == 200
        assert slug(gateway.http.get(place, headers=half)) == "not-found"
        assert slug(gateway.http.delete(place, headers=half)) == "not-found"
        assert slug(gateway.http.delete(place, headers=reads)) == "forbidden"
        assert [r["workflow"] for r in gateway.http.get("/runs", headers=half).json()["runs"]] == ["one"]


# -- the gallery ----------------------------------------------------------------------------------------------


def gallery(folder: Path, **settings: object) -> Gateway:
    """A gateway with the functions and the workflow of the example, just as they are declared."""
    declared = yaml.safe_load((ROOT / "functions.yaml").read_text())
    names = ("thumbnail", "gallery-names", "gallery-read", "gallery-page")
    for source in ("thumbnail", "gallery"):
        shutil.copytree(ROOT / "functions" / source, folder / "functions" / source)
    functions = {name: declared["functions"][name] for name in names}
    sections = {"workflows": {"gallery": declared["workflows"]["gallery"]}}
    return Gateway(folder, functions, settings={"start_timeout": "60s", **settings}, sections=sections)


def ready(gateway: Gateway) -> None:
    """Wait until the picture library of thumbnail is installed."""

    def states() -> set[str]:
        return {function["state"] for function in gateway.http.get("/functions").json()}

    assert eventually(lambda: (found := states()) <= {"ready", "failed"} and found, 150) == {"ready"}


def thumbnails_of(page: str) -> list[bytes]:
    return [b64decode(found) for found in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)]


def test_the_gallery_is_finished_after_a_kill_half_way_and_nothing_ran_twice(tmp_path: Path) -> None:
    with gallery(tmp_path) as gateway:
        ready(gateway)
        answer = gateway.http.post(
            "/workflows/gallery", json={"title": "Summer"}, headers={"prefer": "wait=60"}
        )
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["content-security-policy"].startswith("sandbox; ")
        pictures = thumbnails_of(answer.text)
        originals = sorted((ROOT / "functions/gallery/pictures").glob("*.jpg"))
        assert "<h1>Summer</h1>" in answer.text and len(pictures) == len(originals) == 6
        assert all(picture.startswith(b"\xff\xd8\xff") for picture in pictures)
        assert all(
            len(picture) < original.stat().st_size
            for picture, original in zip(pictures, originals, strict=True)
        )

        place = half_way(gateway)
        finished = {call["id"] for call in calls_of(gateway, place) if call["status"] == "succeeded"}
        gateway.stop(signal.SIGKILL)
        gateway.launch()
        gateway.wait_until_ready()
        run = ended(gateway, place, 60)
        assert run["status"] == "succeeded", json.dumps(run)
        assert len(thumbnails_of(gateway.http.get(run["output"]).text)) == 6
        calls = calls_of(gateway, place)
        assert len(calls) == 1 + 6 + 6 + 1, "each part was called for once"
        assert len(finished) >= 8 and {call["attempts"] for call in calls if call["id"] in finished} == {1}
        again = gateway.metric("hearth_async_interrupted_total") + gateway.metric(
            "hearth_async_retries_total"
        )
        assert sum(call["attempts"] - 1 for call in calls) == again, (
            "only what the kill had interrupted ran again"
        )


def half_way(gateway: Gateway) -> str:
    """The address of a run some of whose thumbnails are there, and not all."""
    while True:
        place = start(gateway, "gallery", {"title": "Again"})
        while (run := gateway.http.get(place).json())[
            "status"
        ] == "running":  # else it was too fast to be seen
            items = run["steps"][2]["items"]
            if items is not None and 0 < items["succeeded"] < 6:
                return place


def calls_of(gateway: Gateway, place: str) -> list[dict[str, Any]]:
    """All calls of a run of the gallery."""
    names = ("names", "pictures", "thumbnails", "page")
    return [call for n in names for call in gateway.http.get(f"{place}/steps/{n}").json()["invocations"]]
