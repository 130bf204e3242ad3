"""Instances that fail: each fault has its status, blame and metric, hurts only its own call, and leaks nothing.

Faults of the protocol are made on the wire: a handler finds the shim's own connection and writes to it, a server is a
bare socket. The kernel's faults come from outside: SIGKILL and SIGSTOP to the container's process.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from harness import Gateway, eventually, handler, server

from gateway.http.problems import TYPES

pytestmark = pytest.mark.engine

ECHO = "def handle(event, context):\n    return event\n"
WIRE = r"""
import os, socket, threading, time

def wire():
    for name in os.listdir("/proc/self/fd"):
        try:
            sock = socket.socket(fileno=os.dup(int(name)))
            if str(sock.getpeername()).endswith("calls.sock"):
                return sock
        except OSError:
            pass

HEAD = b"HTTP/1.1 200 OK\r\n"
ON_THE_WIRE = {
    "garbage": b"this is no HTTP\r\n\r\n",
    "long length": HEAD + b"content-length: 100\r\n\r\nabc",
    "short length": HEAD + b"content-length: 3\r\n\r\nabcdef",
    "two lengths": HEAD + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    "length and chunks": HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "half a chunk": HEAD + b"transfer-encoding: chunked\r\n\r\n64\r\nabc",
    "a chunk of rubbish": HEAD + b"transfer-encoding: chunked\r\n\r\nxyz\r\n",
    "half a head": HEAD + b"content-le",
    "two answers": 2 * (HEAD + b"content-length: 3\r\n\r\nabc"),
    "other protocol": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
    "no such status": b"HTTP/1.1 999 What\r\ncontent-length: 0\r\n\r\n",
    "a report without end": b"HTTP/1.1 500 \r\nx-hearth-outcome: raised\r\n\r\n" + b"x" * 100_000,
    "a report of rubbish": b"HTTP/1.1 500 \r\nx-hearth-outcome: raised\r\ncontent-length: 3\r\n\r\nabc",
}

def handle(event, context):
    if event == "well":
        return os.uname().nodename
    if event == "endless head":
        sock = wire()
        sock.sendall(HEAD)
        while True:
            sock.sendall(b"x: " + b"y" * 1000 + b"\r\n")
    if event == "interim answers without end":
        sock = wire()
        while True:
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if event in ON_THE_WIRE:
        wire().sendall(ON_THE_WIRE[event])
        os._exit(0)
    if event == "closes its socket":
        wire().shutdown(socket.SHUT_RDWR)
        time.sleep(60)
    if event == "exits":
        os._exit(3)
    if event == "exits later":
        threading.Timer(0.1, os._exit, (3,)).start()
        return "well"
    if event == "takes too much memory":
        return len([bytearray(2**20) for _ in range(1000)])
    if event == "hangs":
        time.sleep(60)
    if event == "computes for ever":
        while True:
            pass
    if event == "deadlocks":
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
    if event == "recurses":
        handle(event, context)
"""
SERVER = r"""
import os, socket, struct, threading, time

HEAD = b"HTTP/1.1 200 OK\r\n"

def serve(connection):
    head = b""
    while b"\r\n\r\n" not in head:
        data = connection.recv(1000)
        if not data:
            return
        head += data
    what = head.split()[1].decode()[1:].replace("-", " ")
    if what == "well":
        connection.sendall(HEAD + b"connection: close\r\ncontent-length: 2\r\n\r\nok")
    elif what == "slow":
        time.sleep(0.5)
        connection.sendall(HEAD + b"connection: close\r\ncontent-length: 4\r\n\r\nslow")
    elif what == "garbage":
        connection.sendall(b"this is no HTTP\r\n\r\n")
    elif what == "half a body":
        connection.sendall(HEAD + b"content-length: 100\r\n\r\n" + b"x" * 50)
    elif what == "never the other half":
        connection.sendall(HEAD + b"content-length: 100\r\n\r\n" + b"x" * 50)
        time.sleep(60)
    elif what == "too much":
        connection.sendall(HEAD + b"content-length: 3\r\n\r\nabcdef")
    elif what == "two answers":
        connection.sendall(2 * (HEAD + b"content-length: 3\r\n\r\nabc"))
    elif what == "answers and reads nothing":
        connection.sendall(HEAD + b"content-length: 3\r\n\r\nabc")
        time.sleep(60)
    elif what == "stops reading":
        time.sleep(60)
    elif what == "resets":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif what == "exits":
        os._exit(3)
    connection.close()

listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
HASTY = r"""
import socket
listener = socket.create_server(("127.0.0.1", 8000))
while True:
    connection, _ = listener.accept()
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhasty")
    connection.close()
"""
TIMEOUT = {"timeout": "1s"}
CUT = "cut"
"""Stands for an answer that had begun: its connection ends before its end, so that nobody takes half for whole."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    functions = {
        "faulty": handler(WIRE, **TIMEOUT),
        "patient": handler(WIRE),  # what is no matter of time may take its time: machines are slow at times
        "server": server(SERVER, concurrency=8, max_instances=1, **TIMEOUT),
        "patient-server": server(SERVER, concurrency=8, max_instances=1),
        "hasty": server(HASTY, **TIMEOUT),
        "bystander": handler(ECHO),
    }
    with Gateway(tmp_path_factory.mktemp("faults"), functions, prewarm={"python": 1}) as running:
        running.call("bystander", 0)
        yield running


@pytest.fixture(autouse=True)
def nobody_else_is_hurt(gateway: Gateway) -> Iterator[None]:
    """Another function is called all the time, and all its answers are right. Afterwards the books agree."""
    done, answers = threading.Event(), []

    def call() -> None:
        number = 0
        while not answers or not done.wait(0.02):
            number += 1
            response = gateway.call("bystander", number)
            answers.append((response.status_code, response.text == str(number)))

    calling = threading.Thread(target=call)
    calling.start()
    yield
    done.set()
    calling.join()
    assert set(answers) == {(200, True)}
    eventually(gateway.books_agree)


def ask(gateway: Gateway, function: str, fault: str, **more: object) -> httpx.Response | None:
    """Have a fault happen; None if the answer was cut off after it had begun."""
    try:
        if function in ("faulty", "patient"):
            return gateway.call(function, fault)
        return gateway.http.post(f"/invoke/{function}/{fault.replace(' ', '-')}", **more)
    except (httpx.RemoteProtocolError, httpx.NetworkError):
        return None


def check(response: httpx.Response | None, expected: str, says: str) -> None:
    """`expected` is `CUT`, the slug of a problem, or the answer."""
    if expected == CUT:
        assert response is None, response and response.text
        return
    assert response is not None, "the answer was cut off"
    if expected not in TYPES:
        assert (response.status_code, response.text) == (200, expected)
        return
    problem = response.json()
    assert response.status_code == problem["status"] == TYPES[expected][0]
    assert problem["type"] == f"urn:hearth:problem:{expected}"
    assert problem["blame"] == "function"
    assert says in problem["detail"], problem["detail"]


def ends(*case: object) -> object:
    """A case whose words are the engine's: it has a second to notice an end, in which nothing else shall keep it."""
    return pytest.param(*case, marks=pytest.mark.alone)


@pytest.mark.parametrize(
    ("fault", "expected", "outcome", "says"),
    [
        ("garbage", "contract-broken", "", "not HTTP"),
        ("endless head", "contract-broken", "", "head"),
        ("interim answers without end", "contract-broken", "", "head"),
        ("two lengths", "contract-broken", "", "not HTTP"),
        ("length and chunks", "contract-broken", "", "not HTTP"),
        ("other protocol", "contract-broken", "", "switched protocols"),
        ("no such status", "contract-broken", "", "999"),
        ("a report without end", "contract-broken", "", "does not end"),
        ("a report of rubbish", "contract-broken", "", "is unreadable"),
        ends("half a head", "instance-died", "", "exit status 0"),
        ("long length", CUT, "instance-died", ""),
        ("half a chunk", CUT, "instance-died", ""),
        ("a chunk of rubbish", "contract-broken", "", "not HTTP"),
        ("short length", "abc", "ok", ""),
        ("two answers", "abc", "ok", ""),
        ("closes its socket", "instance-died", "", "the instance died"),
        ends("exits", "instance-died", "", "exit status 3"),
        ends("takes too much memory", "instance-died", "", "want of memory (128 MiB"),
        ("hangs", "timeout", "", "1 s"),
        ("computes for ever", "timeout", "", "1 s"),
        ("deadlocks", "timeout", "", "1 s"),
        ("recurses", "handler-raised", "", "RecursionError"),
    ],
)
def test_a_handlers_fault(gateway: Gateway, fault: str, expected: str, outcome: str, says: str):
    function = "faulty" if expected == "timeout" else "patient"
    metric = {"function": function, "outcome": outcome or expected}
    metric["blame"] = "none" if outcome == "ok" else "function"
    before = gateway.metric("hearth_invocations_total", **metric)
    check(ask(gateway, function, fault), expected, says)
    eventually(lambda: gateway.metric("hearth_invocations_total", **metric) == before + 1)
    assert gateway.call(function, "well").status_code == 200


