"""Every error that a caller can get, provoked from the outside on a real engine.

Each is a problem of RFC 9457 that says who is to blame, names its invocation, and is counted.
"""

from __future__ import annotations

import http.client
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from harness import BUSYBOX_IMAGE, Gateway, command, eventually, handler, in_parallel, server

pytestmark = pytest.mark.engine

ECHO = "def handle(event, context):\n    return event\n"
NONCE = """
import time

def handle(event, context):
    time.sleep(event.get("sleep", 0))
    return event["nonce"]
"""
SLEEP = "import time\n\ndef handle(event, context):\n    time.sleep(event)\n    return 'slept'\n"
DIE = "import os\n\ndef handle(event, context):\n    os._exit(7)\n"
RAISE = "def handle(event, context):\n    raise KeyError('no such pet')\n"
NO_IMPORT = "import not_there\n\ndef handle(event, context):\n    return 1\n"
NOT_JSON = "def handle(event, context):\n    return object()\n"
SLOW_SERVER = """
import http.server, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if body.startswith(b"sleep"):
            time.sleep(0.6)
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""
RAW_SERVER = """
import socket

listener = socket.create_server(("", 8000))
while True:
    connection, _ = listener.accept()
    connection.recv(65536)
    connection.sendall({answer})
    connection.close()
"""

FUNCTIONS = {
    "echo": handler(ECHO, max_body="100kB"),
    "raises": handler(RAISE),
    "no-import": handler(NO_IMPORT),
    "not-json": handler(NOT_JSON),
    "dies": handler(DIE),
    "sleeps": handler(SLEEP, timeout="300ms"),
    "nonce": handler(NONCE, timeout="300ms", max_instances=2),
    "slow-server": server(SLOW_SERVER, timeout="300ms", max_instances=1),
    "full": handler(SLEEP, max_instances=1, queue_size=1),
    "busy": handler(SLEEP, max_instances=1, queue_timeout="200ms"),
    "big": handler(SLEEP, memory="200MiB", queue_timeout="1s", max_instances=4),
    "too-big": handler(ECHO, memory="2GiB"),
    "long-answer": handler("def handle(event, context):\n    return 'x' * event\n", max_response="10kB"),
    "exits": command("sh", "-c", "echo some output; echo the reason >&2; exit 3"),
    "floods": command("head", "-c", "20000", "/dev/zero", max_response="10kB"),
    "greedy": command("sh", "-c", "x=xxxxxxxx; while :; do x=$x$x; done", memory="8MiB"),
    "slow-command": command("sleep", "10", timeout="300ms"),
    "no-program": command("not-there"),
    "no-server": command("not-there", port=80),
    "garbage": server(RAW_SERVER.format(answer=r'b"this is no HTTP\r\n\r\n"')),
    "hangs-up": server(RAW_SERVER.format(answer='b""')),
    "half-head": server(RAW_SERVER.format(answer=r'b"HTTP/1.1 200 OK\r\ncontent-le"')),
    "long-head": server(RAW_SERVER.format(answer=r'b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000')),
    "no-image": {"image": "nobody/not-there:latest", "command": ["true"]},
    "ends-at-once": {
        "image": BUSYBOX_IMAGE,
        "command": ["sh", "-c", "echo out of coffee; exit 4"],
        "port": 80,
    },
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """All functions of this module, with a small memory budget."""
    folder = tmp_path_factory.mktemp("errors")
    settings = {"memory_budget": "900MiB", "spare_memory": 0}  # spares would take of it, too
    with Gateway(folder, FUNCTIONS, prewarm={"python": 1}, settings=settings) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_runs(gateway: Gateway) -> None:
    """Idle instances of the test before would take the small budget."""
    for instance in gateway.instances():
        if instance["function"]:
            gateway.http.delete(f"/pool/instances/{instance['id']}")
    eventually(lambda: not [i for i in gateway.instances() if i["function"]])


def warm(gateway: Gateway, *functions: str) -> None:
    """Have an instance of each function of `SLEEP`."""
    for function in functions:
        eventually(lambda name=function: gateway.call(name, 0).status_code == 200)


def check_problem(response: httpx.Response, status: int, slug: str, blame: str, says: str = "") -> None:
    """Everything that is promised of every problem of /invoke."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "blame", "invocation_id"}
    assert (problem["type"], problem["status"]) == (f"urn:hearth:problem:{slug}", status)
    assert problem["blame"] == blame
    assert problem["title"]
    assert says in problem["detail"], problem["detail"]
    assert "Traceback" not in problem["detail"]
    assert problem["invocation_id"] == response.headers["x-invocation-id"] != ""


