"""A gateway that was killed or stopped is started again: it adopts what is warm, removes all else, leaks nothing."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from harness import GATEWAY_LABEL, Gateway, command, eventually, handler, server

from pool.host.netns import open_in

pytestmark = pytest.mark.engine

HOST = "import os\n\ndef handle(event, context):\n    return os.uname().nodename\n"
SLEEP = """
import os, time

def handle(event, context):
    time.sleep(event or 0)
    return [event, os.uname().nodename]
"""
SLOW_IMPORT = "import time\ntime.sleep(1.5)\n\ndef handle(event, context):\n    return 'here'\n"
SITE = "import http.server as s; s.test(s.SimpleHTTPRequestHandler, port=8000)"
SLOW_SITE = """
import http.server, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/slow":
            time.sleep(60)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

http.server.HTTPServer(("", 8000), Handler).serve_forever()
"""
WITHOUT_RECORD = ("fresh", "command")


def restart(gateway: Gateway) -> float:
    """Start it again and wait until it is ready; how many seconds that took."""
    begin = time.monotonic()
    gateway.launch()
    gateway.wait_until_ready()
    return time.monotonic() - begin


def accounted(gateway: Gateway) -> bool:
    """Whether all is at rest, the pool knows of every container, and every record and folder is an instance's."""
    instances = {i["id"]: i for i in gateway.instances()}
    containers = {c["Id"] for c in gateway.containers()}
    folders = {f.name for f in (gateway.data / "run").glob("*")}
    records = {f.name for f in (gateway.data / "records").glob("*")}
    return (
        all(i["state"] in ("idle", "frozen", "prewarmed") for i in instances.values())
        and containers == {i["container"] for i in instances.values()}
        and folders == instances.keys()
        and records == {f"{id}.json" for id, i in instances.items() if i["function"] not in WITHOUT_RECORD}
    )


def removals(gateway: Gateway, reason: str) -> float:
    return gateway.metric("hearth_removals_total", reason=reason)


@contextmanager
def load(gateway: Gateway, *functions: str) -> Iterator[None]:
    """Calls of each of these functions, one after the other, whatever becomes of them."""
    stop = threading.Event()
    url = gateway.url

    def call(function: str) -> None:
        with httpx.Client(trust_env=False, timeout=10) as client:
            while not stop.is_set():
                with contextlib.suppress(httpx.TransportError):
                    client.post(f"{url}/invoke/{function}")
                stop.wait(0.005)

    with ThreadPoolExecutor(len(functions)) as threads:
        for function in functions:
            threads.submit(call, function)
        try:
            yield
        finally:
            stop.set()


def test_after_a_kill_warm_instances_are_adopted(tmp_path: Path):
    functions = {"host": handler(HOST), "site": server(SITE), "packed": handler(HOST, concurrency=3)}
    with Gateway(tmp_path, functions, prewarm={"python": 1}) as gateway:
        hosts = {name: gateway.call(name).text for name in ("host", "packed")}
        assert gateway.http.get("/invoke/site/").status_code == 200
        eventually(lambda: accounted(gateway) and gateway.prewarmed() == 1)
        eventually(lambda: [i["state"] for i in gateway.instances()].count("frozen") == 3)
        before = {i["id"]: i for i in gateway.instances()}
        gateway.stop(signal.SIGKILL)
        assert {c["Id"] for c in gateway.containers()} == {i["container"] for i in before.values()}
        restart(gateway)
        after = {i["id"]: i for i in gateway.instances()}
        assert after.keys() == before.keys()
        assert all(after[id]["age"] > before[id]["age"] for id in before)
        for name, host in hosts.items():
            answer = gateway.call(name)
            assert (answer.text, answer.headers["x-hearth-start"]) == (host, "warm")
        assert gateway.http.get("/invoke/site/").headers["x-hearth-start"] == "warm"
        assert gateway.prewarmed() == 1
        assert accounted(gateway)


