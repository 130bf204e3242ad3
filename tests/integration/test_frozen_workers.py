"""A real gunicorn keeps its workers between calls: servers with workers are never frozen."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import EngineView, Gateway, eventually, server

from tests.support.packaged_image import build, install

pytestmark = pytest.mark.engine

APP = """
import os
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getppid()} {os.getpid()}".encode()]
"""
HUNG_AFTER_SECONDS = 1
GUNICORN = f"python3 -m gunicorn -w 1 -b 127.0.0.1:8000 -t {HUNG_AFTER_SECONDS} --worker-tmp-dir /tmp app:app"
SINGLE = """
import http.server
class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(204)
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Server).serve_forever()
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, test_label: dict[str, str]) -> Iterator[str]:
    """An image with gunicorn from the package index, and an application that says its processes."""
    packages = tmp_path_factory.mktemp("gunicorn")
    install(["gunicorn"], packages)
    (packages / "app.py").write_text(APP)
    # Of its own: what has the session's label is others', too, and goes with it below.
    [label] = test_label
    session = uuid.uuid4().hex
    yield build(f"hearth-test/gunicorn:{session}", {label: session}, packages)
    EngineView().remove_all(f"{label}={session}")


def state(gateway: Gateway, function: str) -> str:
    [instance] = gateway.instances(function)
    return str(instance["state"])


def workers_of(gateway: Gateway, function: str) -> set[str]:
    """What both workers of a server answer, or nothing if one has not been seen."""
    seen = {gateway.call(function).text for _ in range(8)}
    return seen if len(seen) == 2 else set()


def test_gunicorn_has_its_worker_after_a_pause_that_freezes_others(tmp_path: Path, image: str) -> None:
    gunicorn = {"image": image, "command": GUNICORN.split(), "port": 8000}
    functions = {
        "gunicorn": gunicorn,
        "told": {**gunicorn, "command": [*GUNICORN.split(), "-w", "2"], "freeze_after": "100ms"},
        "single": server(SINGLE),
    }
    with Gateway(tmp_path, functions) as gateway:
        workers = eventually(lambda: workers_of(gateway, "told"))
        processes = gateway.call("gunicorn").text
        master, worker = processes.split()
        assert master != worker
        assert gateway.call("single").status_code == 204
        # It was called after gunicorn, and frozen longer than a worker may be silent.
        eventually(lambda: state(gateway, "single") == "frozen")
        assert state(gateway, "gunicorn") == "idle"
        assert gateway.call("gunicorn").text == processes
        # It was told to be frozen long ago.
        assert state(gateway, "told") == "idle"
        assert eventually(lambda: workers_of(gateway, "told")) == workers