# -- the caller is to blame ---------------------------------------------------------------------------------


def test_400_body_that_is_declared_to_be_json_and_is_not(gateway: Gateway):
    with gateway.counted("bad-request", "caller", "echo"):
        response = gateway.call("echo", content=b"{", headers={"content-type": "application/json"})
    check_problem(response, 400, "bad-request", "caller", "JSONDecodeError")
    assert gateway.call("echo", {"still": "there"}).headers["x-hearth-start"] == "warm"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example:80"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_403_a_web_page_of_somebody_else(gateway: Gateway, headers: dict[str, str]):
    with gateway.counted("forbidden", "caller", "(unknown)"):
        response = gateway.call("echo", {"a": 1}, headers=headers)
    check_problem(response, 403, "forbidden", "caller")
    assert gateway.instances("echo") == []
    assert gateway.http.get("/pool", headers={"host": "evil.example"}).status_code == 403


def test_own_names_and_own_page_are_allowed(gateway: Gateway):
    port = gateway.url.rpartition(":")[2]
    for headers in (
        {"host": f"localhost:{port}"},
        {"host": "LOCALHOST"},
        {"origin": gateway.url, "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
    ):
        assert gateway.call("echo", {"a": 1}, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["nobody", "Echo", "", "%65cho", "..", "echo%2Fx", "echo%00"])
def test_404_no_such_function(gateway: Gateway, path: str):
    connection = gateway.raw()
    with gateway.counted("no-such-function", "caller", "(unknown)"):
        connection.request("POST", f"/invoke/{path}")
        answer = connection.getresponse()
        response = httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())
    connection.close()
    check_problem(response, 404, "no-such-function", "caller")


@pytest.mark.parametrize(
    "path", ["/functions/nobody", "/pool/instances/nobody", "/invocations/nobody/logs", "/nowhere"]
)
def test_404_on_the_other_routes(gateway: Gateway, path: str):
    response = gateway.http.get(path)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["blame"] == "caller"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("GET", "echo", "POST"), ("PUT", "exits", "POST"), ("POST", "echo/sub", ""), ("POST", "echo/", None)],
)
def test_405_methods_and_sub_paths_of_what_serves_no_http(
    gateway: Gateway, method: str, path: str, allow: str | None
):
    if allow is None:
        assert gateway.http.request(method, f"/invoke/{path}", json=1).status_code == 200
        return
    with gateway.counted("method-not-allowed", "caller", path.split("/")[0]):
        response = gateway.http.request(method, f"/invoke/{path}")
    check_problem(response, 405, "method-not-allowed", "caller")
    assert response.headers["allow"] == allow


def test_405_on_the_other_routes(gateway: Gateway):
    response = gateway.http.delete("/pool")
    assert (response.status_code, response.headers["allow"]) == (405, "GET")
    assert response.headers["content-type"] == "application/problem+json"


def test_408_body_that_does_not_come_in_time(gateway: Gateway):
    """More than is read ahead comes, and then nothing more."""
    with gateway.counted("body-timeout", "caller", "sleeps"):
        connection = gateway.raw()
        connection.putrequest("POST", "/invoke/sleeps")
        connection.putheader("content-length", "200000")
        connection.putheader("content-type", "application/octet-stream")
        connection.endheaders(b"x" * 100_000)
        response = connection.getresponse()
        assert response.status == 408
        assert b'"blame": "caller"' in response.read()
        connection.close()


