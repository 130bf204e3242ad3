"""Callbacks of a real gateway: sent, signed, tried again over a kill, and refused where they may not go."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from harness import Gateway, eventually, free_port, handler

pytestmark = pytest.mark.engine

ECHO = """
def handle(event, context):
    if event and event.get("fail"):
        raise ValueError("no")
    return event
"""
ASYNC = {"prefer": "respond-async"}


class Receiver:
    """A server that keeps what it is sent."""

    def __init__(self, port: int = 0) -> None:
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]

    def told(self, id: str) -> list[dict[str, Any]]:
        """What it was told of a call."""
        bodies = [json.loads(body) for _, _, body in self.seen]
        return [body for body in bodies if body["invocation_id"] == id]


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    receiver = Receiver(port)
    thread = Thread(target=receiver.server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        thread.join()
        receiver.server.server_close()


def signature(secret: str, headers: dict[str, str], body: bytes) -> str:
    """As docs/callbacks.md says."""
    key = base64.b64decode(secret.strip().removeprefix("whsec_"))
    told = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, told, hashlib.sha256).digest()).decode()


def accept(gateway: Gateway, function: str, payload: object, **headers: str) -> str:
    answer = gateway.call(function, payload, headers={**ASYNC, **headers})
    assert answer.status_code == 202, answer.text
    return str(answer.headers["x-invocation-id"])


def callback_of(gateway: Gateway, id: str) -> Any:
    return gateway.http.get(f"/invocations/{id}").json()["callback"]


def test_the_end_of_a_call_is_told_signed_and_shown(tmp_path: Path) -> None:
    with receiving() as receiver:
        url = f"http://127.0.0.1:{receiver.port}/done"
        functions = {
            "echo": handler(ECHO),
            "told": handler(ECHO, callback=f"{url}/own", retries={"attempts": 1}),
        }
        with Gateway(tmp_path, functions, settings={"callback_allow": "127.0.0.1"}) as gateway:
            id = accept(gateway, "echo", {"a": 1}, **{"x-hearth-callback": f"{url}?key=k"})
            eventually(lambda: receiver.told(id), 30)
            path, headers, body = receiver.seen[0]
            assert path == "/done?key=k"
            secret = (gateway.data / "callback-secret").read_text()
            assert headers["webhook-signature"] == signature(secret, headers, body)
            told = receiver.told(id)[0]
            assert (told["function"], told["status"], told["attempts"]) == ("echo", "succeeded", 1)
            assert json.loads(told["result"]["body"]) == {"a": 1}
            shown = eventually(lambda: (c := callback_of(gateway, id))["status"] != "pending" and c, 10)
            assert shown == {"url": url, "status": "delivered", "attempts": 1, "due": None, "fault": None}
            assert gateway.metric("hearth_callbacks_total", outcome="delivered") == 1

            failing = accept(gateway, "told", {"fail": True})
            eventually(lambda: receiver.told(failing), 30)
            assert receiver.told(failing)[0]["status"] == "dead"
            assert receiver.seen[-1][0] == "/done/own"
            none = accept(gateway, "echo", {})
            eventually(lambda: gateway.http.get(f"/invocations/{none}").json()["ended"], 30)
            assert callback_of(gateway, none) is None


def test_a_callback_survives_a_kill_and_is_delivered_when_its_receiver_is_there(tmp_path: Path) -> None:
    port = free_port()
    settings = {"callback_allow": "127.0.0.1"}
    with Gateway(tmp_path, {"echo": handler(ECHO)}, settings=settings) as gateway:
        url = f"http://127.0.0.1:{port}/"
        id = accept(gateway, "echo", {"a": 1}, **{"x-hearth-callback": url})
        eventually(lambda: (c := callback_of(gateway, id)) and c["fault"], 30)
        assert callback_of(gateway, id)["status"] == "pending"
        gateway.stop(signal.SIGKILL)
        with receiving(port) as receiver:
            gateway.launch()
            gateway.wait_until_ready()
            eventually(lambda: receiver.told(id), 60)
            eventually(lambda: callback_of(gateway, id)["status"] == "delivered", 10)
            assert callback_of(gateway, id)["attempts"] >= 2


def test_a_callback_that_may_not_be_is_refused_and_says_which_setting(tmp_path: Path) -> None:
    with Gateway(tmp_path, {"echo": handler(ECHO)}) as gateway:
        for headers, why in (
            ({**ASYNC, "x-hearth-callback": "http://169.254.169.254/"}, "HEARTH_CALLBACK_ALLOW has nothing"),
            ({**ASYNC, "x-hearth-callback": "gopher://a/"}, "must begin with https://"),
            ({"x-hearth-callback": "https://a.example/"}, "send Prefer: respond-async as well"),
        ):
            answer = gateway.call("echo", {}, headers=headers)
            assert answer.status_code == 400 and why in answer.json()["detail"]
        assert gateway.metric("hearth_async_accepted_total") == 0
        assert not (gateway.data / "callback-secret").exists()