def test_a_network_stays_as_long_as_a_function_is_on_it(tmp_path: Path):
    functions = {"out": handler(HOST, network="egress"), "paused": handler(HOST, freeze_after="1h")}
    with Gateway(tmp_path, functions) as gateway:
        hosts = {name: gateway.call(name).text for name in functions}
        label = f"{GATEWAY_LABEL}={gateway.identity}"
        [network] = gateway.engine.networks(label)
        [paused] = gateway.instances("paused")
        gateway.stop(signal.SIGKILL)
        gateway.engine.request(
            "POST", f"/containers/{paused['container']}/pause"
        )  # as by a gateway without cgroups
        restart(gateway)
        for name, host in hosts.items():
            answer = gateway.call(name)
            assert (answer.text, answer.headers["x-hearth-start"]) == (host, "warm")
        assert gateway.engine.networks(label) == [network]
        gateway.stop(signal.SIGKILL)
        del functions["out"]
        gateway.declare(functions)
        restart(gateway)
        eventually(lambda: gateway.engine.networks(label) == [])
        eventually(lambda: accounted(gateway))
        assert gateway.call("paused").text == hosts["paused"]


def test_what_runs_on_an_adopted_instance_is_logged_and_measured_as_before(tmp_path: Path):
    code = "def handle(event, context):\n    print('heard', event)\n    return event\n"
    with Gateway(tmp_path, {"speak": handler(code, keep_alive="3s")}) as gateway:
        gateway.call("speak", 1)
        gateway.stop(signal.SIGKILL)
        restart(gateway)
        answer = gateway.call("speak", 2)
        assert (answer.json(), gateway.logs(answer)) == (2, "heard 2\n")
        [instance] = gateway.instances("speak")
        assert instance["served"] == 1
        eventually(lambda: gateway.instances("speak") == [], 6)
        assert removals(gateway, "idle") == 1


def test_what_has_changed_meanwhile_is_not_adopted(tmp_path: Path):
    functions = {name: handler(HOST) for name in ("same", "changed", "gone", "counted")}
    functions["counted"] = handler(HOST, max_invocations=100)
    with Gateway(tmp_path, functions, prewarm={"python": 1}) as gateway:
        hosts = {name: gateway.call(name).text for name in functions}
        eventually(lambda: gateway.prewarmed() == 1)
        gateway.stop(signal.SIGKILL)
        del functions["gone"]
        gateway.declare(functions | {"changed": handler(HOST + "\n")})
        restart(gateway)
        starts = {
            name: gateway.call(name).headers["x-hearth-start"] for name in ("same", "changed", "counted")
        }
        assert starts == {"same": "warm", "changed": "cold", "counted": "cold"}
        eventually(lambda: accounted(gateway))
        assert gateway.call("same").text == hosts["same"]
        assert {
            reason: removals(gateway, reason) for reason in ("replaced", "max-invocations", "orphaned")
        } == {
            "replaced": 3,  # the generic one too: none is kept any more
            "max-invocations": 1,
            "orphaned": 0,
        }


def test_an_instance_in_a_call_is_adopted_when_that_has_ended_and_its_answer_reaches_nobody(tmp_path: Path):
    functions = {
        "brief": handler(SLEEP),
        "endless": handler(SLEEP, timeout="2m"),
        "slow-site": server(SLOW_SITE),
    }
    with Gateway(tmp_path, functions) as gateway, ThreadPoolExecutor(3) as threads:
        calls: list[Callable[[], httpx.Response]] = [
            lambda: gateway.call("brief", 1.5),
            lambda: gateway.call("endless", 60),
            lambda: gateway.http.get("/invoke/slow-site/slow"),
        ]
        running = [threads.submit(call) for call in calls]
        for name in functions:
            eventually(lambda name=name: gateway.pool(name)["instances"].get("busy"))
        [site] = gateway.instances("slow-site")
        pid = gateway.engine.request("GET", f"/containers/{site['container']}/json")["State"]["Pid"]
        eventually(lambda: open_in(Path(f"/proc/{pid}/net/tcp").read_text(), 8000))
        before = {i["function"]: i["id"] for i in gateway.instances()}
        gateway.stop(signal.SIGKILL)
        assert all(isinstance(call.exception(10), httpx.TransportError) for call in running)
        restart(gateway)
        assert [i["id"] for i in gateway.instances() if i["state"] in ("idle", "frozen")] == [before["brief"]]
        answer = gateway.call("brief", 0)
        assert (answer.json()[0], answer.headers["x-hearth-start"]) == (0, "warm")
        assert gateway.call("endless", 0).json()[0] == 0
        assert gateway.http.get("/invoke/slow-site/").status_code == 200
        eventually(lambda: removals(gateway, "orphaned") == 2)
        assert accounted(gateway)


