"""Frozen instances on the real engine: they run nothing at all, and are there at once when they are called."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Gateway, eventually, handler, in_parallel, server

COUNTER = """
import threading, time
count = 0
def run():
    global count
    while True:
        count += 1
        time.sleep(0.002)
threading.Thread(target=run, daemon=True).start()
def handle(event, context):
    return {"count": count, "echo": event}
"""
"""Code that goes on working between calls."""

SERVER = """
import http.server, json, os, threading, time
count = 0
def run():
    global count
    while True:
        count += 1
        time.sleep(0.002)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        echo = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body = json.dumps({"count": count, "echo": echo}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
threading.Thread(target=run, daemon=True).start()
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""

QUICK = {"freeze_after": "300ms"}
WITHOUT_FREEZER = ("unshare", "--mount", "sh", "-c")
FUNCTIONS = {
    "counter": handler(COUNTER, **QUICK),
    "server": server(SERVER, **QUICK, concurrency=4),
    "many": handler(COUNTER, **QUICK, concurrency=3, max_instances=1),
    "awake": handler(COUNTER, freeze_after="never"),
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("frozen"), FUNCTIONS, prewarm={"python": 1}) as running:
        yield running


@pytest.fixture(scope="module")
def over_the_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that cannot write to any container's freezer: the hierarchy is read-only for it."""
    mount = 'mount -o remount,bind,ro /sys/fs/cgroup/freezer && exec "$@"'
    folder = tmp_path_factory.mktemp("paused")
    with Gateway(folder, FUNCTIONS, wrapper=(*WITHOUT_FREEZER, mount, "sh")) as running:
        yield running


@pytest.fixture(params=["gateway", "over_the_engine"])
def either(request: pytest.FixtureRequest) -> Gateway:
    """Both ways of freezing."""
    return request.getfixturevalue(request.param)


def frozen(gateway: Gateway, function: str) -> str:
    """Wait until the function's only instance is frozen; its container's id."""
    eventually(lambda: gateway.pool(function)["instances"] == {"frozen": 1})
    [instance] = gateway.instances(function)
    assert instance["state"] == "frozen"
    return str(instance["container"])


def engine_calls(gateway: Gateway) -> dict[str, float]:
    """Calls to the engine that starting and looking after containers takes, so far."""
    verbs = (
        "create",
        "start",
        "inspect",
        "resize",
        "pause",
        "unpause",
        "wait",
        "remove",
        "logs",
        "containers",
    )
    return {verb: gateway.metric("hearth_engine_seconds_count", verb=verb) for verb in verbs}


@pytest.mark.parametrize("function", ["counter", "server", "many"])
def test_it_runs_nothing_while_frozen_and_goes_on_after_the_next_call(either: Gateway, function: str) -> None:
    before = either.call(function, {"n": 1}).json()
    container = frozen(either, function)
    time.sleep(0.1)  # over the engine it takes a moment
    at_first = either.engine.processor_time(container)
    time.sleep(0.5)
    assert either.engine.processor_time(container) == at_first, "a frozen instance has run"
    answer = either.call(function, {"n": 2})
    after = answer.json()
    assert answer.status_code == 200
    assert answer.headers["x-hearth-start"] == "warm"
    assert after["echo"] == {"n": 2}
    assert after["count"] >= before["count"] > 0
    assert eventually(lambda: either.call(function, {"n": 3}).json()["count"] > after["count"])
    [instance] = either.instances(function)
    assert instance["container"] == container


def test_neither_freezing_nor_thawing_asks_the_engine(gateway: Gateway) -> None:
    gateway.call("counter", {})
    frozen(gateway, "counter")
    before = engine_calls(gateway)
    for _ in range(3):
        assert gateway.call("counter", {}).status_code == 200
        frozen(gateway, "counter")
    assert engine_calls(gateway) == before


def test_where_the_freezer_cannot_be_written_the_engine_pauses(over_the_engine: Gateway) -> None:
    over_the_engine.call("counter", {})
    container = frozen(over_the_engine, "counter")
    before = engine_calls(over_the_engine)
    state = over_the_engine.engine.request("GET", f"/containers/{container}/json")["State"]
    eventually(
        lambda: over_the_engine.engine.request("GET", f"/containers/{container}/json")["State"]["Paused"]
    )
    assert state["Running"]
    over_the_engine.call("counter", {})
    state = over_the_engine.engine.request("GET", f"/containers/{container}/json")["State"]
    assert not state["Paused"]
    after = engine_calls(over_the_engine)
    assert after["unpause"] == before["unpause"] + 1


def test_several_calls_at_once_thaw_it_once(either: Gateway) -> None:
    either.call("many", {})
    frozen(either, "many")
    answers = in_parallel(lambda n: either.call("many", {"n": n}), 3)
    assert sorted(a.json()["echo"]["n"] for a in answers) == [0, 1, 2]
    assert len(either.instances("many")) == 1


def test_one_that_never_freezes_goes_on(gateway: Gateway) -> None:
    gateway.call("awake", {})
    [instance] = gateway.instances("awake")
    at_first = gateway.engine.processor_time(instance["container"])
    time.sleep(3.0)
    assert gateway.pool("awake")["instances"] == {"idle": 1}
    assert gateway.engine.processor_time(instance["container"]) > at_first


def test_prewarmed_ones_are_not_frozen(gateway: Gateway) -> None:
    eventually(lambda: gateway.prewarmed() == 1)
    time.sleep(3.0)
    assert gateway.prewarmed() == 1


@pytest.mark.parametrize("function", ["counter", "server"])
@pytest.mark.parametrize("end", ["kill", "rm", "drain"])
def test_a_frozen_one_that_is_ended_is_replaced(either: Gateway, end: str, function: str) -> None:
    either.call(function, {})
    container = frozen(either, function)
    time.sleep(0.1)
    reason = "requested" if end == "drain" else "dead"
    before = either.metric("hearth_removals_total", reason=reason)
    if end == "kill" and either.engine.request("GET", f"/containers/{container}/json")["State"]["Paused"]:
        either.engine.request(
            "POST", f"/containers/{container}/unpause"
        )  # the engine refuses to kill a paused one
    if end == "kill":
        either.engine.kill(container)
    elif end == "rm":
        either.engine.request("DELETE", f"/containers/{container}", force="1")
    else:
        [instance] = either.instances(function)
        assert either.http.delete(f"/pool/instances/{instance['id']}").is_success
    eventually(lambda: container not in [c["Id"] for c in either.containers()])
    eventually(lambda: either.metric("hearth_removals_total", reason=reason) == before + 1)
    answer = either.call(function, {"n": 1})
    assert answer.json()["echo"] == {"n": 1}
    assert answer.headers["x-hearth-start"] != "warm"


def test_a_frozen_one_is_evicted_for_another_function(tmp_path: Path) -> None:
    functions = {"a": handler(COUNTER, **QUICK), "b": handler(COUNTER, **QUICK)}
    with Gateway(tmp_path, functions, settings={"memory_budget": "200MiB"}) as gateway:
        gateway.call("a", {})
        frozen(gateway, "a")
        assert gateway.call("b", {"n": 1}).json()["echo"] == {"n": 1}
        assert gateway.metric("hearth_removals_total", reason="evicted") == 1
        frozen(gateway, "b")  # and SIGTERM removes it: the harness looks


def test_what_a_killed_gateway_left_frozen_is_thawed_and_adopted_by_the_next(tmp_path: Path) -> None:
    with Gateway(tmp_path, {"a": handler(COUNTER, **QUICK)}) as gateway:
        gateway.call("a", {})
        container = frozen(gateway, "a")
        gateway.stop(signal.SIGKILL)
        gateway.launch()
        gateway.wait_until_ready()
        assert container in [c["Id"] for c in gateway.containers()]
        answer = gateway.call("a", {"n": 1})
        assert answer.json()["echo"] == {"n": 1}
        assert answer.headers["x-hearth-start"] == "warm"
