"""The engine is stopped, killed, frozen, slow, faulty and full, under a running gateway: docs/reliability.md."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import BASE_IMAGE, EngineView, Gateway, eventually, handler, server
from own_engine import OwnEngine, Proxy

from scheduler.deploy.registry import RETRY_SECONDS

RUNTIME_IMAGE = "hearth-runtime/python:latest"
AT_ONCE = 1.0
"""Seconds within which a call that needs no engine, or is refused for want of one, is answered on a busy machine."""
RECOVERY = 5.0
"""Seconds from the engine's first answer until instances are there again."""
ECHO = "def handle(event, context): return event"

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("dockerd") or not shutil.which("ip"),
        reason="starting an engine needs root, dockerd and ip",
    ),
]


@pytest.fixture(scope="module")
def own_engine() -> Iterator[OwnEngine]:
    engine = OwnEngine()
    try:
        engine.start()
        engine.load(RUNTIME_IMAGE, BASE_IMAGE)
        yield engine
    finally:
        engine.close()


@pytest.fixture
def engine(own_engine: OwnEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnEngine]:
    """The engine, up and well before the test and after it."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{own_engine.socket}")
    if not own_engine.runs:
        own_engine.start()
    yield own_engine
    if own_engine.runs:
        own_engine.send(signal.SIGCONT)
    else:
        own_engine.start()


@pytest.fixture
def proxy(engine: OwnEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The way of gateways to the engine."""
    made = Proxy(engine.folder, engine.socket)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def behind(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Callable[[Gateway], Gateway]:
    """Has a gateway use the proxy, and the test's own view of the engine not."""

    def use_proxy(gateway: Gateway) -> Gateway:
        gateway.engine = EngineView()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{proxy.socket}")
        return gateway

    return use_proxy


def refused_at_once(gateway: Gateway, function: str) -> str:
    """Assert that a call is answered with 503 and Retry-After, and in no time; what it says."""
    began = time.monotonic()
    answer = gateway.call(function, {})
    assert time.monotonic() - began < AT_ONCE
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["blame"] == "platform"
    return str(answer.json()["detail"])


def found_down(gateway: Gateway) -> str:
    """Wait until /readyz says that the engine is away, and how it says so."""
    eventually(
        lambda: gateway.metric("hearth_engine_breaker_open") == 1 or not gateway.http.get("/readyz"), 15
    )
    answer = gateway.http.get("/readyz")
    assert answer.status_code == 503
    return str(answer.json()["why"])


def warm_is_served(gateway: Gateway, seconds: float) -> None:
    """Calls of a warm function are answered all the time, and by a frozen instance too."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = gateway.call("warm", {"a": 1})
        assert (answer.status_code, answer.json()) == (200, {"a": 1})
        assert answer.headers["x-hearth-start"] == "warm"
        time.sleep(0.05)
    eventually(lambda: [i["state"] for i in gateway.instances("warm")] == ["frozen"], 5)
    assert gateway.call("warm", {"a": 2}).json() == {"a": 2}


FUNCTIONS = {"warm": handler(ECHO, freeze_after="300ms"), "cold": handler(ECHO)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP], ids=lambda n: n.name)
def test_with_live_restore_warm_functions_go_on(
    engine: OwnEngine, tmp_path: Path, number: signal.Signals
) -> None:
    with Gateway(tmp_path, FUNCTIONS) as gateway:
        assert gateway.call("warm", {}).status_code == 200
        [before] = gateway.instances("warm")
        if number is signal.SIGSTOP:
            engine.send(number)
        else:
            engine.stop(number)
        assert "engine" in found_down(gateway)
        warm_is_served(gateway, 0.5)
        assert "no instance of cold can be started" in refused_at_once(gateway, "cold")
        if number is signal.SIGSTOP:
            engine.send(signal.SIGCONT)
        else:
            engine.start()
        back = time.monotonic()
        gateway.wait_until_ready(RECOVERY)
        answer = gateway.call("cold", {"b": 1})
        took = time.monotonic() - back
        print(f"recovered from {number.name} in {took:.2f} s")
        assert (answer.json(), answer.headers["x-hearth-start"]) == ({"b": 1}, "cold")
        assert took < RECOVERY
        assert gateway.call("warm", {}).status_code == 200
        [after] = gateway.instances("warm")
        assert after["id"] == before["id"], "it has lived through all this"


def test_without_live_restore_dead_instances_are_replaced(engine: OwnEngine, tmp_path: Path) -> None:
    engine.stop()
    engine.start(live_restore=False)
    functions = {"kept": handler(ECHO, min_instances=1), "warm": handler(ECHO)}
    try:
        with Gateway(tmp_path, functions, prewarm={"python": 1}) as gateway:
            eventually(lambda: gateway.prewarmed() == 1)
            assert gateway.call("warm", {}).status_code == 200
            old = {i["id"] for i in gateway.instances()}
            engine.stop(signal.SIGKILL)  # and its containers end when it starts again
            found_down(gateway)
            engine.start(live_restore=False)
            back = time.monotonic()

            def replaced() -> bool:
                kept = gateway.instances("kept")
                fresh = [i for i in kept if i["state"] in ("idle", "frozen") and i["id"] not in old]
                return bool(fresh) and not old & {i["id"] for i in gateway.instances()}

            eventually(replaced, RECOVERY)
            print(f"replaced in {time.monotonic() - back:.2f} s")
            assert gateway.call("kept", {}).headers["x-hearth-start"] == "prewarmed"
            assert gateway.call("warm", {"a": 1}).json() == {"a": 1}
    finally:
        engine.stop()


def is_about(verb: str) -> Callable[[str, str], bool]:
    """Tells whether a request of the engine's API, by method and path, is this verb."""

    def matches(method: str, path: str) -> bool:
        bare = path.partition("?")[0]
        return {
            "create": bare.endswith("/containers/create"),
            "start": bare.endswith("/start"),
            "remove": method == "DELETE",
            "list": bare.endswith("/containers/json"),
            "all": True,
        }[verb]

    return matches


def test_an_engine_that_answers_500_is_asked_little_and_comes_back(
    proxy: Proxy, behind: Callable[[Gateway], Gateway], tmp_path: Path
) -> None:
    verbs = {
        "create": 503,
        "start": 503,
        "remove": 200,
        "all": 503,
    }  # and what new calls are answered meanwhile
    functions = {"warm": handler(ECHO)} | {verb: handler(ECHO) for verb in verbs}
    with behind(Gateway(tmp_path, functions)) as gateway:
        assert gateway.call("warm", {}).status_code == 200
        for verb, status in verbs.items():
            fails = is_about(verb)
            proxy.fault = lambda method, path, fails=fails: 500 if fails(method, path) else None
            asked, began = len(proxy.requests), time.monotonic()
            while time.monotonic() - began < 2:
                answer = gateway.call(verb, {})
                assert answer.status_code == status, f"{verb}: {answer.text}"
                assert status == 200 or answer.headers["retry-after"]
            asked = len(proxy.requests) - asked
            assert asked < 40, f"a storm while {verb} fails: {asked} requests in 2 s"
            assert gateway.call("warm", {}).status_code == 200
            proxy.fault = lambda method, path: None
            eventually(lambda verb=verb: gateway.call(verb, {}).status_code == 200, RECOVERY)
            gateway.wait_until_ready(RECOVERY)


def test_a_slow_engine_is_waited_for(
    proxy: Proxy, behind: Callable[[Gateway], Gateway], tmp_path: Path
) -> None:
    functions = {"warm": handler(ECHO), "cold": handler(ECHO, queue_timeout="30s")}
    with behind(Gateway(tmp_path, functions)) as gateway:
        assert gateway.call("warm", {}).status_code == 200
        proxy.fault = lambda method, path: 5.0
        answer = gateway.call("cold", {"a": 1})
        assert (answer.status_code, answer.json()) == (200, {"a": 1})
        assert gateway.call("warm", {}).headers["x-hearth-start"] == "warm"
        assert gateway.metric("hearth_engine_breaker_open") == 0
        proxy.fault = lambda method, path: None


SERVER = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers()
        self.wfile.write(b"ok")
HTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""


def test_a_death_while_the_events_are_cut_off_is_found(
    proxy: Proxy, behind: Callable[[Gateway], Gateway], tmp_path: Path
) -> None:
    with behind(Gateway(tmp_path, {"site": server(SERVER)})) as gateway:
        assert gateway.http.get("/invoke/site/").text == "ok"
        [container] = gateway.containers()
        cut_off = is_about("list")
        proxy.fault = lambda method, path: 500 if "/events" in path or cut_off(method, path) else None
        proxy.cut("/events")
        gateway.engine.kill(container["Id"])
        eventually(lambda: gateway.metric("hearth_engine_errors_total", verb="containers") >= 1, 5)
        assert len(gateway.instances("site")) == 1, "nobody has told of its death yet"
        proxy.fault = lambda method, path: None
        began = time.monotonic()
        eventually(lambda: gateway.instances("site") == [], RECOVERY)
        print(f"the death was found and cleared away in {time.monotonic() - began:.2f} s")
        assert gateway.metric("hearth_removals_total", reason="dead") == 1
        assert gateway.http.get("/invoke/site/").text == "ok"


def test_a_full_disk_fails_the_calls_that_need_it_and_no_others(engine: OwnEngine, tmp_path: Path) -> None:
    with Gateway(tmp_path, FUNCTIONS) as gateway:
        assert gateway.call("warm", {}).status_code == 200
        with engine.full_disk():
            assert "no space left" in refused_at_once(gateway, "cold")
            assert "no space left" in refused_at_once(gateway, "cold")
            assert gateway.call("warm", {}).status_code == 200
        eventually(lambda: gateway.call("cold", {}).status_code == 200, RECOVERY + 1)


def test_an_image_that_was_deleted_is_missed_and_found_again(engine: OwnEngine, tmp_path: Path) -> None:
    with Gateway(tmp_path, {"cold": handler(ECHO)}) as gateway:
        gateway.engine.request("DELETE", f"/images/{RUNTIME_IMAGE}", force="1")
        try:
            assert "No such image" in refused_at_once(gateway, "cold")
            explained = f"the engine has no image {RUNTIME_IMAGE}; run `hearth setup`"
            eventually(lambda: gateway.http.get("/functions/cold").json()["fault"] == explained, RECOVERY)
        finally:
            engine.load(RUNTIME_IMAGE)
        eventually(lambda: gateway.call("cold", {}).status_code == 200, RETRY_SECONDS + RECOVERY)
        eventually(
            lambda: gateway.http.get("/functions/cold").json()["fault"] is None, RETRY_SECONDS + RECOVERY
        )
