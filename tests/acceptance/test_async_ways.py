"""An accepted call ends as a direct one is answered, whichever way it goes: plain, streamed, failing, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from harness import Gateway, command, eventually, handler, server

pytestmark = pytest.mark.engine

HANDLER = """
import time

def handle(event, context):
    kind = event if isinstance(event, bytes) else event.get("kind")
    if isinstance(kind, bytes):
        return {"length": len(kind)}
    if kind == "raise":
        raise ValueError("no")
    if kind == "sleep":
        time.sleep(30)
    if kind == "empty":
        return b"", 204
    if kind == "teapot":
        return b"short and stout", 418, {"x-spout": "yes", "set-cookie": "a=b", "content-type": "text/html"}
    if kind == "stream":
        return (str(n) for n in range(5))
    if kind == "large":
        return b"x" * 300_000
    return event
"""
SERVER = """
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        length = int(self.headers.get("content-length") or 0)
        body = f"{self.command} {self.path} {self.rfile.read(length)!r}".encode()
        self.send_response(200)
        self.send_header("x-own", "yes")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    do_GET = do_PUT = do_POST = do_HEAD = answer

HTTPServer(("", 8000), Handler).serve_forever()
"""
ONCE = {"retries": {"attempts": 1}}
CALLS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("POST", "f", {"json": {"a": 1}}),
    ("POST", "f", {"json": {"kind": "raise"}}),
    ("POST", "f", {"json": {"kind": "empty"}}),
    ("POST", "f", {"json": {"kind": "teapot"}}),
    ("POST", "f", {"json": {"kind": "stream"}}),
    ("POST", "f", {"json": {"kind": "large"}}),
    ("POST", "f", {"content": b"{", "headers": {"content-type": "application/json"}}),
    ("POST", "f", {"content": b"y" * 200_000, "headers": {"content-type": "text/plain"}}),
    ("POST", "f?a=b", {"content": b"", "headers": {"content-type": "text/plain"}}),
    ("GET", "web/some/path?x=y", {}),
    ("HEAD", "web/", {}),
    ("PUT", "web/%2f", {"content": b"body"}),
    ("POST", "shell", {"content": b"in"}),
    ("POST", "broken", {"content": b"in"}),
)
SAME = ("content-type", "content-length", "x-spout", "x-own", "set-cookie", "content-security-policy")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    functions = {
        "f": handler(HANDLER, timeout="3s", **ONCE),
        "web": server(SERVER, **ONCE),
        "shell": command("cat", **ONCE),
        "broken": command("false", **ONCE),
    }
    with Gateway(tmp_path_factory.mktemp("ways"), functions) as made:
        yield made


def ran_later(gateway: Gateway, method: str, path: str, **more: Any) -> tuple[dict[str, Any], httpx.Response]:
    """The record of a call that was accepted, when it has ended, and its answer."""
    headers = {"prefer": "respond-async", **more.pop("headers", {})}
    accepted = gateway.http.request(method, f"/invoke/{path}", headers=headers, **more)
    assert accepted.status_code == 202, accepted.text
    place = accepted.headers["location"]
    record = eventually(lambda: (r := gateway.http.get(place).json())["ended"] and r, 30)
    return record, gateway.http.get(f"{place}/result")


@pytest.mark.parametrize(("method", "path", "more"), CALLS)
def test_it_ends_as_a_direct_call_is_answered(
    gateway: Gateway, method: str, path: str, more: dict[str, Any]
) -> None:
    direct = gateway.http.request(method, f"/invoke/{path}", **more)
    record, later = ran_later(gateway, method, path, **more)
    assert later.status_code == direct.status_code
    if direct.headers.get("content-type") == "application/problem+json":
        told, expected = later.json(), direct.json()
        assert told.pop("invocation_id") == record["id"] and expected.pop("invocation_id")
        assert told == expected and record["error"] == told["type"].rpartition(":")[2]
    else:
        assert later.content == direct.content
        shown = [name for name in SAME if (method, name) != ("HEAD", "content-length")]
        if direct.headers.get("transfer-encoding") or direct.status_code == 204:
            shown.remove("content-length")  # what came in pieces is kept whole
        assert {n: later.headers.get(n) for n in shown} == {n: direct.headers.get(n) for n in shown}
    assert later.headers["x-hearth-start"] == record["phases"]["start_kind"]
    assert len(later.headers.get_list("server-timing")) == len(later.headers.get_list("x-invocation-id")) == 1
    expected_status = (
        "succeeded" if direct.status_code < 400 else "failed" if direct.status_code < 500 else "dead"
    )
    assert record["status"] == expected_status
    assert gateway.books_agree() or eventually(gateway.books_agree, 20)


def test_one_that_runs_past_its_timeout_is_ended_and_its_instance_destroyed(gateway: Gateway) -> None:
    record, later = ran_later(gateway, "POST", "f", json={"kind": "sleep"})
    assert (later.status_code, record["error"], record["status"]) == (504, "timeout", "dead")
    assert 3000 <= record["phases"]["exec"] < 20_000
    eventually(gateway.books_agree, 20)
    assert gateway.call("f", {"a": 1}).json() == {"a": 1}
