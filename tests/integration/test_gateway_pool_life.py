"""How instances come, stay and go: every reason for a removal, limits of memory, and what a dead gateway left."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import GATEWAY_LABEL, Gateway, command, eventually, handler, in_parallel, server

pytestmark = pytest.mark.engine

HOST = "import os\n\ndef handle(event, context):\n    return os.uname().nodename\n"
SLEEP = """
import os, time

def handle(event, context):
    time.sleep(event)
    return os.uname().nodename
"""
PACKED = """
import asyncio, os

running = most = 0

async def handle(event, context):
    global running, most
    running += 1
    most = max(most, running)
    await asyncio.sleep(event)
    running -= 1
    return {"host": os.uname().nodename, "most": most}
"""
TURNS = """
import os

def handle(event, context):
    child = os.fork()
    if child == 0:
        os._exit(os.sched_getscheduler(0))
    return [os.sched_getscheduler(0), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]
"""
SITE = "import http.server as s; s.test(s.SimpleHTTPRequestHandler, port=8000)"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    functions = {
        "idle": handler(HOST, keep_alive="400ms"),
        "thrice": handler(HOST, max_invocations=3),
        "aged": handler(HOST, max_age="1s"),
        "killed": handler(HOST),
        "site": server(SITE),
        "turns": handler(TURNS),
        "deleted": handler(SLEEP),
        "kept": handler(HOST, min_instances=2, keep_alive="100ms"),
        "packed": handler(PACKED, concurrency=8),
        "command": command("sleep", "0.3", max_instances=2),
    }
    with Gateway(tmp_path_factory.mktemp("life"), functions, prewarm={"python": 1}) as running:
        yield running


def removals(gateway: Gateway, reason: str) -> float:
    return gateway.metric("hearth_removals_total", reason=reason)


def test_who_runs_what_nobody_waits_for_does_not_stop_others(gateway: Gateway):
    """An accepted call runs in the kernel's class for batches, with what it starts; a direct one does not."""
    direct, later = [os.SCHED_OTHER] * 2, [os.SCHED_BATCH] * 2
    assert gateway.call("turns").json() == direct
    for _ in range(2):
        asked = gateway.call("turns", headers={"prefer": "respond-async, wait=10"})
        assert asked.json() == later and asked.headers["x-hearth-start"] == "warm"
        assert gateway.call("turns").json() == direct


def test_min_instances_are_up_before_readiness_and_stay(gateway: Gateway):
    assert gateway.pool("kept")["instances"] == {"idle": 2}
    assert gateway.call("kept").headers["x-hearth-start"] == "prewarmed"
    ids = {instance["id"] for instance in gateway.instances("kept")}
    time.sleep(0.7)  # several looks of the reaper, all past keep_alive
    assert {instance["id"] for instance in gateway.instances("kept")} == ids
    killed = gateway.instances("kept")[0]
    gateway.engine.kill(killed["container"])
    eventually(lambda: killed["id"] not in {instance["id"] for instance in gateway.instances("kept")})
    eventually(lambda: gateway.pool("kept")["instances"] == {"idle": 2})


def test_an_idle_instance_goes_after_keep_alive(gateway: Gateway):
    before = removals(gateway, "idle")
    host = gateway.call("idle").text
    assert gateway.call("idle").text == host
    eventually(lambda: gateway.instances("idle") == [], 5)
    assert removals(gateway, "idle") == before + 1
    assert gateway.http.get("/pool").json()["removals"]["idle"] == before + 1
    assert gateway.call("idle").text != host


def test_an_instance_goes_after_max_invocations(gateway: Gateway):
    hosts = [gateway.call("thrice").text for _ in range(7)]
    assert [hosts.count(host) for host in dict.fromkeys(hosts)] == [3, 3, 1]
    eventually(lambda: removals(gateway, "max-invocations") == 2)


def test_an_instance_goes_after_max_age_though_it_is_used(gateway: Gateway):
    hosts, end = [], time.monotonic() + 2.2
    while time.monotonic() < end:
        response = gateway.call("aged")
        assert response.status_code == 200
        hosts.append(response.text)
        time.sleep(0.05)
    assert 2 <= len(set(hosts)) <= 4
    assert hosts == sorted(hosts, key=hosts.index), "an older instance was used after a newer one"
    assert removals(gateway, "max-age") >= 1


@pytest.mark.parametrize("function", ["killed", "site"])
def test_a_killed_container_is_seen_and_replaced(gateway: Gateway, function: str):
    method = "GET" if function == "site" else "POST"
    path = "/invoke/site/" if function == "site" else "/invoke/killed"
    assert gateway.http.request(method, path).status_code == 200
    (instance,) = gateway.instances(function)
    before = removals(gateway, "dead")
    gateway.engine.kill(instance["container"])
    assert gateway.http.request(method, path).status_code == 200, (
        "a call that was not sent is sent to another"
    )
    eventually(lambda: removals(gateway, "dead") == before + 1)
    (other,) = gateway.instances(function)
    assert other["id"] != instance["id"]


