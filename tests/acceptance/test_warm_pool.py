"""What must hold of warm, prewarmed and cold calls, seen from the outside on a real engine."""

from __future__ import annotations

import re
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import GATEWAY_LABEL, Gateway, command, eventually, handler, in_parallel, server

pytestmark = pytest.mark.engine

HELLO = """
def handle(event, context):
    return {"message": "Hello, " + event["name"] + "!"}
"""
SLEEP = """
import os, time

def handle(event, context):
    time.sleep(event)
    return os.uname().nodename
"""
HOST = "import os\n\ndef handle(event, context):\n    return os.uname().nodename\n"
SAMPLES = 9


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a prewarm pool."""
    functions = {
        "hello": handler(HELLO),
        "slowish": handler(SLEEP),
        "counted": handler(HELLO),
        "written": handler("def handle(event, context):\n    return event\n"),
        "fresh": handler(HOST, reuse=False),
        **{f"first{number}": handler(HELLO) for number in range(SAMPLES)},
    }
    with Gateway(tmp_path_factory.mktemp("warm"), functions, prewarm={"python": 2}) as running:
        eventually(lambda: running.prewarmed() == 2)
        yield running


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that starts nothing ahead."""
    functions = {
        "burst": handler(SLEEP, max_instances=8),
        "once": handler(HOST, reuse=False, max_instances=4, queue_timeout="60s"),
        "sequential": handler(HOST),
        "slowish": handler(SLEEP),
        "fast": handler(HOST),
        "second": handler(SLEEP, memory="64MiB"),
        "wc": command("wc", "-w", max_instances=3),
        **{f"first{number}": handler(HELLO) for number in range(SAMPLES)},
    }
    settings = {"spare_memory": 0}  # here containers are counted
    with Gateway(tmp_path_factory.mktemp("bare"), functions, settings=settings) as running:
        yield running


def test_the_first_call_is_prewarmed_and_the_second_warm(gateway: Gateway):
    # As `curl -d` sends it: JSON that says it is a form.
    form = {"content": b'{"name":"Ada"}', "headers": {"content-type": "application/x-www-form-urlencoded"}}
    first = gateway.call("hello", **form)
    second = gateway.call("hello", **form)
    for response, kind in ((first, "prewarmed"), (second, "warm")):
        assert response.status_code == 200
        assert response.json() == {"message": "Hello, Ada!"}
        assert response.headers["x-hearth-start"] == kind
        assert re.fullmatch("[0-9a-f]{32}", response.headers["x-invocation-id"])
        timing = r"queue;dur=[\d.]+, start;dur=[\d.]+, exec;dur=[\d.]+"
        assert re.fullmatch(timing, response.headers["server-timing"])
    assert first.headers["x-invocation-id"] != second.headers["x-invocation-id"]
    assert gateway.pool("hello")["starts"] == {"warm": 1, "prewarmed": 1, "cold": 0}


def test_a_prewarmed_first_call_takes_less_than_a_tenth_of_a_cold_one(gateway: Gateway, bare: Gateway):
    prewarmed, cold = [], []
    for number in range(SAMPLES):
        for running, kind, times in ((gateway, "prewarmed", prewarmed), (bare, "cold", cold)):
            eventually(lambda: gateway.prewarmed() == 2)
            running.http.get("/healthz")
            begin = time.perf_counter()
            response = running.call(f"first{number}", {"name": "Ada"})
            times.append(time.perf_counter() - begin)
            assert response.json() == {"message": "Hello, Ada!"}
            assert response.headers["x-hearth-start"] == kind
    report = f"prewarmed {[round(t * 1000, 1) for t in prewarmed]}, cold {[round(t * 1000) for t in cold]} ms"
    print(report)
    assert statistics.median(prewarmed) < statistics.median(cold) / 10, report


def test_200_parallel_calls_to_a_cold_function_with_8_instances(bare: Gateway):
    seen: list[int] = []
    done = threading.Event()

    def poll() -> None:
        while not done.is_set():
            seen.append(len(bare.instances("burst")))

    with bare.engine.watch(f"{GATEWAY_LABEL}={bare.identity}") as watched:
        polling = threading.Thread(target=poll)
        polling.start()
        answers = in_parallel(lambda _: bare.call("burst", 0.05), 200)
        done.set()
        polling.join()
    assert [answer.status_code for answer in answers] == [200] * 200
    assert 1 <= len({answer.text for answer in answers}) <= 8
    assert 1 <= watched.count("create") <= 8
    assert watched.most_at_once() <= 8
    assert seen and max(seen) <= 8


def test_max_instances_holds_while_every_call_has_a_container_of_its_own(bare: Gateway):
    """A new container may be created only when the removal of an old one is confirmed."""
    with bare.engine.watch(f"{GATEWAY_LABEL}={bare.identity}") as watched:
        answers = in_parallel(lambda _: bare.call("once"), 16)
        words = in_parallel(lambda n: bare.call("wc", content=b"one " * n), 6)
        eventually(lambda: watched.count("destroy") >= 22)
    assert [answer.status_code for answer in answers] == [200] * 16
    assert len({answer.text for answer in answers}) == 16
    assert [int(answer.text) for answer in words] == list(range(6))
    assert watched.count("create") == 22
    assert watched.most_at_once() <= 4 + 3


