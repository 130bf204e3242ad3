"""`localhost` and a container's own names, asked from inside, for each kind of function. On the real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from harness import BASE_IMAGE, BUSYBOX_IMAGE, Gateway, command, eventually, handler, server

pytestmark = pytest.mark.engine

ASK = """
import json, socket

def ask():
    own = socket.gethostname()
    found = {}
    for name in ("localhost", own, "hearth-" + own):
        addresses = []
        for family in (socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6):
            try:
                addresses += socket.getaddrinfo(name, 80, family, socket.SOCK_STREAM)
            except socket.gaierror:
                addresses += [(0, 0, 0, "", (f"none of {family}",))]
        found[name.replace(own, "own")] = sorted({address[4][0] for address in addresses})
    with socket.create_server(("localhost", 0)) as listening:
        socket.create_connection(("localhost", listening.getsockname()[1]), 5).close()
    return {"name": own, "found": found}
"""
HANDLER = f"{ASK}\ndef handle(event, context):\n    return ask()\n"
SERVER = f"""{ASK}
import http.server
class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.dumps(ask()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("", 8000), Server).serve_forever()
"""
SHELL = """
hostname
for name in localhost $(hostname) hearth-$(hostname); do ping -c 1 -w 5 $name | head -n 1; done
test -e /etc/nsswitch.conf || echo none
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("names")
    (folder / "own-hosts").write_text("127.0.0.9 localhost of-its-own\n")
    functions = {
        "handler": handler(HANDLER),
        "generic": handler(HANDLER),
        "other-user": handler(HANDLER, user="4321"),
        "server": server(SERVER),
        "python-command": {
            "image": BASE_IMAGE,
            "command": ["python3", "-c", f"{ASK}\nprint(json.dumps(ask()))"],
        },
        "shell": command("sh", "-c", SHELL),
        "egress": handler(HANDLER, network="egress"),
        "egress-command": command("sh", "-c", "hostname; grep $(hostname) /etc/hosts", network="egress"),
        "own-file": command("cat", "/etc/hosts", volumes=[f"{folder}/own-hosts:/etc/hosts"]),
        "write": command("sh", "-c", "echo 1.2.3.4 localhost >> /etc/hosts || echo refused"),
    }
    settings = {"allowed_volumes": folder}
    with Gateway(folder, functions, prewarm={"python": 1}, settings=settings) as running:
        yield running


@pytest.mark.parametrize("function", ["handler", "generic", "other-user", "server", "python-command"])
def test_python_finds_itself_without_a_network(gateway: Gateway, function: str) -> None:
    answer = json.loads(gateway.call(function).text)
    both = ["127.0.0.1", "::1" if Path("/proc/net/if_inet6").exists() else "none of 10"]
    assert answer["found"] == {"localhost": both, "own": both, "hearth-own": both}
    if function != "python-command":
        assert answer["name"] in [instance["id"] for instance in gateway.instances(function)]


def test_an_image_without_nsswitch_conf_finds_itself(gateway: Gateway) -> None:
    name, *pings, absent = gateway.call("shell").text.splitlines()
    assert absent == "none"
    assert [line.split(":")[0] for line in pings] == [
        f"PING {known} ({'127.0.0.1'})" for known in ("localhost", name, f"hearth-{name}")
    ]


def test_with_a_network_the_engine_says_the_names(gateway: Gateway) -> None:
    found = json.loads(gateway.call("egress").text)["found"]
    assert found["localhost"] and found["own"] and not {"127.0.0.1"} & set(found["own"])
    name, line = gateway.call("egress-command").text.splitlines()
    assert name in line.split()


def test_a_file_of_the_functions_own_is_left_alone_and_ours_cannot_be_written(gateway: Gateway) -> None:
    assert gateway.call("own-file").text == "127.0.0.9 localhost of-its-own\n"
    assert gateway.call("write").text == "refused\n"


def test_the_files_go_with_their_containers_and_stay_with_kept_ones(gateway: Gateway) -> None:
    def files() -> set[str]:
        return {file.stem for file in (gateway.data / "etc").iterdir()}

    job = {"image": BUSYBOX_IMAGE, "command": ["true"], "count": 1, "remove": "none"}
    place = gateway.http.post("/jobs", json=job).headers["location"]
    eventually(lambda: gateway.http.get(place).json()["status"] == "succeeded")
    [container] = gateway.http.get(f"{place}/tasks").json()["tasks"][0]["containers"]
    kept = gateway.engine.request("GET", f"/containers/{container}/json")["Config"]["Hostname"]
    eventually(lambda: files() - {kept} <= {instance["id"] for instance in gateway.instances()})
    assert kept in files()
    gateway.stop()
    gateway.launch()
    gateway.wait_until_ready()
    assert kept in files()
    # `docker cp` asks for the mounts of a stopped container.
    with httpx.Client(transport=httpx.HTTPTransport(uds=gateway.engine.socket)) as engine:
        read = engine.get(f"http://engine/containers/{container}/archive", params={"path": "/bin/busybox"})
        assert (read.status_code, read.content[:7]) == (200, b"busybox")
    assert gateway.http.delete(place).status_code == 204
    eventually(lambda: kept not in files())