@pytest.mark.parametrize("size", [100_001, 150_000, 10_000_000])
def test_413_by_length(gateway: Gateway, size: int):
    with gateway.counted("body-too-large", "caller", "echo"):
        response = gateway.call("echo", content=b"x" * size)
    check_problem(response, 413, "body-too-large", "caller", "100000 bytes")


@pytest.mark.parametrize("pieces", [3, 5])
def test_413_by_chunks(gateway: Gateway, pieces: int):
    def body() -> Iterator[bytes]:
        for _ in range(pieces):
            yield b"x" * 40_000

    with gateway.counted("body-too-large", "caller", "echo"):
        response = gateway.call("echo", content=body())
    check_problem(response, 413, "body-too-large", "caller")


def test_a_body_of_just_the_limit_passes(gateway: Gateway):
    octets = {"content-type": "application/octet-stream"}
    assert len(gateway.call("echo", content=b"x" * 100_000, headers=octets).content) == 100_000
    assert len(gateway.call("echo", content=iter([b"x" * 100_000]), headers=octets).content) == 100_000


def test_429_when_the_queue_is_full(gateway: Gateway):
    with ThreadPoolExecutor(2) as threads:
        gateway.call("full", 0)
        first = threads.submit(gateway.call, "full", 1)
        eventually(lambda: gateway.pool("full")["instances"].get("busy"))
        second = threads.submit(gateway.call, "full", 0)
        eventually(lambda: gateway.pool("full")["queue_depth"] == 1)
        assert gateway.metric("hearth_queue_depth", function="full") == 1
        with gateway.counted("queue-full", "caller", "full"):
            third = gateway.call("full", 0)
        check_problem(third, 429, "queue-full", "caller", "queue_size")
        assert int(third.headers["retry-after"]) >= 1
        assert [first.result().text, second.result().text] == ["slept", "slept"]
    assert gateway.pool("full")["queue_depth"] == 0


# -- the function is to blame -------------------------------------------------------------------------------


def test_500_the_handler_raised(gateway: Gateway):
    with gateway.counted("handler-raised", "function", "raises"):
        response = gateway.call("raises", {})
    check_problem(response, 500, "handler-raised", "function", "KeyError: 'no such pet'")
    assert "Traceback (most recent call last)" in gateway.logs(response)
    assert "no such pet" in gateway.logs(response)
    assert gateway.call("raises", {}).headers["x-hearth-start"] == "warm"


def test_500_the_handler_cannot_be_imported(gateway: Gateway):
    with gateway.counted("import-failed", "function", "no-import"):
        response = gateway.call("no-import", {})
    check_problem(
        response,
        500,
        "import-failed",
        "function",
        "ModuleNotFoundError: No module named 'not_there' (handler.py, line 1)",
    )
    assert 'File "/function/handler.py", line 1' in gateway.logs(response)
    shown = gateway.http.get("/functions/no-import").json()
    assert "not_there" in shown["fault"]
    eventually(lambda: gateway.instances("no-import") == [])


def test_502_a_result_that_is_not_json(gateway: Gateway):
    with gateway.counted("contract-broken", "function", "not-json"):
        response = gateway.call("not-json", {})
    check_problem(response, 502, "contract-broken", "function", "not JSON serializable")


def test_502_the_instance_died(gateway: Gateway):
    for _ in range(2):
        with gateway.counted("instance-died", "function", "dies"):
            response = gateway.call("dies", {})
        check_problem(response, 502, "instance-died", "function")
    eventually(lambda: gateway.instances("dies") == [])
    assert gateway.metric("hearth_removals_total", reason="dead") >= 2


