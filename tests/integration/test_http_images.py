"""Images that serve HTTP, by a gateway that may enter their network namespaces, and by one without any right."""

from __future__ import annotations

import hashlib
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from harness import BUSYBOX_IMAGE, Gateway, eventually, in_parallel, server

pytestmark = pytest.mark.engine

WITHOUT_RIGHTS = ("setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all")
SERVER = r"""
import hashlib, http.server, os, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.reply(hashlib.sha256(body).hexdigest().encode() + body)

    def do_GET(self):
        kind, _, text = self.path.strip("/").partition("/")
        if kind == "before":
            print(text, flush=True)
        if kind == "opened":  # as nginx, whose logs are links to these
            for number, name in enumerate(("stdout", "stderr")):
                with open(f"/dev/{name}", "w") as file:
                    print(text, number, file=file)
        if kind == "meet":
            print("met", text, flush=True)
            time.sleep(0.5)
        if kind == "slow":
            time.sleep(float(text))
        if kind == "stream":
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            for number in range(3):
                self.wfile.write(b"data: %d\n\n" % number)
                time.sleep(0.3)
            self.close_connection = True
            return
        if kind == "exit":
            print("going", flush=True)
            os._exit(int(text))
        self.reply(str(os.getppid()).encode())
        if kind == "after":
            time.sleep(0.02)
            print(text, flush=True)

    def reply(self, body):
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

print("serving", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
LATE = f"import time\ntime.sleep(0.7)\n{SERVER}"
HTTPD = "mkdir /tmp/www && echo words > /tmp/www/page && exec httpd -f -p 127.0.0.1:$PORT -h /tmp/www"
FUNCTIONS = {
    "site": server(SERVER, max_instances=1, concurrency=4),
    "late": server(LATE, health="/slow/0"),
    "broken": server("print('no such module', flush=True)\nraise SystemExit(7)"),
    "words": {"image": BUSYBOX_IMAGE, "command": ["sh", "-c", HTTPD], "port": 8000},
}


@pytest.fixture(scope="module", params=["enters", "without rights"])
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    wrapper = () if request.param == "enters" else WITHOUT_RIGHTS
    assert not wrapper or shutil.which(wrapper[0])
    with Gateway(tmp_path_factory.mktemp("http"), FUNCTIONS, wrapper=wrapper) as running:
        yield running


def get(gateway: Gateway, path: str) -> httpx.Response:
    answer = gateway.http.get(f"/invoke/{path}")
    assert answer.status_code == 200, answer.text
    return answer


def test_init_is_the_first_process_and_the_server_its_child(gateway: Gateway):
    assert get(gateway, "site/").text == "1"
    (instance,) = gateway.instances("site")
    config = gateway.engine.request("GET", f"/containers/{instance['container']}/json")
    assert config["Path"] == "/.hearth/init"
    assert config["HostConfig"]["NetworkMode"] in ("none", "default")
    assert config["NetworkSettings"]["Networks"].keys() <= {"none"}
    assert gateway.http.get(f"/pool/instances/{instance['id']}/logs").text == "serving\n"


def test_large_bodies_pass_whole_both_ways(gateway: Gateway):
    body = bytes(range(256)) * 16_000
    with gateway.counted("ok", "none", "site", 6):
        for answer in in_parallel(lambda _: gateway.call("site", content=body), 6):
            assert answer.content == hashlib.sha256(body).hexdigest().encode() + body


def test_an_answer_streams(gateway: Gateway):
    with gateway.http.stream("GET", "/invoke/site/stream") as answer:
        begin = time.monotonic()
        arrived = [(piece, time.monotonic() - begin) for piece in answer.iter_raw()]
    assert b"".join(piece for piece, _ in arrived) == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert arrived[-1][1] - arrived[0][1] > 0.3, "it was held back to its end"


def test_what_a_server_prints_is_its_calls(gateway: Gateway):
    for number in range(5):
        answer = get(gateway, f"site/before/{number}")
        eventually(lambda answer=answer, number=number: gateway.logs(answer) == f"{number}\n")
    answer = get(gateway, "site/opened/twice")
    eventually(lambda: gateway.logs(answer) == "twice 0\ntwice 1\n")
    late = get(gateway, "site/after/all")
    eventually(lambda: gateway.logs(late) == "all\n")


def test_with_several_calls_at_once_it_is_the_instances(gateway: Gateway):
    get(gateway, "site/")
    answers = in_parallel(lambda number: get(gateway, f"site/meet/{number}"), 4)
    (instance,) = gateway.instances("site")
    own = [gateway.logs(answer) for answer in answers]
    shared = gateway.http.get(f"/pool/instances/{instance['id']}/logs").text
    met = sorted(line for line in (shared + "".join(own)).splitlines() if line.startswith("met"))
    assert met == [f"met {number}" for number in range(4)]
    assert shared.count("met") >= 3


def test_a_server_that_listens_late_gets_its_first_call_when_it_does(gateway: Gateway):
    assert get(gateway, "late/").text == "1"


def test_a_server_that_ends_at_its_start_says_how_and_what_it_printed(gateway: Gateway):
    answer = gateway.http.get("/invoke/broken/")
    assert answer.status_code >= 500
    assert "exit status 7" in answer.text
    assert "no such module" in answer.text


def test_a_server_that_ends_in_a_call_is_replaced(gateway: Gateway):
    get(gateway, "site/")
    answer = gateway.http.get("/invoke/site/exit/3")
    assert answer.json()["type"] == "urn:hearth:problem:instance-died"
    eventually(lambda: "going\n" in gateway.logs(answer))
    assert get(gateway, "site/").text == "1"


def test_a_busybox_server_is_frozen_and_thawed(gateway: Gateway):
    """It starts a process for each request, and init is one: neither counts as its worker."""
    get(gateway, "words/page")
    if gateway.instances("words")[0]["state"] != "frozen":
        eventually(lambda: gateway.instances("words")[0]["state"] == "frozen", 20)
    answer = get(gateway, "words/page")
    assert answer.headers["x-hearth-start"] == "warm"


def restart_after_a_kill(gateway: Gateway) -> None:
    gateway.stop(signal.SIGKILL)
    gateway.launch()
    gateway.wait_until_ready()


def test_after_a_kill_a_server_at_rest_is_adopted(gateway: Gateway):
    get(gateway, "site/")
    before = gateway.instances("site")[0]["id"]
    restart_after_a_kill(gateway)
    assert gateway.instances("site")[0]["id"] == before
    answer = get(gateway, "site/before/again")
    assert answer.headers["x-hearth-start"] == "warm"
    eventually(lambda: gateway.logs(answer) == "again\n")


def test_after_a_kill_a_server_in_a_call_is_not(gateway: Gateway):
    """Whether a call of the earlier gateway still runs shows in the container's table of connections."""
    get(gateway, "site/")
    before = gateway.instances("site")[0]["id"]
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(gateway.http.get, "/invoke/site/slow/60")
        eventually(lambda: gateway.instances("site")[0]["state"] == "busy")
        get(gateway, "site/")  # the one before has come by now
        restart_after_a_kill(gateway)
        assert isinstance(call.exception(10), httpx.TransportError)
    eventually(lambda: before not in [instance["id"] for instance in gateway.instances("site")])
    assert get(gateway, "site/").text == "1"
