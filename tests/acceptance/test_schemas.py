"""A function with `check` refuses input that does not fit, however it comes: directly, accepted, by a workflow, by a
trigger. Its instance never sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from harness import Gateway, command, eventually, handler

pytestmark = pytest.mark.engine

COUNTS = """
seen = 0

def handle(event, context):
    global seen
    seen += 1
    return {"seen": seen, "event": event}
"""
SCHEMA: dict[str, Any] = {
    "input": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    "check": True,
    "example": {"n": 3},
}
CHECKED = {**handler(COUNTS), "schema": SCHEMA}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    functions = {"checked": CHECKED, "counted": {**command("wc", "-c"), "schema": SCHEMA}}
    sections = {
        "workflows": {"flow": {"steps": {"only": {"function": "checked", "input": "input"}}}},
        "triggers": {"fired": {"schedule": "0 0 1 1 *", "function": "checked", "input": {"n": "three"}}},
    }
    folder = tmp_path_factory.mktemp("checked")
    with Gateway(folder, functions, prewarm={"python": 1}, sections=sections) as running:
        yield running


def test_a_direct_call_is_refused_with_the_place_of_its_fault(gateway: Gateway) -> None:
    for name in ("checked", "counted"):
        problem = gateway.http.post(f"/invoke/{name}", json={"n": "three"})
        assert problem.status_code == 422
        assert problem.json()["pointer"] == "/n"
        assert problem.json()["blame"] == "caller"
        assert 'at /n: "three" is not of type "integer"' in problem.json()["detail"]
    assert gateway.http.post("/invoke/counted", json={"n": 3}).text.strip() == "7"
    assert gateway.http.post("/invoke/checked", content="three words").status_code == 422


def test_only_what_fits_reaches_the_function_whichever_way_it_comes(gateway: Gateway) -> None:
    client = gateway.http
    before = client.post("/invoke/checked", json={"n": 1}).json()["seen"]
    refused = client.post("/invoke/checked", json={"n": None}, headers={"prefer": "respond-async"})
    assert (refused.status_code, refused.json()["pointer"]) == (422, "/n")
    assert "preference-applied" not in refused.headers
    accepted = client.post(
        "/invoke/checked", json={"n": 2}, headers={"prefer": "respond-async, wait=10", "idempotency-key": "k"}
    )
    assert accepted.json() == {"seen": before + 1, "event": {"n": 2}}

    run = client.post("/workflows/flow", json={"n": []}).json()["id"]
    ended = eventually(lambda: found if (found := client.get(f"/runs/{run}").json())["ended"] else None)
    assert (ended["status"], ended["steps"][0]["error"]) == ("failed", "input-mismatch")

    call = client.post("/triggers/fired/fire").json()["id"]
    shown = eventually(
        lambda: found if (found := client.get(f"/invocations/{call}").json())["ended"] else None
    )
    assert (shown["status"], shown["error"], shown["attempts"]) == ("failed", "input-mismatch", 1)
    assert client.get(f"/invocations/{call}/result").json()["pointer"] == "/n"

    assert client.post("/invoke/checked", json={"n": 1}).json()["seen"] == before + 2


def test_a_changed_schema_counts_at_once_and_makes_no_new_revision(gateway: Gateway) -> None:
    client = gateway.http
    before = client.get("/functions/checked").json()["version"]
    assert client.post("/invoke/checked", json={"n": "3"}).status_code == 422
    gateway.declare({"checked": {**CHECKED, "schema": {**SCHEMA, "input": True}}}, prewarm={"python": 1})
    answer = eventually(
        lambda: found if (found := client.post("/invoke/checked", json={"n": "3"})).is_success else None
    )
    assert answer.json()["seen"] > 1, "its instance is the same"
    assert client.get("/functions/checked").json()["version"] == before