@pytest.mark.parametrize(("function", "says"), [("exits", "exit status 3"), ("greedy", "want of memory")])
def test_502_the_command_failed(gateway: Gateway, function: str, says: str):
    with gateway.counted("command-failed", "function", function):
        response = gateway.call(function)
    check_problem(response, 502, "command-failed", "function", says)
    if function == "exits":
        assert gateway.logs(response) == "the reason\n"


@pytest.mark.parametrize(
    ("function", "slug"), [("no-program", "command-failed"), ("no-server", "instance-died")]
)
def test_502_a_program_that_the_image_does_not_have(gateway: Gateway, function: str, slug: str):
    with gateway.counted(slug, "function", function):
        response = gateway.call(function)
    check_problem(response, 502, slug, "function", "cannot run not-there: no such file")


@pytest.mark.parametrize(
    ("function", "slug"),
    [
        ("garbage", "contract-broken"),
        ("hangs-up", "instance-died"),
        ("half-head", "instance-died"),
        ("long-head", "contract-broken"),
    ],
)
def test_502_a_server_that_does_not_speak_http(gateway: Gateway, function: str, slug: str):
    with gateway.counted(slug, "function", function):
        response = gateway.call(function, {})
    check_problem(response, 502, slug, "function")


@pytest.mark.parametrize(("function", "event"), [("long-answer", 10_001), ("floods", None)])
def test_502_an_answer_over_max_response(gateway: Gateway, function: str, event: object):
    with gateway.counted("contract-broken", "function", function):
        response = gateway.call(function, event)
    check_problem(response, 502, "contract-broken", "function", "10000 bytes")
    if function == "long-answer":
        assert len(gateway.call(function, 10_000).content) == 10_000


def test_502_an_image_that_the_engine_does_not_have(gateway: Gateway):
    with gateway.counted("function-failed", "function", "no-image"):
        response = gateway.call("no-image")
    check_problem(response, 502, "function-failed", "function", "docker pull nobody/not-there")
    assert gateway.http.get("/functions/no-image").json()["state"] == "failed"
    assert gateway.http.get("/readyz").status_code == 200


def test_502_a_server_that_ends_at_once(gateway: Gateway):
    response = gateway.call("ends-at-once")
    check_problem(response, 502, "instance-died", "function", "out of coffee")
    assert "exit status 4" in response.json()["detail"] or "ended at once" in response.json()["detail"]


@pytest.mark.parametrize("function", ["sleeps", "slow-command"])
def test_504_the_function_ran_past_its_timeout(gateway: Gateway, function: str):
    with gateway.counted("timeout", "function", function):
        begin = time.monotonic()
        response = gateway.call(function, 10)
        assert time.monotonic() - begin < 3
    check_problem(response, 504, "timeout", "function", "0.3 s")
    eventually(lambda: gateway.instances(function) == [])
    assert gateway.metric("hearth_removals_total", reason="timeout") >= 1


def test_nobody_reads_the_late_answer_of_a_call_that_timed_out(gateway: Gateway):
    def ask(number: int) -> None:
        sleep = 0.4 if number % 3 == 0 else 0
        response = gateway.call("nonce", {"nonce": f"nonce-{number}", "sleep": sleep})
        if sleep:
            check_problem(response, 504, "timeout", "function")
        else:
            assert response.status_code == 200, response.text
            assert response.text == f"nonce-{number}"

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ask, range(30)))


def test_nobody_reads_the_late_answer_of_a_server_either(gateway: Gateway):
    for number in range(3):
        check_problem(gateway.call("slow-server", content=b"sleep %d" % number), 504, "timeout", "function")
        assert gateway.call("slow-server", content=b"quick %d" % number).content == b"quick %d" % number


# -- the platform is to blame -------------------------------------------------------------------------------


