"""What of a request reaches a function and what of its answer comes back, headers and bytes, on a real engine."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from harness import Gateway, eventually, handler, server

pytestmark = pytest.mark.engine

ECHO_SERVER = (Path(__file__).parent / "apps" / "echo_server.py").read_text()
MIB = 2**20
STREAM = """
import time

def handle(event, context):
    kind = event["kind"]
    if kind == "sse":
        return events(event), 200, {"content-type": "text/event-stream"}
    if kind == "big":
        return (b"x" * 65536 for _ in range(event["mib"] * 16))
    if kind == "broken":
        return broken()
    return event

def events(event):
    for number in range(event["count"]):
        yield f"data: {number}\\n\\n"
        time.sleep(event["pause"])

def broken():
    yield b"only this"
    time.sleep(0.1)
    raise RuntimeError("in the middle")
"""
HEADERS = """
def handle(event, context):
    return "<b>hello</b>", 200, [
        ("content-type", "text/html"), ("x-hearth-start", "free"), ("x-invocation-id", "mine"),
        ("set-cookie", "a=b"), ("x-kept", "1"), ("x-kept", "2"), ("transfer-encoding", "chunked"),
        ("content-length", "3"),
    ]
"""
CONTEXT = """
def handle(event, context):
    return {"method": context.method, "path": context.path, "query": context.query, "headers": context.headers,
            "id": context.invocation_id, "function": context.function, "remaining": context.remaining()}
