"""Clients that are slow, greedy, gone or do not speak HTTP: each gets its answer, and nobody else notices."""

from __future__ import annotations

import json
import resource
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import Gateway, eventually, handler, server

pytestmark = pytest.mark.engine

PATIENCE = 1.0
"""Seconds; HEARTH_CLIENT_TIMEOUT of the gateways here."""
ECHO_SERVER = (Path(__file__).parents[1] / "integration" / "apps" / "echo_server.py").read_text()
ECHO = "def handle(event, context):\n    return event\n"
FIELD = "def handle(event, context):\n    return len(context.headers['x-long'])\n"
SLOW = (
    "import time\n\ndef handle(event, context):\n    time.sleep(event['sleep'])\n    return event['nonce']\n"
)

HEAD = b"POST /invoke/seen HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
"""A request after which the connection ends."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    functions = {
        "echo": handler(ECHO, max_body="200kB"),
        "field": handler(FIELD),
        "slow": handler(SLOW, max_instances=2),
        "seen": server(ECHO_SERVER, concurrency=8),
    }
    folder = tmp_path_factory.mktemp("clients")
    settings = {"client_timeout": f"{PATIENCE:g}s"}
    with Gateway(folder, functions, prewarm={"python": 1}, settings=settings) as running:
        for name in ("echo", "seen"):
            assert running.call(name, {}).status_code == 200
        yield running


@pytest.fixture(autouse=True)
def others_are_served(gateway: Gateway) -> Iterator[None]:
    """Whatever a client does, the next one is served by the same instances."""
    yield
    assert gateway.call("echo", {"a": 1}).json() == {"a": 1}
    assert gateway.call("seen", {}).status_code == 200
    eventually(lambda: not [i for i in gateway.instances() if i["in_use"]])
    assert gateway.metric("hearth_removals_total") == 0


def connect(gateway: Gateway, data: bytes = b"") -> socket.socket:
    """A connection over which this was sent."""
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    client = socket.create_connection((host, int(port)), timeout=20)
    client.sendall(data)
    return client


def until_closed(client: socket.socket) -> bytes:
    """Everything that comes until the gateway ends the connection."""
    said = b""
    while piece := client.recv(65536):
        said += piece
    return said


def answers(gateway: Gateway, data: bytes) -> list[tuple[int, bytes]]:
    """Statuses and bodies of the answers to this, on a connection that then ends."""
    with connect(gateway, data) as client:
        rest, found = until_closed(client), []
    while rest:
        head, _, rest = rest.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        (length,) = (int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        found.append((int(head.split()[1]), rest[:length]))
        rest = rest[length:]
    return found


def check_problem(answer: tuple[int, bytes], status: int, slug: str) -> None:
    """It is the gateway's own, and says who has to act."""
    assert answer[0] == status, answer
    problem = json.loads(answer[1])
    assert (problem["type"], problem["status"]) == (f"urn:hearth:problem:{slug}", status)
    assert problem["blame"] == "caller"


# -- what can be read in two ways, or not at all ------------------------------------------------------------