def test_what_was_half_made_or_for_one_call_only_is_removed(tmp_path: Path):
    functions = {
        "importing": handler(SLOW_IMPORT),
        "fresh": handler(HOST, reuse=False, min_instances=1),
        "command": command("sleep", "60", timeout="2m"),
    }
    with Gateway(tmp_path, functions, prewarm={"python": 1}) as gateway, ThreadPoolExecutor(2) as threads:
        eventually(lambda: gateway.prewarmed() == 1)
        [generic] = [i["id"] for i in gateway.instances() if i["state"] == "prewarmed"]
        for name in ("importing", "command"):
            threads.submit(gateway.call, name)
        eventually(lambda: any(i["container"] for i in gateway.instances("command")))
        eventually(lambda: [i["state"] for i in gateway.instances("importing")] == ["specialising"])
        assert (
            json.loads((gateway.data / "records" / f"{generic}.json").read_text())["function"] == "importing"
        )
        left = {c["Id"] for c in gateway.containers()}
        assert len(left) >= 3
        gateway.stop(signal.SIGKILL)
        restart(gateway)
        eventually(lambda: not left & {c["Id"] for c in gateway.containers()})
        assert removals(gateway, "orphaned") == len(left)
        assert gateway.call("importing").text == "here"
        eventually(lambda: accounted(gateway))


@pytest.mark.parametrize("event", ["create", "start", "destroy"])
def test_a_kill_in_the_middle_of_the_engines_work_leaks_nothing(tmp_path: Path, event: str):
    """Under load of functions that have containers made and removed all the time."""
    functions = {
        "host": handler(HOST),
        "site": server(SITE),
        "fresh": handler(HOST, reuse=False, max_instances=2),
        "command": command("true", max_instances=2),
        "worn": handler(HOST, max_invocations=2, concurrency=2),
    }
    with Gateway(tmp_path, functions, prewarm={"python": 1}) as gateway:
        host = gateway.call("host").text
        label = f"{GATEWAY_LABEL}={gateway.identity}"
        with load(gateway, *functions), gateway.engine.watch(label) as watched:
            eventually(lambda: watched.count(event) >= 5, 30, pause=0.0005)
            gateway.stop(signal.SIGKILL)
        assert restart(gateway) < 20  # 5 s are promised of a machine that does nothing else
        answer = gateway.call("host")
        assert (answer.text, answer.headers["x-hearth-start"]) == (host, "warm")
        for name in functions:
            assert gateway.http.post(f"/invoke/{name}").status_code in (200, 501), name
        eventually(lambda: accounted(gateway), 20)


def test_a_kill_during_a_reload_or_a_drain_leaks_nothing(tmp_path: Path):
    with Gateway(tmp_path, {"host": handler(SLEEP, min_instances=2)}) as gateway:
        gateway.call("host")
        with load(gateway, "host"):
            gateway.declare({"host": handler(SLEEP + "\n", min_instances=2)})
            eventually(lambda: "loading the functions again" in gateway.log, pause=0.001)
            gateway.stop(signal.SIGKILL)
        restart(gateway)
        eventually(lambda: accounted(gateway) and len(gateway.instances()) == 2, 20)
        with ThreadPoolExecutor(1) as threads:
            threads.submit(gateway.call, "host", 5)
            eventually(lambda: gateway.pool("host")["instances"].get("busy"))
            gateway.process.send_signal(signal.SIGTERM)
            eventually(lambda: gateway.http.get("/readyz").status_code == 503)
            gateway.stop(signal.SIGKILL)
        restart(gateway)
        eventually(lambda: accounted(gateway) and len(gateway.instances()) == 2, 20)


