"""functions.yaml and code are watched: what changes while the gateway serves, and what must not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from harness import Gateway, eventually, handler

pytestmark = pytest.mark.engine

STEADY = "def handle(event, context):\n    return 'steady'\n"


def version(number: int) -> str:
    return f"""
import time

def handle(event, context):
    time.sleep(event)
    return {{"number": {number}, "version": context.version}}
"""


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    functions = {"changing": handler(version(1)), "steady": handler(STEADY)}
    with Gateway(tmp_path, functions, prewarm={"python": 1}) as running:
        yield running


def test_changed_code_is_a_new_version_and_calls_in_flight_finish_on_the_old_one(gateway: Gateway):
    steady = gateway.call("steady")
    assert gateway.call("changing", 0).json()["number"] == 1
    old = gateway.http.get("/functions/changing").json()["version"]
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(gateway.call, "changing", 2)
        (instance,) = eventually(lambda: [i for i in gateway.instances("changing") if i["state"] == "busy"])
        gateway.write("changing/handler.py", version(2))
        new = eventually(
            lambda: gateway.call("changing", 0).json()["number"] == 2 and gateway.call("changing", 0)
        )
        assert not running.done()
        shown = gateway.http.get(f"/pool/instances/{instance['id']}").json()
        assert (shown["state"], shown["reason"], shown["version"]) == ("draining", "replaced", old)
        assert running.result().json() == {"number": 1, "version": old}
    eventually(lambda: gateway.http.get(f"/pool/instances/{instance['id']}").status_code == 404)
    assert gateway.http.get("/functions/changing").json()["version"] == new.json()["version"] != old
    assert gateway.metric("hearth_removals_total", reason="replaced") >= 1  # more if a slow save let calls in
    again = gateway.call("steady")
    assert again.headers["x-hearth-start"] == "warm", "a function that has not changed keeps its instances"
    assert steady.status_code == again.status_code == 200


def test_a_changed_key_is_a_new_version(gateway: Gateway):
    old = gateway.http.get("/functions/changing").json()["version"]
    gateway.call("changing", 0)
    functions = {"changing": handler(version(1), timeout="200ms"), "steady": handler(STEADY)}
    gateway.declare(functions, {"python": 1})
    eventually(lambda: gateway.http.get("/functions/changing").json()["version"] != old)
    assert gateway.call("changing", 5).status_code == 504


def test_a_faulty_file_keeps_what_is_in_service(gateway: Gateway):
    before = gateway.http.get("/functions").json()
    gateway.write("functions.yaml", "version: 1\nfunctions:\n  changing: {runtime: python, timout: 3s}\n")
    eventually(lambda: "functions.yaml:3:39" in gateway.log)
    assert gateway.http.get("/functions").json() == before
    assert gateway.call("changing", 0).json()["number"] == 1
    assert gateway.http.get("/readyz").status_code == 200
    gateway.declare({"changing": handler(version(3))})
    eventually(lambda: gateway.call("changing", 0).json().get("number") == 3)


def test_a_save_that_breaks_the_code_fails_no_call_and_is_shown_until_it_is_mended(gateway: Gateway):
    gateway.call("changing", 0)
    old = gateway.http.get("/functions/changing").json()["version"]
    mended = threading.Event()

    def load() -> list[httpx.Response]:
        answers = []
        while not mended.is_set():
            answers.append(gateway.call("changing", 0.01))
        return answers

    with ThreadPoolExecutor(4) as threads:
        loads = [threads.submit(load) for _ in range(4)]
        try:
            gateway.write("changing/handler.py", "def handle(event, context) return 1\n")
            shown = eventually(lambda: (f := gateway.http.get("/functions/changing").json())["fault"] and f)
            assert (shown["state"], shown["version"]) == ("ready", old)
            assert "SyntaxError: " in shown["fault"] and "(handler.py, line 1)" in shown["fault"]
            assert gateway.http.get("/readyz").status_code == 200
            assert gateway.call("changing", 0).json()["version"] == old
            gateway.write("changing/handler.py", version(4))
            eventually(lambda: gateway.call("changing", 0).json()["number"] == 4)
        finally:
            mended.set()
    answers = [answer for load in loads for answer in load.result()]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["number"] for answer in answers} <= {1, 4}
    assert gateway.http.get("/functions/changing").json()["fault"] is None
    assert gateway.log.count("function changing: SyntaxError") == 1
    assert "    def handle(event, context) return 1" in gateway.log, "the traceback's end is not told"


def test_new_code_that_cannot_be_imported_says_so_until_it_is_mended(gateway: Gateway):
    gateway.declare({"steady": handler(STEADY), "fresh": handler("import not_there\n")})
    answer = eventually(lambda: (r := gateway.call("fresh", 0)).status_code not in (404, 503) and r)
    assert answer.status_code == 500
    assert "not_there" in answer.json()["detail"]
    gateway.write("fresh/handler.py", version(4))
    eventually(lambda: (r := gateway.call("fresh", 0)).status_code == 200 and r.json()["number"] == 4)


def test_a_removed_function_is_gone_and_a_new_one_is_there(gateway: Gateway):
    gateway.call("changing", 0)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(gateway.call, "changing", 1)
        eventually(lambda: gateway.pool("changing")["instances"].get("busy"))
        gateway.declare({"steady": handler(STEADY), "fresh": handler(version(5))})
        eventually(lambda: gateway.call("fresh", 0).status_code == 200)
        answer = gateway.call("changing", 0)
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:hearth:problem:no-such-function")
        assert gateway.http.get("/functions/changing").status_code == 404
        assert running.result().json()["number"] == 1
    eventually(lambda: gateway.instances("changing") == [])
    assert [f["name"] for f in gateway.http.get("/functions").json()] == ["steady", "fresh"]


def test_prewarm_pools_follow_the_file(gateway: Gateway):
    eventually(lambda: gateway.prewarmed() == 1)
    functions = {"changing": handler(version(1)), "steady": handler(STEADY)}
    gateway.declare(functions, {"python": 3})
    eventually(lambda: gateway.prewarmed() == 3)
    gateway.declare(functions)
    eventually(lambda: gateway.prewarmed() == 0 and gateway.containers() == [])
    assert gateway.metric("hearth_removals_total", reason="surplus") == 3


def test_code_that_was_removed_from_the_data_folder_is_told_and_comes_back_with_the_next_load(
    gateway: Gateway,
):
    assert gateway.call("steady").status_code == 200
    kept = list((gateway.data / "code").iterdir())
    assert len(kept) == 2
    for file in kept:
        file.unlink()
    lost = gateway.call("changing", 0)
    assert (lost.status_code, lost.json()["blame"]) == (503, "platform")
    assert "code is not in the data folder any more" in lost.json()["detail"]
    assert gateway.call("steady").headers["x-hearth-start"] == "warm", "what runs goes on"
    gateway.write("functions.yaml", gateway.file.read_text())
    assert eventually(lambda: (answer := gateway.call("changing", 0)).status_code == 200 and answer).json()
