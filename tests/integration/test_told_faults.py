"""What callers and authors are told of faults of real software: uvicorn, gunicorn, handlers, and gRPC's client."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from harness import EngineView, Gateway, eventually, handler

from tests.support.packaged_image import build, install

pytestmark = pytest.mark.engine

APP = """
import asyncio, ctypes, os

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    asked = scope["path"].strip("/")
    print(f"now {asked}", flush=True)
    if asked == "exit":
        os._exit(7)
    elif asked == "crash":
        ctypes.string_at(0)
    elif asked == "memory":
        held = bytearray(2**30)
    elif asked == "later":
        await asyncio.sleep(0.5)
        os._exit(7)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
WSGI = """
def app(environ, start_response):
    if environ["PATH_INFO"] == "/memory":
        held = bytearray(2**30)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
BROKEN = "import settings\n\nDEBUG = settings.DEBUG\n"
SETTINGS = 'DEBUG = {}["debug"]\n'
HANDLE = "\ndef handle(event, context):\n    return 1\n"
SLOW = f"import time\nprint('loading the model', flush=True)\ntime.sleep(6)\n{HANDLE}"
NO_IMPORT = f"import json\n\nCONFIGURATION = json.loads('{{')\n{HANDLE}"
DIES = "import os\nprint('about to end', flush=True)\nos._exit(3)\n"
GRPC = """
import grpc, sys
try:
    grpc.insecure_channel(sys.argv[1]).unary_unary("/package.Service/Method")(b"", timeout=20)
except grpc.RpcError as error:
    print(error.code().name, error.details())
"""


def uvicorn(image: str, app: str = "app:app", port: int = 8000, **keys: object) -> dict[str, object]:
    """A function that uvicorn serves. It is declared on port 8000, whatever it listens on."""
    command = ["python3", "-m", "uvicorn", app, "--port", str(port)]
    return {"image": image, "command": command, "port": 8000, **keys}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, test_label: dict[str, str]) -> Iterator[Gateway]:
    packages = tmp_path_factory.mktemp("servers")
    install(["gunicorn", "uvicorn"], packages)
    files = {"app": APP, "wsgi": WSGI, "broken": BROKEN, "settings": SETTINGS}
    for name, text in files.items():
        (packages / f"{name}.py").write_text(text)
    [label] = test_label
    session = uuid.uuid4().hex  # of its own: what has the session's label is others', too
    image = build(f"hearth-test/servers:{session}", {label: session}, packages)
    gunicorn = "python3 -m gunicorn -w 1 -b 127.0.0.1:8000 --worker-tmp-dir /tmp wsgi:app"
    functions = {
        "uvicorn": uvicorn(image, memory="64MiB"),
        "several": uvicorn(image, memory="64MiB", concurrency=4, max_instances=1),
        "gunicorn": {"image": image, "command": gunicorn.split(), "port": 8000, "memory": "96MiB"},
        "broken": uvicorn(image, "broken:app"),
        "elsewhere": uvicorn(image, port=8001, queue_timeout="1s"),
        "unhealthy": uvicorn(image, "wsgi:app", health="/healthz", queue_timeout="1s"),
        "slow": handler(SLOW, queue_timeout="1s"),
        "no-import": handler(NO_IMPORT),
        "dies": handler(DIES),
    }
    with Gateway(tmp_path_factory.mktemp("told"), functions) as running:
        yield running
    EngineView().remove_all(f"{label}={session}")


def told(response: httpx.Response, status: int, slug: str) -> str:
    """The detail of a problem for which the function is to blame."""
    problem = response.json()
    assert (response.status_code, problem["type"], problem["blame"]) == (
        status,
        f"urn:hearth:problem:{slug}",
        "function",
    ), problem
    return str(problem["detail"])


@pytest.mark.parametrize(
    ("path", "how"),
    [
        ("exit", "its process ended with exit status 7"),
        ("crash", "its process ended with exit status 139 (SIGSEGV)"),
        ("memory", "it was killed for want of memory (64 MiB; raise `memory`)"),
    ],
)
def test_a_server_that_dies_in_a_call(gateway: Gateway, path: str, how: str) -> None:
    assert gateway.call("uvicorn").text == "ok"
    response = gateway.http.post(f"/invoke/uvicorn/{path}")
    assert told(response, 502, "instance-died") == f"the instance died: {how}"
    assert f"now {path}" in gateway.logs(response)
    eventually(lambda: gateway.instances("uvicorn") == [])


def test_calls_that_run_at_once_each_get_the_last_words(gateway: Gateway) -> None:
    assert gateway.call("several").text == "ok"
    with ThreadPoolExecutor(2) as threads:
        later = [threads.submit(gateway.http.post, "/invoke/several/later") for _ in range(2)]
        for response in (one.result() for one in later):
            assert "exit status 7" in told(response, 502, "instance-died")
            assert "now later" in gateway.logs(response)


def test_a_worker_that_is_killed_under_its_master(gateway: Gateway) -> None:
    """gunicorn's master lives on and starts another worker; the instance stays."""
    assert gateway.call("gunicorn").text == "ok"
    response = gateway.http.post("/invoke/gunicorn/memory")
    detail = told(response, 502, "instance-died")
    assert detail.startswith(
        "the instance failed: it closed its connection; so far the kernel has killed 1 of its"
    )
    eventually(lambda: "Perhaps out of memory?" in gateway.logs(response))
    assert gateway.call("gunicorn").text == "ok"
    assert len(gateway.instances("gunicorn")) == 1


