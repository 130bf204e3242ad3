"""Images that know nothing of us: commands, HTTP servers without a network, and a function's own packages."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from harness import BASE_IMAGE, BUSYBOX_IMAGE, Gateway, command, eventually, handler, in_parallel

pytestmark = pytest.mark.engine

EXAMPLES = Path(__file__).parents[2] / "functions"
REACH = """
import socket

def handle(event, context):
    reached = []
    for host, port in event:
        try:
            socket.create_connection((host, port), timeout=0.5).close()
            reached.append(host)
        except OSError:
            pass
    return {"reached": reached, "interfaces": sorted(name for _, name in socket.if_nameindex())}
"""
HTTPD = (
    "mkdir -p /tmp/www/sub && echo from httpd > /tmp/www/sub/page.txt && exec httpd -f -p $PORT -h /tmp/www"
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    functions = {
        "wordcount": command("wc", "-w"),
        "cat": command("cat", content_type="text/plain; charset=utf-8"),
        "environment": command("env", env={"OWN": "kept", "REQUEST_METHOD": "fixed"}),
        "reads-little": command(
            "sh", "-c", "head -c 5; sleep 0.5; head -c 100000 /dev/zero", max_body="16MiB", timeout="5s"
        ),
        "reads-nothing": command(
            "sh", "-c", "echo no >&2; sleep 0.5; exit 3", max_body="16MiB", timeout="5s"
        ),
        "default-command": {"image": BUSYBOX_IMAGE},
        "httpd": {"image": BUSYBOX_IMAGE, "command": ["sh", "-c", HTTPD], "port": 8080},
        "files": {
            "image": BASE_IMAGE,
            "command": ["python3", "-m", "http.server", "8000", "--directory", "/etc"],
            "port": 8000,
            "health": "/",
            "concurrency": 4,
        },
        "lonely": handler(REACH),
        "outgoing": handler(REACH, network="egress"),
    }
    with Gateway(tmp_path_factory.mktemp("images"), functions) as running:
        yield running


def test_a_busybox_command_answers(gateway: Gateway):
    response = gateway.call("wordcount", content=b"one two\nthree")
    assert (response.status_code, response.text) == (200, "3\n")
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["x-hearth-start"] == "cold"
    assert gateway.call("wordcount").text == "0\n"


def test_a_command_gets_and_gives_every_byte(gateway: Gateway):
    body = bytes(range(256)) * 4000
    response = gateway.call("cat", content=body)
    assert response.content == body
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["content-length"] == str(len(body))
    assert (
        gateway.call("cat", content=iter([b"a", b"b" * 100_000, b"c"])).content
        == b"a" + b"b" * 100_000 + b"c"
    )
    assert (
        gateway.call("cat", content=b"Status: 500\r\n\r\nno headers").text == "Status: 500\r\n\r\nno headers"
    )


@pytest.mark.parametrize("framed", [True, False], ids=["length", "chunks"])
@pytest.mark.parametrize("size", [2**20, 12 * 2**20])
def test_the_end_of_a_command_that_does_not_read_its_body_is_its_answer(
    gateway: Gateway, size: int, framed: bool
):
    """Before its timeout, and while the client still sends."""

    def call(function: str) -> httpx.Response:
        body = b"first" + bytes(size - 5)
        return gateway.call(function, content=body if framed else iter([body]), timeout=20)

    answer = call("reads-little")
    assert (answer.status_code, answer.content) == (200, b"first" + bytes(100_000))
    failed = call("reads-nothing")
    assert (failed.status_code, failed.json()["type"]) == (502, "urn:hearth:problem:command-failed")
    assert "exit status 3" in failed.json()["detail"]
    assert gateway.logs(failed) == "no\n"


def test_a_body_that_is_too_large_ends_the_command_that_waits_for_it(gateway: Gateway):
    refused = gateway.call("cat", content=iter([bytes(2**20)] * 8), timeout=20)
    assert (refused.status_code, refused.json()["type"]) == (413, "urn:hearth:problem:body-too-large")
    eventually(lambda: not any(i["state"] == "busy" for i in gateway.instances("cat")))


def test_an_image_without_a_command_of_its_own_runs_what_it_has(gateway: Gateway):
    assert gateway.call("default-command", content=b"echo $((6 * 7))").text == "42\n"


def test_cgi_variables_carry_the_request(gateway: Gateway):
    headers = {
        "authorization": "Bearer secret",
        "proxy": "http://evil.example",
        "content-type": "text/csv",
        "x-tag": "blue",
        "cookie": "a=b",
    }
    response = gateway.http.post("/invoke/environment?a=1&b=%20", content=b"12345", headers=headers)
    given = dict(line.partition("=")[::2] for line in response.text.splitlines())
    expected = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": gateway.url.rpartition(":")[2],
        "REMOTE_ADDR": "127.0.0.1",
        "SCRIPT_NAME": "/invoke/environment",
        "QUERY_STRING": "a=1&b=%20",
        "CONTENT_LENGTH": "5",
        "CONTENT_TYPE": "text/csv",
        "HTTP_X_TAG": "blue",
        "HTTP_COOKIE": "a=b",
        "OWN": "kept",
        "REQUEST_METHOD": "fixed",
        "HEARTH_INVOCATION_ID": response.headers["x-invocation-id"],
    }
    assert {name: given.get(name) for name in expected} == expected
    assert "HTTP_AUTHORIZATION" not in given
    assert "HTTP_PROXY" not in given
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("function", "path", "content"),
    [("httpd", "/sub/page.txt", b"from httpd\n"), ("files", "/passwd", b"nobody:x:65534:")],
)
def test_an_unmodified_server_answers_without_a_network(
    gateway: Gateway, function: str, path: str, content: bytes
):
    response = gateway.http.get(f"/invoke/{function}{path}")
    assert response.status_code == 200
    assert content in response.content
    assert gateway.http.get(f"/invoke/{function}/not-there").status_code == 404
    (instance,) = gateway.instances(function)
    state = gateway.engine.request("GET", f"/containers/{instance['container']}/json")
    assert state["NetworkSettings"]["Networks"] == {} or state["Config"]["NetworkDisabled"]
    devices = Path(f"/proc/{state['State']['Pid']}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]


def test_calls_run_side_by_side_in_one_server(gateway: Gateway):
    answers = in_parallel(lambda _: gateway.http.get("/invoke/files/passwd"), 40, clients=4)
    assert {answer.status_code for answer in answers} == {200}
    assert len(gateway.instances("files")) == 1


def test_a_function_without_network_has_the_loopback_only(gateway: Gateway):
    answer = gateway.call("lonely", [["127.0.0.1", 80], ["172.17.0.1", 80], ["10.0.0.1", 80]]).json()
    assert answer == {"reached": [], "interfaces": ["lo"]}


def test_egress_has_a_network_that_does_not_reach_the_host(gateway: Gateway):
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    addresses = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    targets = [[address, int(port)] for address in (host, *addresses, "169.254.169.254")]
    answer = gateway.call("outgoing", targets).json()
    assert answer == {"reached": [], "interfaces": ["eth0", "lo"]}
    (network,) = gateway.engine.networks(f"org.hearth.gateway={gateway.identity}")
    assert network.startswith("hearth-")


def built(gateway: Gateway) -> str | None:
    """The state of thumbnail, once it is built or has failed."""
    state = str(gateway.http.get("/functions/thumbnail").json()["state"])
    return state if state != "building" else None


def picture(width: int, height: int) -> bytes:
    """A PNG of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" + b"\x20\x80\xc0" * width) * height)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_thumbnail_brings_its_own_packages(tmp_path: Path):
    shutil.copytree(EXAMPLES / "thumbnail", tmp_path / "thumbnail")
    keys = {"runtime": "python", "source": "thumbnail", "handler": "app:thumbnail", "memory": "256MiB"}
    with Gateway(tmp_path, {"thumbnail": keys}) as gateway:
        label = f"org.hearth.gateway={gateway.identity}"
        state = eventually(lambda: built(gateway), 120)
        assert state == "ready", gateway.http.get("/functions/thumbnail").text
        (image,) = gateway.engine.request("GET", "/images/json", filters={"label": [label]})
        assert image["Id"] == gateway.http.get("/functions/thumbnail").json()["image"]
        response = gateway.http.post(
            "/invoke/thumbnail?width=64", content=picture(640, 480), headers={"content-type": "image/png"}
        )
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "image/png"
        result = io.BytesIO(response.content)
        assert result.read(8) == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">II", response.content[16:24]) == (64, 48)
        assert len(response.content) < len(picture(640, 480))
        gateway.declare({})
        eventually(
            lambda: gateway.engine.request("GET", "/images/json", filters={"label": [label]}) == [], 15
        )
