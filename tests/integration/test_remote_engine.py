"""Functions on an engine that is reached over TLS alone, without a folder in common: docs/remote-engines.md."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from harness import BASE_IMAGE, BUSYBOX_IMAGE, Gateway, command, eventually, handler, server
from remote_engine import RemoteEngine, RemoteView, SlowWay

from tests.support.certificates import Authority

RUNTIME_IMAGE = "hearth-runtime/python:latest"
ECHO = "def handle(event, context):\n    print('got', event)\n    return event\n"

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("dockerd") or not shutil.which("ip"),
        reason="starting an engine needs root, dockerd and ip",
    ),
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteEngine]:
    remote = RemoteEngine(hidden=tmp_path_factory.getbasetemp())
    try:
        remote.start()
        remote.open_way()
        remote.load(RUNTIME_IMAGE, BASE_IMAGE, BUSYBOX_IMAGE)
        yield remote
    finally:
        remote.close()


@pytest.fixture(scope="module")
def environment(engine: RemoteEngine) -> Iterator[pytest.MonkeyPatch]:
    """The variables that lead gateways and commands to the engine."""
    assert engine.way is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{engine.way.port}")
        patch.setenv("DOCKER_TLS_VERIFY", "1")
        patch.setenv("DOCKER_CERT_PATH", str(engine.client))
        yield patch


@pytest.fixture(scope="module")
def running(
    engine: RemoteEngine, environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """The gateway of all tests here."""
    gateway = Gateway(tmp_path_factory.mktemp("remote"), FUNCTIONS, prewarm={"python": 1})
    gateway.engine = RemoteView(engine)
    with gateway:
        yield gateway


@pytest.fixture
def way(engine: RemoteEngine, environment: pytest.MonkeyPatch) -> Iterator[SlowWay]:
    """The way of gateways to the engine, which flows before the test and after it."""
    assert engine.way is not None
    yield engine.way
    engine.way.reset()


SLEEPER = """
import time
def handle(event, context):
    print("began", flush=True)
    time.sleep(event["seconds"])
    return event