"""
SLEEP = (
    "import time\n\ndef handle(event, context):\n    time.sleep(event['sleep'])\n    return event['nonce']\n"
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    limits = {"max_body": "48MiB", "max_response": "60MiB"}
    functions = {
        "echo": server(ECHO_SERVER, concurrency=8, max_instances=1, **limits),
        "site": server(ECHO_SERVER, concurrency=8, web=True),
        "small": server(ECHO_SERVER, max_response="1MiB"),
        "headers": handler(HEADERS),
        "web-headers": handler(HEADERS, web=True),
        "context": handler(CONTEXT, timeout="20s"),
        "stream": handler(STREAM, **limits),
        "single": handler(SLEEP, max_instances=1, queue_size=1),
    }
    with Gateway(tmp_path_factory.mktemp("forwarding"), functions, prewarm={"python": 1}) as running:
        yield running


def told(gateway: Gateway, method: str, path: str, **more: object) -> dict[str, object]:
    """What the echo server says that it was sent."""
    response = gateway.http.request(method, f"/invoke/echo{path}", **more)
    assert response.status_code == 200, response.text
    return dict(response.json())


# -- the request --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE"])
def test_any_method_and_sub_path_reach_a_server(gateway: Gateway, method: str):
    answer = told(gateway, method, "/a/b?x=1&x=2", content=b"12345")
    assert (answer["method"], answer["target"], answer["size"]) == (method, "/a/b?x=1&x=2", 5)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/a%2Fb%20c/%C3%A9?x=%26&y=+", "/a%2Fb%20c/%C3%A9?x=%26&y=+"),
        ("/a/../b/./c", "/a/../b/./c"),
        ("/%2e%2e/x", "/%2e%2e/x"),
        ("", "/"),
        ("?only=query", "/?only=query"),
        ("/", "/"),
        ("/x?", "/x"),
        ("/a;b=1/(c)!'*", "/a;b=1/(c)!'*"),
    ],
)
def test_the_target_is_not_changed(gateway: Gateway, path: str, target: str):
    connection = gateway.raw()
    connection.request("GET", f"/invoke/echo{path}")
    assert json.loads(connection.getresponse().read())["target"] == target
    connection.close()


def test_headers_that_a_function_does_not_see(gateway: Gateway):
    headers = {
        "connection": "keep-alive, x-listed",
        "x-listed": "hop",
        "keep-alive": "timeout=5",
        "te": "trailers",
        "proxy-authorization": "Basic eDp5",
        "x-forwarded-for": "6.6.6.6",
        "x-forwarded-proto": "https",
        "x-forwarded-prefix": "/evil",
        "forwarded": "for=6.6.6.6",
        "x-hearth-deadline": "99999",
        "x-hearth-control": "1",
        "x-invocation-id": "mine",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "content_length": "7",
        "Transfer_Encoding": "chunked",
        "x_mine": "another's",
        "x-mine": "kept",
        "authorization": "Bearer for-the-function",
        "cookie": "a=b",
    }
    response = gateway.http.get("/invoke/echo/", headers=headers)
    seen = response.json()["headers"]
    names = [name for name, _ in seen]
    assert len(names) == len(set(names))
    got = dict(seen)
    assert not {
        "x-listed", "keep-alive", "te", "proxy-authorization", "x-forwarded-prefix", "forwarded", "x-hearth-control",
        "content_length", "transfer_encoding", "x_mine"
    } & got.keys()  # fmt: skip
    assert got["x-forwarded-for"] == "127.0.0.1"
    assert got["x-forwarded-proto"] == "http"
    assert got["x-forwarded-host"] == gateway.url.removeprefix("http://")
    assert got["x-invocation-id"] == response.headers["x-invocation-id"] != "mine"
    assert float(got["x-hearth-deadline"]) == 30
    for name in ("traceparent", "x-mine", "authorization", "cookie"):
        assert got[name] == headers[name]


def test_what_a_handler_is_told(gateway: Gateway):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    response = gateway.http.post(
        "/invoke/context?a=1&b=%20", json={}, headers={"traceparent": trace, "x-hearth-control": "1"}
    )
    answer = response.json()
    assert (answer["method"], answer["query"], answer["function"]) == (
        "POST",
        {"a": "1", "b": " "},
        "context",
    )
    assert answer["id"] == response.headers["x-invocation-id"]
    assert answer["headers"]["traceparent"] == trace
    assert not [name for name in answer["headers"] if name.startswith("x-hearth-")]
    assert 15 < answer["remaining"] <= 20


def test_an_upload_of_5_mib_in_chunks(gateway: Gateway):
    body = bytes(range(256)) * 4096 * 5
    pieces = (body[start : start + 100_000] for start in range(0, len(body), 100_000))
    answer = told(gateway, "POST", "/", content=pieces)
    assert (answer["size"], answer["digest"]) == (5 * MIB, hashlib.sha256(body).hexdigest())
    assert dict(answer["headers"])["transfer-encoding"] == "chunked"
    assert "content-length" not in dict(answer["headers"])


def test_an_upload_of_5_mib_with_a_length(gateway: Gateway):
    body = bytes(range(256)) * 4096 * 5
    answer = told(gateway, "PUT", "/", content=body)
    assert (answer["size"], answer["digest"]) == (5 * MIB, hashlib.sha256(body).hexdigest())
    assert dict(answer["headers"])["content-length"] == str(5 * MIB)
    assert "transfer-encoding" not in dict(answer["headers"])


def test_an_upload_waits_for_the_function_and_not_in_our_memory(gateway: Gateway):
    told(gateway, "GET", "/")
    with ThreadPoolExecutor(1) as threads:
        before = gateway.memory()
        call = threads.submit(told, gateway, "POST", "/late?wait=1", content=iter([b"y" * MIB] * 40))
        most = before
        while not call.done():
            most = max(most, gateway.memory())
            time.sleep(0.01)
    assert call.result()["size"] == 40 * MIB
    assert most - before < 6 * MIB, (most - before) / MIB


def test_an_answer_that_comes_before_the_body_was_read(gateway: Gateway):
    response = gateway.http.post("/invoke/echo/deaf", content=b"z" * MIB)
    assert (response.status_code, response.text) == (200, "deaf")
    assert told(gateway, "GET", "/")["method"] == "GET"


# -- the answer ---------------------------------------------------------------------------------------------


def test_headers_that_a_function_cannot_set(gateway: Gateway):
    for response in (gateway.http.get("/invoke/echo/headers"), gateway.call("headers")):
        headers = response.headers
        assert not {
            "x-listed", "proxy-authenticate", "set-cookie", "clear-site-data", "x-hearth-anything", "server"
        } & headers.keys()  # fmt: skip
        assert headers["x-hearth-start"] in ("warm", "prewarmed", "cold")
        assert headers["x-invocation-id"] != "mine"
        assert headers["x-kept"] in ("yes", "1, 2")
        assert headers["content-type"] == "text/html"
        assert headers["content-security-policy"].startswith("sandbox")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers.get_list("content-length") == [str(len(response.content))]
        assert "transfer-encoding" not in headers
    plain = gateway.http.get("/invoke/echo/headers?type=application/json")
    assert plain.headers["content-security-policy"].startswith("sandbox; ")


def test_what_a_web_function_may_do_to_our_origin(gateway: Gateway):
    for response in (gateway.http.get("/invoke/site/headers"), gateway.call("web-headers")):
        assert response.headers["set-cookie"] == "a=b"
        assert "content-security-policy" not in response.headers
        assert response.headers["x-hearth-start"] != "free"
        assert response.headers["x-invocation-id"] != "mine"
    gateway.http.cookies.clear()


def test_head_has_the_headers_of_get_and_no_body(gateway: Gateway):
    connection = gateway.raw()
    for _ in range(2):  # on one connection: a body would be taken for the next answer
        connection.request("HEAD", "/invoke/echo/big?mib=1&length=1")
        response = connection.getresponse()
        assert (response.status, response.getheader("content-length")) == (200, str(MIB))
        assert response.read() == b""
    connection.request("GET", "/invoke/echo/x")
    assert json.loads(connection.getresponse().read())["target"] == "/x"
    connection.close()


@pytest.mark.parametrize("code", [204, 304, 205, 404, 500, 503, 301])
def test_statuses_pass_as_they_are(gateway: Gateway, code: int):
    connection = gateway.raw()
    for _ in range(2):
        connection.request("GET", f"/invoke/echo/status?code={code}")
        response = connection.getresponse()
        assert (response.status, response.read(), response.getheader("x-kept")) == (code, b"", "yes")
        assert response.getheader("content-length") == (None if code in (204, 304) else "0")
    connection.close()


def test_a_functions_own_5xx_is_counted_as_its_fault(gateway: Gateway):
    with gateway.counted("function-error", "function", "echo"):
        assert gateway.http.get("/invoke/echo/status?code=503").status_code == 503
    with gateway.counted("ok", "none", "echo"):
        assert gateway.http.get("/invoke/echo/status?code=404").status_code == 404


def test_an_answer_that_ends_with_its_connection(gateway: Gateway):
    for _ in range(2):
        assert gateway.http.get("/invoke/echo/until-close").text == "all of it"


@pytest.mark.parametrize("target", ["echo/big?mib=3", "echo/big?mib=3&length=1"])
def test_a_large_answer_comes_whole(gateway: Gateway, target: str):
    response = gateway.http.get(f"/invoke/{target}")
    assert response.content == b"x" * 3 * MIB
    assert ("content-length" in response.headers) == ("length=1" in target)


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "echo/big?mib=50", None),
        ("GET", "echo/big?mib=50&length=1", None),
        ("POST", "stream", b'{"kind":"big","mib":50}'),
    ],
)
def test_a_slow_reader_of_50_mib_does_not_fill_our_memory(
    gateway: Gateway, method: str, target: str, body: bytes | None
):
    gateway.http.request(
        method, f"/invoke/{target}".replace("50", "1"), content=(body or b"").replace(b"50", b"1")
    )
    before = most = gateway.memory()
    connection = gateway.raw()
    connection.request(method, f"/invoke/{target}", body=body, headers={"content-type": "application/json"})
    response = connection.getresponse()
    for _ in range(60):
        most = max(most, gateway.memory())
        time.sleep(0.01)
    size = 0
    while piece := response.read(MIB):
        size += len(piece)
        most = max(most, gateway.memory())
    connection.close()
    assert size == 50 * MIB
    assert most - before < 6 * MIB, (most - before) / MIB


@pytest.mark.parametrize(
    ("method", "target", "body", "outcome"),
    [
        ("GET", "echo/half", None, "instance-died"),
        ("GET", "echo/half?length=1", None, "instance-died"),
        ("POST", "stream", b'{"kind":"broken"}', "instance-died"),
        ("GET", "small/big?mib=2", None, "contract-broken"),
    ],
)
def test_an_answer_that_fails_in_the_middle_is_not_taken_for_whole(
    gateway: Gateway, method: str, target: str, body: bytes | None, outcome: str
):
    connection = gateway.raw()
    with gateway.counted(outcome, "function", target.split("/")[0]):
        connection.request(method, f"/invoke/{target}", body=body)
        response = connection.getresponse()
        assert response.status == 200
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()
        connection.close()


def test_the_instance_serves_on_after_an_answer_that_failed(gateway: Gateway):
    assert gateway.call("stream", {"kind": "echo"}).json() == {"kind": "echo"}
    before = {instance["id"] for instance in gateway.instances("stream")}
    for _ in range(3):
        with pytest.raises(httpx.RemoteProtocolError):
            gateway.call("stream", {"kind": "broken"})
        assert gateway.call("stream", {"kind": "echo"}).json() == {"kind": "echo"}
    assert before <= {instance["id"] for instance in gateway.instances("stream")}


def test_max_response_by_length_is_refused_before_the_head(gateway: Gateway):
    response = gateway.http.get("/invoke/small/big?mib=2&length=1")
    assert (response.status_code, response.json()["blame"]) == (502, "function")
    assert gateway.http.get("/invoke/small/big?mib=1").content == b"x" * MIB


def test_server_sent_events_arrive_one_by_one(gateway: Gateway):
    gateway.call("stream", {"kind": "sse", "count": 1, "pause": 0})
    arrivals = []
    with gateway.http.stream(
        "POST", "/invoke/stream", json={"kind": "sse", "count": 4, "pause": 0.15}
    ) as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert "content-length" not in response.headers
        for text in response.iter_text():
            arrivals.append((text, time.monotonic()))
    assert [text for text, _ in arrivals] == [f"data: {number}\n\n" for number in range(4)]
    gaps = [after - before for (_, before), (_, after) in itertools.pairwise(arrivals)]
    assert min(gaps) > 0.1, gaps


# -- clients that go away -----------------------------------------------------------------------------------


def leaving(gateway: Gateway, target: str, body: bytes) -> socket.socket:
    """A client that has sent a call and has not read an answer."""
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    client = socket.create_connection((host, int(port)))
    head = f"POST /invoke/{target} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    client.sendall(head.encode() + b"content-length: %d\r\n\r\n%b" % (len(body), body))
    return client


def test_a_client_that_leaves_the_queue_frees_its_place_at_once(gateway: Gateway):
    gateway.call("single", {"sleep": 0, "nonce": "warm"})
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(gateway.call, "single", {"sleep": 1.5, "nonce": "first"})
        eventually(lambda: gateway.pool("single")["instances"].get("busy"))
        second = leaving(gateway, "single", b'{"sleep": 0, "nonce": "second"}')
        eventually(lambda: gateway.pool("single")["queue_depth"] == 1)
        assert gateway.call("single", {"sleep": 0, "nonce": "third"}).status_code == 429
        with gateway.counted("client-gone", "caller", "single"):
            second.close()
            eventually(lambda: gateway.pool("single")["queue_depth"] == 0, 1)
        assert not first.done()
        fourth = gateway.call("single", {"sleep": 0, "nonce": "fourth"})
        assert (fourth.status_code, fourth.text) == (200, "fourth")
        assert first.result().text == "first"
    assert len(gateway.instances("single")) == 1


def test_a_client_that_leaves_in_mid_call_does_not_poison_the_instance(gateway: Gateway):
    for number in range(3):
        client = leaving(gateway, "single", b'{"sleep": 0.3, "nonce": "left"}')
        eventually(lambda: gateway.pool("single")["instances"].get("busy"))
        client.close()
        for _ in range(3):
            answer = gateway.call("single", {"sleep": 0, "nonce": f"mine {number}"})
            assert (answer.status_code, answer.text) == (200, f"mine {number}")


def test_a_client_that_leaves_a_server_in_mid_call_does_not_poison_it(gateway: Gateway):
    for number in range(3):
        client = leaving(gateway, "small/nonce?wait=0.3&nonce=left", b"")
        eventually(lambda: gateway.pool("small")["instances"].get("busy"))
        client.close()
        assert gateway.http.get(f"/invoke/small/nonce?nonce=mine-{number}").text == f"mine-{number}"


def test_a_client_that_leaves_a_stream_ends_it(gateway: Gateway):
    with gateway.http.stream(
        "POST", "/invoke/stream", json={"kind": "sse", "count": 100, "pause": 0.05}
    ) as response:
        items = response.iter_text()
        assert next(items) == "data: 0\n\n"
        assert gateway.pool("stream")["instances"].get("busy")
    eventually(lambda: not gateway.pool("stream")["instances"].get("busy"), 2)
    assert gateway.call("stream", {"kind": "echo"}).json() == {"kind": "echo"}