def test_503_no_instance_within_the_queue_timeout(gateway: Gateway):
    warm(gateway, "busy")
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(gateway.call, "busy", 3)  # past the looks at the counts, on any machine
        eventually(lambda: gateway.pool("busy")["instances"].get("busy"))
        with gateway.counted("no-capacity", "platform", "busy"):
            begin = time.monotonic()
            second = gateway.call("busy", 0)
            assert 0.2 <= time.monotonic() - begin < 0.8
        check_problem(second, 503, "no-capacity", "platform", "queue_timeout")
        assert "every instance is busy" in second.json()["detail"]
        assert int(second.headers["retry-after"]) >= 1
        assert first.result().text == "slept"


def test_503_the_memory_budget_is_in_use(gateway: Gateway):
    """Of 900 MiB, 256 are taken; three instances of 200 MiB fit if the prewarmed one goes, a fourth does not."""
    warm(gateway, "full", "busy")

    def busy(*functions: str) -> list[str]:
        return [
            i["function"] for i in gateway.instances() if i["state"] == "busy" and i["function"] in functions
        ]

    def three_big_ones() -> bool:
        in_parallel(lambda _: gateway.call("big", 0.3), 3)
        return len(gateway.instances("big")) == 3

    eventually(three_big_ones, 30)
    with ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(gateway.call, name, 2.5) for name in ("full", "busy", "big", "big", "big")]
        eventually(lambda: len(busy("full", "busy", "big")) == 5)
        with gateway.counted("no-capacity", "platform", "big"):
            response = gateway.call("big", 0)
        check_problem(response, 503, "no-capacity", "platform", "memory budget")
        assert int(response.headers["retry-after"]) >= 1
        assert gateway.metric("hearth_memory_declared_bytes") == 856 * 2**20
        assert gateway.metric("hearth_memory_budget_bytes") == 900 * 2**20
        assert [call.result().status_code for call in calls] == [200] * 5


def test_a_function_that_never_fits_the_budget_says_so(gateway: Gateway):
    check_problem(gateway.call("too-big", {}), 502, "function-failed", "function", "HEARTH_MEMORY_BUDGET")


def test_503_while_draining(tmp_path: Path):
    with Gateway(tmp_path, {"sleeps": handler(SLEEP)}) as gateway, ThreadPoolExecutor(1) as threads:
        running = threads.submit(gateway.call, "sleeps", 1.5)
        eventually(lambda: gateway.pool("sleeps")["instances"].get("busy"))
        gateway.process.send_signal(signal.SIGTERM)
        response = eventually(lambda: refused(gateway))
        check_problem(response, 503, "draining", "platform")
        assert int(response.headers["retry-after"]) >= 1
        assert gateway.metric("hearth_invocations_total", outcome="draining", blame="platform") >= 1
        ready = gateway.http.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "not-ready")
        assert running.result().text == "slept"
        assert gateway.process.wait(10) == 0


def refused(gateway: Gateway) -> httpx.Response | None:
    """A call's answer, once the gateway has begun to drain."""
    response = gateway.call("sleeps", 0)
    return response if response.status_code != 200 else None


def test_a_request_that_is_no_http_harms_nobody(gateway: Gateway):
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    for rubbish in (
        b"\x16\x03\x01\x00\xa5",
        b"POST /invoke/echo HTTP/1.1\r\nhost: 127.0.0.1\r\na b: c\r\n\r\n",
    ):
        with socket.create_connection((host, int(port)), timeout=5) as client:
            client.sendall(rubbish + b"\r\n\r\n")
            answer = client.recv(1000)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert gateway.call("echo", {"a": 1}).json() == {"a": 1}


def test_length_and_chunks_together_are_refused(gateway: Gateway):
    """Two readers of such a request can disagree on where it ends."""
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=5)
    connection.putrequest("POST", "/invoke/echo")
    connection.putheader("content-length", "3")
    connection.putheader("transfer-encoding", "chunked")
    connection.endheaders(b"0\r\n\r\n")
    assert connection.getresponse().status == 400
    connection.close()