AMBIGUOUS = {
    "length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
    "chunks and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + END,
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "the same length twice": HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "a list of lengths": HEAD + b"Content-Length: 2, 2\r\n\r\nab",
    "length with a sign": HEAD + b"Content-Length: +2\r\n\r\nab",
    "negative length": HEAD + b"Content-Length: -2\r\n\r\nab",
    "hexadecimal length": HEAD + b"Content-Length: 0x2\r\n\r\nab",
    "length as in Python": HEAD + b"Content-Length: 1_0\r\n\r\n0123456789",
    "empty length": HEAD + b"Content-Length: \r\n\r\nab",
    "length over 64 bits": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\nab",
    "unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + END,
    "identity": HEAD + b"Transfer-Encoding: identity\r\n\r\n" + END,
    "chunked is not the last": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n" + END,
    "two codings": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + END,
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
    "a vertical tab before chunked": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + END,
    "a space before the colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n" + END,
    "quoted coding": HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n' + END,
    "no coding": HEAD + b"Transfer-Encoding: \r\n\r\n",
    "a folded line": HEAD + b"X-Folded: a\r\n b\r\n\r\n",
    "a folded coding": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + END,
    "bare line feeds": HEAD.replace(b"\r", b"") + b"\n",
    "a bare line feed": HEAD + b"X: a\nY: b\r\n\r\n",
    "a bare carriage return": HEAD + b"X: a\rY: b\r\n\r\n",
    "NUL": HEAD + b"X: a\0b\r\n\r\n",
    "a control character": HEAD + b"X: a\x01b\r\n\r\n",
    "a chunk's size ends with a line feed": CHUNKED + b"2\nab\r\n" + END,
    "a chunk's extension ends with a line feed": CHUNKED + b"2;a=b\nab\r\n" + END,
    "a chunk's size has 0x": CHUNKED + b"0x2\r\nab\r\n" + END,
    "a chunk's size is negative": CHUNKED + b"-2\r\nab\r\n" + END,
    "a chunk's size is over 64 bits": CHUNKED + b"fffffffffffffffff\r\nab\r\n" + END,
    "a chunk is longer than its size": CHUNKED + b"2\r\nabXX" + END,
    "a trailer changes the framing": CHUNKED + b"2\r\nab\r\n0\r\nContent-Length: 5\r\n\r\n",
    "a name with a space": HEAD + b"a b: c\r\n\r\n",
    "no name": HEAD + b": c\r\n\r\n",
    "no colon": HEAD + b"abc\r\n\r\n",
    "no Host": b"POST /invoke/seen HTTP/1.1\r\n\r\n",
    "two Hosts": HEAD + b"Host: localhost\r\n\r\n",
    "HTTP/0.9": b"GET /invoke/seen\r\n\r\n",
    "HTTP/1.2": b"GET /invoke/seen HTTP/1.2\r\nHost: localhost\r\n\r\n",
    "CONNECT": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "CONNECT with a path": b"CONNECT /invoke/seen HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
    "a target that is not ASCII": b"POST /invoke/seen/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("shape", AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused(gateway: Gateway, shape: str):
    """And what follows it is not taken for another request."""
    before = gateway.metric("hearth_invocations_total", outcome="ok")
    (answer,) = answers(gateway, AMBIGUOUS[shape] + HEAD + b"\r\n")
    check_problem(answer, 400, "bad-request")
    assert gateway.metric("hearth_invocations_total", outcome="ok") == before


@pytest.mark.parametrize(
    "request_",
    [
        CHUNKED + b"2;a=b\r\nab\r\n" + END,
        HEAD + b"TRANSFER-ENCODING:\tCHUNKED\r\n\r\n2\r\nab\r\n" + END,
        HEAD + b"Content-Length: 2\r\n\r\nab",
        CHUNKED + b"2\r\nab\r\n0\r\nX-Trailer: 1\r\nX-Hearth-Deadline: 9\r\nHost: evil\r\n\r\n",
        HEAD + b"Connection: Upgrade, X-Hop\r\nUpgrade: h2c\r\nX-Hop: 1\r\nContent-Length: 2\r\n\r\nab",
        HEAD
        + b"Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"
        + END,
        b"\r\n\r\n" + HEAD + b"Content-Length: 2\r\n\r\nab",
    ],
    ids=["extension", "capitals", "length", "trailers", "h2c", "websocket", "empty lines before"],
)
def test_what_is_right_arrives_once_with_one_framing(gateway: Gateway, request_: bytes):
    """A wish for another protocol is not granted and costs nothing; trailers do not become headers."""
    found = answers(gateway, request_ * 2 + LAST)
    assert [status for status, _ in found] == [200, 200, 200]
    for _, body in found[:2]:
        told = json.loads(body)
        names = [name for name, _ in told["headers"]]
        assert told["size"] == 2
        assert ("content-length" in names) + ("transfer-encoding" in names) == 1
        assert not {"x-trailer", "upgrade", "x-hop"} & set(names)
        assert names.count("host") == names.count("x-hearth-deadline") == 1


def test_pipelined_requests_are_answered_in_order(gateway: Gateway):
    requests = b""
    for number in range(40):
        body = json.dumps({"nonce": number}).encode()
        requests += b"POST /invoke/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (
            len(body),
            body,
        )
    found = answers(gateway, requests + LAST)
    assert [json.loads(body)["nonce"] for _, body in found[:-1]] == list(range(40))