"""
SERVER = """
import http.server
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        print("served", len(body), flush=True)
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), H).serve_forever()
"""
EATER = "def handle(event, context): return len(bytearray(event * 2**20))"
FUNCTIONS = {
    "echo": handler(ECHO, max_instances=2, freeze_after="1s"),
    "slow": handler(SLEEPER, concurrency=2, max_instances=1, freeze_after="1s"),
    "eater": handler(EATER, memory="64MiB"),
    "count": command("wc", "-c"),
    "again": command("wc", "-c", reuse=True),
    "web": server(SERVER),
    "fails": command("sh", "-c", "echo sorry >&2; exit 7"),
}


def started(answer: httpx.Response) -> tuple[int, str]:
    """The status of an answer, and how its instance came to serve it."""
    return answer.status_code, answer.headers["x-hearth-start"]


def test_functions_run_there_with_output_limits_and_freezing(running: Gateway) -> None:
    answer = running.call("echo", {"a": 1})
    assert (answer.status_code, answer.json()) == (200, {"a": 1}), answer.text + running.log
    assert running.logs(answer) == "got {'a': 1}\n"
    large = {"text": "x" * 3_000_000}
    assert running.call("echo", large).json() == large
    eventually(lambda: [i["state"] for i in running.instances("echo")] == ["frozen"], 20)
    assert started(running.call("echo", {"a": 2})) == (200, "warm")
    died = running.call("eater", 300).json()
    assert "it was killed for want of memory (64 MiB" in died["detail"], died
    counted = running.call("count", content=b"x" * 1_000_000)
    assert (counted.status_code, counted.text.strip()) == (200, "1000000"), counted.text + running.log
    page = running.call("web", content=b"hello")
    assert (page.status_code, page.text) == (200, "hello"), page.text + running.log
    eventually(lambda: running.logs(page) == "served 5\n", 10)
    failed = running.call("fails", content=b"")
    assert (failed.status_code, failed.json()["blame"]) == (502, "function")
    assert "exit status 7" in failed.json()["detail"], failed.text
    assert running.logs(failed) == "sorry\n"
    assert running.engine.request("GET", "/volumes")["Volumes"][0]["Name"].startswith("hearth-init-")


def test_a_connection_that_is_cut_is_made_again_and_loses_no_slot(running: Gateway, way: SlowWay) -> None:
    first = running.call("slow", {"seconds": 0})
    assert first.status_code == 200, first.text + running.log
    (before,) = running.instances("slow")

    def same_instance_serves() -> bool:
        (now,) = running.instances("slow")
        return (now["id"], now["in_use"]) == (before["id"], 0) and started(
            running.call("slow", {"seconds": 0})
        ) == (200, "warm")

    way.cut()  # idle
    eventually(same_instance_serves, 40)
    answers: list[httpx.Response] = []
    caller = threading.Thread(target=lambda: answers.append(running.call("slow", {"seconds": 1})))
    caller.start()
    eventually(lambda: running.instances("slow")[0]["in_use"] == 1, 10)
    time.sleep(0.2)
    way.cut()  # in mid-call
    caller.join()
    told = answers[0].json()
    assert (answers[0].status_code, told["type"], told["blame"]) == (
        502,
        "urn:hearth:problem:connection-lost",
        "platform",
    ), answers[0].text
    eventually(same_instance_serves, 40)
    eventually(lambda: [i["state"] for i in running.instances("slow")] == ["frozen"], 20)
    way.cut()  # frozen
    eventually(same_instance_serves, 40)
    both = [
        threading.Thread(target=lambda: answers.append(running.call("slow", {"seconds": 0.5})))
        for _ in range(2)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert [started(answer) for answer in answers[1:]] == [(200, "warm")] * 2, "both slots are back"
    assert [i["id"] for i in running.instances("slow")] == [before["id"]]


def test_calls_under_cuts_and_delays_end_and_leave_everything_in_order(
    running: Gateway, way: SlowWay
) -> None:
    assert running.call("echo", {}).status_code == 200
    ends: list[tuple[int, str]] = []
    over = threading.Event()

    def call(number: int) -> tuple[int, str]:
        body = {"number": number, "text": "y" * number * 30_000}
        try:
            counted = {"content": b"x" * 200_000}
            answer = running.call("count", **counted) if number == 0 else running.call("echo", body)
        except httpx.RemoteProtocolError:
            return 200, "cut"  # the head of its answer was sent on before
        if answer.status_code != 200:
            return answer.status_code, answer.json()["blame"]
        right = answer.text.strip() == "200000" if number == 0 else answer.json() == body
        return 200, "right" if right else answer.text

    def keep_calling(number: int) -> None:
        while not over.is_set():
            ends.append(call(number))

    callers = [threading.Thread(target=keep_calling, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for pause in (0.4, 0.13, 0.71, 0.29, 0.55, 0.05, 0.9):
        time.sleep(pause)
        way.delay = pause / 100
        way.cut()
    way.reset()
    time.sleep(0.5)
    over.set()
    for caller in callers:
        caller.join()
    assert set(ends) <= {(200, "right"), (200, "cut"), (502, "platform"), (503, "platform")}, set(ends)
    assert {(200, "right"), (502, "platform")} <= set(ends)
    eventually(running.books_agree, 30)
    assert running.call("echo", {"a": 1}).json() == {"a": 1}


def test_a_stalled_connection_is_noticed_while_a_call_waits(running: Gateway, way: SlowWay) -> None:
    assert running.call("echo", {}).status_code == 200
    way.stall()
    answer = running.call("echo", {})
    assert answer.json()["type"] == "urn:hearth:problem:connection-lost", answer.text
    way.flow()
    way.cut()
    eventually(lambda: running.call("echo", {}).status_code == 200, 20)


def test_the_next_gateway_adopts_what_runs_there(running: Gateway) -> None:
    assert running.call("echo", {"a": 1}).status_code == 200
    assert running.call("again", content=b"12").status_code == 200
    before = {i["id"] for name in ("echo", "again") for i in running.instances(name)}
    running.stop(signal.SIGKILL)
    running.launch()
    running.wait_until_ready()
    assert started(running.call("echo", {"a": 2})) == (200, "warm"), running.log
    assert started(running.call("again", content=b"123")) == (200, "warm"), running.log
    assert {i["id"] for name in ("echo", "again") for i in running.instances(name)} <= before, "none is new"


def doctor(folder: Path, certificates: Path) -> subprocess.CompletedProcess[str]:
    """Run `hearth doctor` with these certificates."""
    return subprocess.run(
        [Path(sys.executable).with_name("hearth"), "doctor", "--data-dir", folder / "data"],
        env={**os.environ, "DOCKER_CERT_PATH": str(certificates)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_doctor_knows_the_way_and_names_a_certificate_that_the_engine_refuses(
    engine: RemoteEngine, way: SlowWay, tmp_path: Path
) -> None:
    told = doctor(tmp_path, engine.client)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "containers are reached over its API" in told.stdout
    assert "Functions can run." in told.stdout
    stranger = Authority(tmp_path / "stranger", "stranger").issue(tmp_path / "other", "clientAuth")
    (stranger / "ca.pem").write_bytes(engine.authority.ca.read_bytes())
    told = doctor(tmp_path, stranger)
    assert told.returncode == 1
    assert "refuses our certificate" in told.stdout, told.stdout
    expired = engine.authority.issue(tmp_path / "expired", "clientAuth", expired=True)
    told = doctor(tmp_path, expired)
    assert told.returncode == 2
    assert "has expired on" in told.stderr, told.stderr