def test_a_prewarmed_instance_that_dies_is_replaced(gateway: Gateway):
    eventually(lambda: gateway.prewarmed() == 1)
    (generic,) = [i for i in gateway.instances() if i["state"] == "prewarmed"]
    gateway.engine.kill(generic["container"])
    eventually(
        lambda: (
            [i["id"] for i in gateway.instances() if i["state"] == "prewarmed"] not in ([], [generic["id"]])
        )
    )


def test_delete_removes_an_instance_when_its_call_has_finished(gateway: Gateway):
    host = gateway.call("deleted", 0).text
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(gateway.call, "deleted", 0.7)
        (instance,) = eventually(lambda: [i for i in gateway.instances("deleted") if i["state"] == "busy"])
        path = f"/pool/instances/{instance['id']}"
        answer = gateway.http.delete(path)
        assert (answer.status_code, answer.json()["state"]) == (202, "draining")
        assert gateway.http.get(path).json()["reason"] == "requested"
        assert gateway.call("deleted", 0).text != host
        assert running.result().text == host
    eventually(lambda: gateway.http.get(path).status_code == 404)
    assert removals(gateway, "requested") >= 1
    assert gateway.http.delete(path).status_code == 404


def test_an_async_handler_packs_eight_calls_into_one_instance(gateway: Gateway):
    gateway.call("packed", 0)
    begin = time.monotonic()
    answers = in_parallel(lambda _: gateway.call("packed", 0.4).json(), 8)
    assert time.monotonic() - begin < 1.2
    assert len({answer["host"] for answer in answers}) == 1
    assert max(answer["most"] for answer in answers) == 8
    assert len(gateway.instances("packed")) == 1


def test_a_command_leaves_nothing(gateway: Gateway):
    assert {answer.status_code for answer in in_parallel(lambda _: gateway.call("command"), 4)} == {200}
    eventually(lambda: [i["started_for"] for i in gateway.instances("command")] == ["spare"] * 2)
    assert not any(i["served"] for i in gateway.instances("command")), "these are for the next calls"
    assert removals(gateway, "single-use") >= 4


def test_the_pools_books_agree_with_the_engine(gateway: Gateway):
    def agree() -> bool:
        shown = {i["container"] for i in gateway.instances()}
        declared = sum(i["memory"] for i in gateway.instances())
        same = shown == {c["Id"] for c in gateway.containers()}
        return same and declared == gateway.metric("hearth_memory_declared_bytes")

    eventually(agree)
    folders = {folder.name for folder in (gateway.data / "run").iterdir()}
    assert folders == {i["id"] for i in gateway.instances()}


def test_idle_instances_of_others_are_evicted_for_memory(tmp_path: Path):
    """400 MiB: three of 128 MiB. The least recently used goes first; what is busy stays."""
    functions = {name: handler(SLEEP, queue_timeout="3s") for name in ("first", "second", "third", "fourth")}
    settings = {"memory_budget": "400MiB", "keep_alive_policy": "lru"}
    with (
        Gateway(tmp_path, functions, settings=settings) as gateway,
        gateway.engine.watch(f"{GATEWAY_LABEL}={gateway.identity}") as watched,
        ThreadPoolExecutor(1) as threads,
    ):
        for name in ("first", "second", "third"):
            assert gateway.call(name, 0).status_code == 200
        running = threads.submit(gateway.call, "first", 1.5)
        eventually(lambda: gateway.pool("first")["instances"].get("busy"))
        assert gateway.call("fourth", 0).status_code == 200
        assert gateway.instances("second") == []
        assert [len(gateway.instances(name)) for name in ("first", "third", "fourth")] == [1, 1, 1]
        assert removals(gateway, "evicted") == 1
        assert running.result().status_code == 200
        assert watched.most_at_once() == 3


def test_prewarmed_instances_are_evicted_too(tmp_path: Path):
    functions = {"large": handler(HOST, memory="300MiB")}
    with Gateway(tmp_path, functions, prewarm={"python": 2}, settings={"memory_budget": "310MiB"}) as gateway:
        eventually(lambda: gateway.prewarmed() == 2)
        assert gateway.call("large").status_code == 200
        assert gateway.metric("hearth_memory_declared_bytes") == 300 * 2**20
        assert removals(gateway, "evicted") >= 1


def test_a_second_gateway_with_the_same_data_folder_is_refused(tmp_path: Path):
    with Gateway(tmp_path, {"host": handler(HOST)}) as gateway:
        twin = Gateway(tmp_path, {"host": handler(HOST)})
        twin.log_file = tmp_path / "twin.log"
        twin.launch()
        assert twin.process.wait(20) != 0
        twin.close()
        assert "another gateway" in twin.log
        assert gateway.call("host").status_code == 200