def test_keep_warm_leaves_what_is_warm_and_its_count_and_the_next_start_adopts_it(tmp_path: Path):
    functions = {
        "counted": handler(HOST, max_invocations=4),
        "site": server(SITE),
        "fresh": handler(HOST, reuse=False),
    }
    settings = {"keep_warm": "true", "spare_memory": 0}  # a spare of `fresh` is not kept
    with Gateway(tmp_path, functions, prewarm={"python": 1}, settings=settings) as gateway:
        host = gateway.call("counted").text
        assert gateway.http.get("/invoke/site/").status_code == 200
        assert gateway.call("fresh").status_code == 200
        eventually(lambda: accounted(gateway) and gateway.prewarmed() == 1)
        before = {i["id"]: i["container"] for i in gateway.instances()}
        for served in (1, 2):
            assert gateway.stop() == 0
            assert {c["Id"] for c in gateway.containers()} == set(before.values())
            assert "warm containers for the next start" in gateway.log
            restart(gateway)
            assert {i["id"]: i["container"] for i in gateway.instances()} == before
            [instance] = gateway.instances("counted")
            assert instance["served"] == served
            answer = gateway.call("counted")
            assert (answer.text, answer.headers["x-hearth-start"]) == (host, "warm")
        assert gateway.call("counted").text == host
        eventually(lambda: removals(gateway, "max-invocations") == 1)
        gateway.settings["keep_warm"] = "false"
        gateway.stop()
        restart(gateway)


@pytest.mark.parametrize("keep_warm", ["false", "true"])
def test_a_stop_answers_what_runs_refuses_what_is_new_and_ends_with_status_0(tmp_path: Path, keep_warm: str):
    with (
        Gateway(tmp_path, {"sleep": handler(SLEEP)}, settings={"keep_warm": keep_warm}) as gateway,
        ThreadPoolExecutor(1) as threads,
    ):
        running = threads.submit(gateway.call, "sleep", 1.5)
        eventually(lambda: gateway.pool("sleep")["instances"].get("busy"))
        gateway.process.send_signal(signal.SIGTERM)
        eventually(lambda: gateway.http.get("/readyz").status_code == 503, pause=0.005)
        refused = gateway.call("sleep", 0)
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        assert running.result().json()[0] == 1.5
        assert gateway.process.wait(20) == 0
        assert len(gateway.containers()) == (1 if keep_warm == "true" else 0)


def test_two_gateways_on_one_engine_leave_each_other_alone(tmp_path: Path):
    (tmp_path / "other").mkdir()
    with (
        Gateway(tmp_path / "other", {"host": handler(HOST)}, prewarm={"python": 1}) as other,
        Gateway(tmp_path, {"host": handler(HOST)}, prewarm={"python": 1}) as gateway,
    ):
        theirs, ours = other.call("host").text, gateway.call("host").text
        eventually(lambda: accounted(other) and accounted(gateway) and other.prewarmed() == 1)
        ids = {i["id"] for i in other.instances()}
        identity = gateway.identity
        failed: list[int] = []
        stop = threading.Event()

        def call_other() -> None:
            while not stop.is_set():
                answer = other.call("host")
                if (answer.status_code, answer.text) != (200, theirs):
                    failed.append(answer.status_code)

        with ThreadPoolExecutor(1) as threads:
            calls = threads.submit(call_other)
            gateway.stop(signal.SIGKILL)
            restart(gateway)
            stop.set()
            calls.result()
        assert gateway.identity == identity
        assert gateway.call("host").text == ours
        assert failed == []
        assert {i["id"] for i in other.instances()} == ids
        assert removals(other, "dead") == removals(other, "orphaned") == 0