@pytest.mark.parametrize(("function", "event"), [("sequential", None), ("slowish", 0.05)])
def test_a_sequential_client_has_one_container(bare: Gateway, function: str, event: object):
    with bare.engine.watch(f"{GATEWAY_LABEL}={bare.identity}") as watched:
        answers = [bare.call(function, event) for _ in range(30)]
    assert len({answer.text for answer in answers}) == 1
    assert [answer.headers["x-hearth-start"] for answer in answers] == ["cold"] + ["warm"] * 29
    assert watched.count("create") == 1


def test_a_sequential_client_has_one_of_the_prewarmed(gateway: Gateway):
    assert len({gateway.call("slowish", 0.02).text for _ in range(30)}) == 1
    assert gateway.pool("slowish")["starts"] == {"prewarmed": 1, "warm": 29, "cold": 0}


@pytest.mark.alone  # beside others a fast function is none
def test_16_clients_of_a_fast_function_have_few_containers(bare: Gateway):
    def client(_: int) -> set[bytes]:
        connection = bare.raw()  # costs little, so that it is the function that is measured
        hosts = set()
        for _ in range(50):
            connection.request("POST", "/invoke/fast")
            response = connection.getresponse()
            assert response.status == 200
            hosts.add(response.read())
        connection.close()
        return hosts

    assert len(set().union(*in_parallel(client, 16))) <= 3
    assert len(bare.instances("fast")) <= 3


def test_16_clients_of_a_function_that_takes_a_second_have_16_containers(bare: Gateway):
    begin = time.monotonic()
    answers = in_parallel(lambda _: bare.call("second", 1), 16)
    seconds = time.monotonic() - begin
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) >= 8
    assert len(bare.instances("second")) <= 16
    assert seconds < 8, seconds


def test_a_warm_call_makes_no_engine_call(gateway: Gateway):
    gateway.call("counted", {"name": "Ada"})
    eventually(lambda: gateway.prewarmed() == 2)

    def engine_calls() -> float:
        return gateway.metric("hearth_engine_seconds_count") + gateway.metric("hearth_engine_errors_total")

    before = engine_calls()
    assert before > 0
    for _ in range(50):
        assert gateway.call("counted", {"name": "Ada"}).headers["x-hearth-start"] == "warm"
        time.sleep(0.015)  # the reaper looks at everything several times meanwhile
    assert engine_calls() == before


def test_a_warm_call_that_prints_nothing_writes_nothing_to_disk(gateway: Gateway):
    own = gateway.process.pid

    def written_bytes(pid: int) -> int:
        """What a process has given to file systems that lie on a disk. Sockets do not count, nor does tmpfs."""
        counted = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
        return int(counted["write_bytes"]) + int(counted["cancelled_write_bytes"])

    def files() -> dict[Path, tuple[int, int]]:
        """Everything that the gateway could write to: its data folder, and what it has open. Size and time."""
        opened = {descriptor.resolve() for descriptor in Path(f"/proc/{own}/fd").iterdir()}
        found = {*gateway.data.rglob("*"), *(path for path in opened if path.is_file())}
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in found}

    eventually(lambda: gateway.prewarmed() == 2)
    before = files()
    assert gateway.call("written", {"name": "Ada"}).headers["x-hearth-start"] == "prewarmed"
    eventually(lambda: gateway.prewarmed() == 2)
    assert files() != before, "the start of the next prewarmed instance must be seen"

    (instance,) = gateway.instances("written")
    container = gateway.engine.request("GET", f"/containers/{instance['container']}/json")
    processes = (own, int(container["State"]["Pid"]))
    before, written = files(), [written_bytes(pid) for pid in processes]
    assert gateway.log_file in before
    for _ in range(300):
        assert gateway.call("written", {"name": "Ada"}).headers["x-hearth-start"] == "warm"
    assert [written_bytes(pid) for pid in processes] == written
    assert files() == before


def test_without_reuse_no_hostname_is_seen_twice(gateway: Gateway):
    answers = [gateway.call("fresh") for _ in range(12)] + in_parallel(lambda _: gateway.call("fresh"), 8)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 20
    assert answers[0].headers["x-hearth-start"] == "prewarmed"
    assert "warm" not in {answer.headers["x-hearth-start"] for answer in answers}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_calls_finish_and_leaves_nothing(tmp_path: Path, number: signal.Signals):
    functions = {
        "slow": handler(SLEEP),
        "wait": command("sh", "-c", "sleep 1; cat"),
        "site": server("import http.server as s; s.test(s.SimpleHTTPRequestHandler, port=8000)"),
    }
    with Gateway(tmp_path, functions, prewarm={"python": 1}) as gateway, ThreadPoolExecutor(2) as threads:
        assert gateway.http.get("/invoke/site/").status_code == 200
        calls = [threads.submit(gateway.call, "slow", 1), threads.submit(gateway.call, "wait", content=b"x")]
        eventually(
            lambda: sum(i["in_use"] for i in gateway.instances()) == 2 and len(gateway.containers()) >= 3
        )
        assert (gateway.data / "run").is_dir()
        begin = time.monotonic()
        assert gateway.stop(number) == 0
        assert time.monotonic() - begin < 5
        assert [call.result().status_code for call in calls] == [200, 200]
        assert "Stopping: 2 calls still run; press Ctrl-C again to end them at once" in gateway.log
        assert "Stopping: removing instances" in gateway.log
        assert gateway.leftovers() == []
        assert sorted(file.name for file in gateway.data.iterdir()) == ["identity", "lock", "logs"]
        assert "Traceback" not in gateway.log