def test_a_server_whose_application_cannot_be_imported(gateway: Gateway) -> None:
    response = gateway.call("broken")
    detail = told(response, 502, "instance-died")
    assert detail.startswith("its process ended with exit status 1 before it was ready; it printed: ")
    assert detail.endswith("KeyError: 'debug'")
    for shown in (gateway.logs(response), gateway.http.get("/functions/broken").json()["printed"]):
        assert 'File "/packages/settings.py", line 1, in <module>' in shown
        assert shown.endswith("KeyError: 'debug'\n")


def not_ready(gateway: Gateway, function: str, says: str) -> str:
    """What a call is told that comes late enough in a start to be told this: a start goes on from call to call."""

    def told_it() -> httpx.Response | None:
        response = gateway.call(function)
        return response if says in response.text else None

    response = eventually(told_it)
    assert int(response.headers["retry-after"]) >= 1
    return told(response, 503, "not-ready")


def test_a_port_on_which_nothing_listens(gateway: Gateway) -> None:
    detail = not_ready(gateway, "elsewhere", "Uvicorn running on http://127.0.0.1:8001")
    assert "within 1 s (queue_timeout): nothing accepts connections on port 8000 (`port`) after " in detail
    assert "call again, or raise queue_timeout. It has printed: " in detail


def test_a_health_path_that_does_not_answer_well(gateway: Gateway) -> None:
    not_ready(gateway, "unhealthy", ": GET /healthz on port 8000 answers with status 500 (`health`) after ")


def test_a_start_that_takes_longer_than_a_call_waits(gateway: Gateway) -> None:
    detail = not_ready(gateway, "slow", "It has printed: loading the model")
    assert "within 1 s (queue_timeout): its handler is still being imported after " in detail
    eventually(lambda: gateway.call("slow").status_code == 200)


def test_the_traceback_of_an_import_that_fails(gateway: Gateway) -> None:
    response = gateway.call("no-import")
    detail = told(response, 500, "import-failed")
    assert detail.startswith("JSONDecodeError: Expecting property name")
    assert detail.endswith("(handler.py, line 3)")
    hearth = Path(sys.executable).with_name("hearth")
    listed = subprocess.run([hearth, "functions", "--url", gateway.url], capture_output=True, text=True)
    assert "no-import printed before its fault:\n" in listed.stdout
    for shown in (gateway.logs(response), listed.stdout):
        assert "Traceback (most recent call last):" in shown
        assert 'File "/function/handler.py", line 3, in <module>' in shown
        assert "json.decoder.JSONDecodeError: Expecting property name" in shown


def test_a_handler_that_ends_while_it_is_imported(gateway: Gateway) -> None:
    response = gateway.call("dies")
    assert told(response, 502, "instance-died") == (
        "the instance ended while it imported the handler: its process ended with exit status 3"
    )
    assert gateway.logs(response) == "about to end\n"


def test_a_client_of_grpc_is_told_what_is_served(gateway: Gateway, tmp_path: Path) -> None:
    install(["grpcio"], tmp_path)
    asked = subprocess.run(
        [sys.executable, "-c", GRPC, gateway.url.removeprefix("http://")],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert asked.stdout == (
        "UNIMPLEMENTED the gateway speaks HTTP/1.1, not HTTP/2 or gRPC; POST to /invoke/NAME over HTTP/1.1\n"
    )
    assert gateway.call("uvicorn").text == "ok"