def test_endless_pipelining_ends(gateway: Gateway):
    """Each waiting request takes memory: only so many wait, those are answered, and the connection ends."""
    body = b'{"sleep": 0.3, "nonce": "first"}'
    first = b"POST /invoke/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )
    found = answers(gateway, first + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
    assert found[0] == (200, b"first")
    assert 2 <= len(found) < 100
    assert {status for status, _ in found} == {200}


def test_rubbish_after_a_request_does_not_take_its_answer(gateway: Gateway):
    body = b'{"sleep": 0.3, "nonce": "mine"}'
    request = b"POST /invoke/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )
    assert answers(gateway, request + b"\x00rubbish\r\n\r\n") == [(200, b"mine")]
    assert answers(gateway, request + CHUNKED + b"no chunk\r\n") in ([(200, b"mine")], [])


# -- slow and long ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [HEAD, HEAD[:30], b"P", HEAD + b"X: " + b"y" * 30_000])
def test_half_a_head_is_not_waited_for(gateway: Gateway, sent: bytes):
    with connect(gateway, sent) as client:
        begin = time.monotonic()
        said = until_closed(client)
        took = time.monotonic() - begin
    assert said.startswith(b"HTTP/1.1 408")
    assert b"head-timeout" in said
    assert PATIENCE * 0.9 < took < PATIENCE + 5


def test_a_head_that_drips_is_not_waited_for(gateway: Gateway):
    with connect(gateway, HEAD) as client:
        begin = time.monotonic()
        try:
            while time.monotonic() - begin < 20:
                client.sendall(b"x: y\r\n")
                client.settimeout(0.1)
                try:
                    said = client.recv(65536)
                    break
                except TimeoutError:
                    continue
        finally:
            client.settimeout(20)
    assert said.startswith(b"HTTP/1.1 408")
    assert time.monotonic() - begin < PATIENCE + 5


@pytest.mark.parametrize("sent", [b"", b"hal"])
@pytest.mark.parametrize(
    "framing", [b"Content-Length: 10\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\na\r\n"]
)
def test_half_a_body_is_not_waited_for(gateway: Gateway, framing: bytes, sent: bytes):
    """Before an instance is given to it: none is held up meanwhile."""
    with gateway.counted("body-timeout", "caller", "seen"), connect(gateway, HEAD + framing + sent) as client:
        said = client.recv(65536)
    assert said.startswith(b"HTTP/1.1 408")
    assert b"body-timeout" in said
    assert b"x-hearth-start" not in said


def test_a_long_upload_may_take_its_time(gateway: Gateway):
    """The time is for the beginning of a body; afterwards the function's own `timeout` holds."""
    size = 200_000
    head = b"POST /invoke/echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
    with connect(gateway, head % size + b"x" * 100_000) as client:
        time.sleep(PATIENCE * 1.3)  # what is tested: nothing happens
        client.sendall(b"x" * 100_000)
        said = b""
        while not said.endswith(b"x" * size):
            piece = client.recv(65536)
            assert piece, said[:300]
            said += piece
    assert said.startswith(b"HTTP/1.1 200")


def test_a_connection_that_asks_nothing_is_closed(gateway: Gateway):
    for sent in (b"", b"\r\n"):
        with connect(gateway, sent) as client:
            assert until_closed(client) == b""


def test_a_field_of_60_kb_passes(gateway: Gateway):
    assert gateway.call("field", {}, headers={"x-long": "y" * 60_000}).json() == 60_000


@pytest.mark.parametrize("size", [64 * 1024, 1_000_000])
@pytest.mark.parametrize("form", ["one field", "many fields", "target", "no end"])
def test_a_head_over_64_kib_is_refused(gateway: Gateway, form: str, size: int):
    head = {
        "one field": HEAD + b"x-long: " + b"y" * size + b"\r\n\r\n",
        "many fields": HEAD + b"x: yyyy\r\n" * (size // 8) + b"\r\n",
        "target": b"GET /invoke/seen?" + b"y" * size + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "no end": HEAD + b"x-long: " + b"y" * size * 8,
    }[form]
    with connect(gateway, head[:5000]) as client:
        for at in range(5000, len(head), 5000):
            client.sendall(head[at : at + 5000])
        said = client.recv(65536)
    assert said.startswith(b"HTTP/1.1 431")
    assert b"head-too-large" in said
    ((status, body),) = answers(gateway, head[:300_000] if form == "no end" else head)
    check_problem((status, body), 431, "head-too-large")


def test_a_reader_that_stands_still_is_cut_off(gateway: Gateway):
    """Of an answer larger than what the kernel takes: more would wait in our memory, for ever."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, _, port = gateway.url.removeprefix("http://").partition(":")
        client.settimeout(30)
        client.connect((host, int(port)))
        page = b"GET /docs/files/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
        client.sendall(page * 20)
        address = client.getsockname()
        eventually(lambda: address not in peers(gateway), PATIENCE * 3 + 10)


def peers(gateway: Gateway) -> set[tuple[str, int]]:
    """Who is connected to the gateway's port, as the kernel shows it."""
    port = int(gateway.url.rpartition(":")[2])
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, state = line.split()[1:4]
        if int(local.split(":")[1], 16) == port and state == "01":
            found.add(("127.0.0.1", int(remote.split(":")[1], 16)))
    return found


# -- gone ---------------------------------------------------------------------------------------------------


def test_clients_that_leave_at_every_step(gateway: Gateway):
    body = b'{"sleep": 0.02, "nonce": "n"}'
    whole = b"POST /invoke/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )
    for end in (socket.SHUT_RDWR, None):
        for length in range(1, len(whole) + 1, 3):
            with connect(gateway, whole[:length]) as client:
                if end is None:  # a reset instead of a FIN
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                else:
                    client.shutdown(end)
    for wait in (0, 0.01, 0.03):
        with connect(gateway, whole):
            time.sleep(wait)
    assert gateway.call("slow", {"sleep": 0, "nonce": "still here"}).text == "still here"


# -- many ---------------------------------------------------------------------------------------------------


def test_5000_idle_connections(tmp_path: Path):
    """They take some memory each, and nobody's turn."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    count = min(5000, most - 1000)
    settings = {"client_timeout": "60s"}
    with Gateway(tmp_path, {"echo": handler(ECHO)}, settings=settings) as gateway, ExitStack() as stack:
        assert gateway.call("echo", 1).json() == 1
        before = gateway.memory()
        for number in range(count):
            stack.enter_context(connect(gateway, HEAD if number % 2 else b""))
        eventually(lambda: len(peers(gateway)) >= count)
        for number in range(100):
            assert gateway.call("echo", number).json() == number
        each = (gateway.memory() - before) / count
        assert each < 16 * 1024, f"{each:.0f} bytes for each connection"


def test_clients_cannot_take_every_file_descriptor(tmp_path: Path):
    """Of 256, a quarter is left to the engine and the instances; who waits without asking makes room."""
    prlimit = shutil.which("prlimit")
    assert prlimit is not None
    with (
        Gateway(
            tmp_path,
            {"echo": handler(ECHO)},
            settings={"client_timeout": "2s"},
            wrapper=(prlimit, "--nofile=256:256"),
        ) as gateway,
        ExitStack() as stack,
    ):
        idle = [stack.enter_context(connect(gateway)) for _ in range(400)]
        for client in idle:
            assert gone(client)
        assert gateway.call("echo", 1).json() == 1


def gone(client: socket.socket) -> bool:
    """Whether the gateway ends the connection, politely or not."""
    try:
        return until_closed(client) == b""
    except ConnectionError:
        return True