@pytest.mark.parametrize(
    ("fault", "expected", "outcome", "says"),
    [
        ("garbage", "contract-broken", "", "not HTTP"),
        ("half a body", CUT, "instance-died", ""),
        ("never the other half", CUT, "timeout", ""),
        ("too much", "abc", "ok", ""),
        ("two answers", "abc", "ok", ""),
        ("answers and reads nothing", "abc", "ok", ""),
        ("stops reading", "timeout", "", "1 s"),
        ("resets", "instance-died", "", ""),
        ("exits", "instance-died", "", ""),
    ],
)
def test_a_servers_fault(gateway: Gateway, fault: str, expected: str, outcome: str, says: str):
    """A body of 4 MiB goes with it, more than the kernel takes for somebody who does not read."""
    function = "server" if "timeout" in (expected, outcome) else "patient-server"
    metric = {"function": function, "outcome": outcome or expected}
    metric["blame"] = "none" if outcome == "ok" else "function"
    before = gateway.metric("hearth_invocations_total", **metric)
    check(ask(gateway, function, fault, content=bytes(2**22)), expected, says)
    eventually(lambda: gateway.metric("hearth_invocations_total", **metric) == before + 1)
    assert ask(gateway, function, "well").text == "ok"


@pytest.mark.parametrize("fault", ["garbage", "half a body", "never the other half", "two answers", "resets"])
def test_other_calls_in_the_same_server_finish(gateway: Gateway, fault: str):
    assert ask(gateway, "server", "well").text == "ok"
    with ThreadPoolExecutor(4) as threads:
        others = [threads.submit(ask, gateway, "server", "slow") for _ in range(4)]
        eventually(lambda: sum(i["in_use"] for i in gateway.instances("server")) == 4)
        ask(gateway, "server", fault)
        assert [other.result().text for other in others] == ["slow"] * 4


def test_a_server_that_answers_before_it_is_asked(gateway: Gateway):
    """Whether its answer comes before the call or after is the kernel's to say; nothing else may come of it."""
    for _ in range(5):
        response = ask(gateway, "hasty", "well")
        if response.status_code == 200:
            assert response.text == "hasty"
        else:
            check(response, "instance-died", "")


# -- from outside -------------------------------------------------------------------------------------------


def process_of(gateway: Gateway, function: str) -> int:
    """The first process of the function's only container."""
    [instance] = gateway.instances(function)
    state = gateway.engine.request("GET", f"/containers/{instance['container']}/json")["State"]
    return int(state["Pid"])


def ended(process: int) -> bool:
    """Whether a process runs no more; its parent may not have noticed."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("function", ["faulty", "server"])
def test_an_instance_that_is_dead_before_anything_was_sent_costs_its_caller_nothing(
    gateway: Gateway, function: str
):
    """The call comes as soon as the process has ended, before the engine has said so."""
    for _ in range(6):
        assert ask(gateway, function, "well").status_code == 200
        process = process_of(gateway, function)
        os.kill(process, signal.SIGKILL)
        while not ended(process):
            pass
        response = ask(gateway, function, "well")
        assert response.status_code == 200, response.text
        assert response.headers["x-hearth-start"] != "warm"
        eventually(lambda: len(gateway.instances(function)) == 1)
    assert gateway.metric("hearth_removals_total", reason="dead") >= 6


def test_one_that_exits_between_calls_costs_nobody_anything(gateway: Gateway):
    dead = gateway.metric("hearth_removals_total", reason="dead")
    first = gateway.call("faulty", "exits later")
    assert first.text == "well"
    eventually(lambda: gateway.metric("hearth_removals_total", reason="dead") > dead)
    assert gateway.call("faulty", "well").status_code == 200


@pytest.mark.parametrize(
    ("number", "expected", "says"),
    [ends(signal.SIGKILL, "instance-died", "exit status 137"), (signal.SIGSTOP, "timeout", "1 s")],
)
def test_killed_and_stopped_in_mid_call(gateway: Gateway, number: signal.Signals, expected: str, says: str):
    gateway.call("faulty", "well")
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(ask, gateway, "faulty", "hangs")
        eventually(lambda: gateway.pool("faulty")["instances"].get("busy"))
        os.kill(process_of(gateway, "faulty"), number)
        check(call.result(), expected, says)
    assert gateway.call("faulty", "well").status_code == 200


def test_one_that_is_stopped_between_calls_hurts_one_call(gateway: Gateway):
    gateway.call("faulty", "well")
    process = process_of(gateway, "faulty")
    os.kill(process, signal.SIGSTOP)
    check(ask(gateway, "faulty", "well"), "timeout", "1 s")
    assert gateway.call("faulty", "well").status_code == 200
    eventually(lambda: ended(process))
