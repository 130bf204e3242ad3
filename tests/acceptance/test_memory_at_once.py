"""Everything at once: the gateway's memory stays within the formula that docs/reliability.md states."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from crowd import HOST, Crowd, allow_many_files, head
from harness import Gateway, eventually, handler, sum_of

from gateway.access.keys import create
from gateway.access.limits import UNLIMITED
from gateway.access.scopes import parse_scopes
from gateway.assembly.memory_bound import memory_bound
from gateway.assembly.settings import Settings

pytestmark = [pytest.mark.engine, pytest.mark.alone]

MIB = 2**20
BUDGET = 64 * MIB
ECHO = "def handle(event, context):\n    return event\n"
LARGE = "def handle(event, context):\n    return 'x' * 250_000\n"
RESULT = "def handle(event, context):\n    return bytes([event % 251]) * (20 * 2**20)\n"
PRINT = "def handle(event, context):\n    print('p' * 300_000)\n    return 'printed'\n"
EVENTS = """\
import time

def handle(event, context):
    return numbers(), 200, {"content-type": "text/event-stream"}

def numbers():
    for number in range(600):
        yield f"data: {number} {'e' * 4000}\\n\\n"
        time.sleep(0.05)
"""
INSTANCES = {"echo": 2, "large": 4, "result": 4, "print": 2, "events": 8}
"""Of each function, at most: each instance runs one call at a time."""
KEYS = {
    name: create(name, parse_scopes(scopes.split()), UNLIMITED, None, 0.0)[0]
    for name, scopes in {"good": "admin", "one": "invoke:*", "two": "invoke:*", "three": "invoke:*"}.items()
}
SCOPES = {"good": "admin", "one": "invoke:*", "two": "invoke:*", "three": "invoke:*"}
ASYNC = b"Prefer: respond-async\r\n"
HALVES = {
    "messages of no webhook": (400, head(b"/hooks/x", MIB, "") + b"x" * (MIB - 1)),
    "bodies to be kept": (150, head(b"/invoke/echo", 6 * MIB, KEYS["one"], ASYNC) + b"x" * (5 * MIB)),
    "bodies of jobs": (60, head(b"/jobs", 8 * MIB, KEYS["two"]) + b"x" * (7 * MIB)),
    "half heads": (400, b"POST /invoke/echo" + HOST + b"X: " + b"y" * 60_000),
    "unread answers": (200, (head(b"/invoke/large", 1, KEYS["three"]) + b"0") * 60),
    "unread event streams": (100, head(b"/invoke/events", 1, KEYS["three"]) + b"0"),
    "idle connections": (500, b""),
}
"""Clients that send this, and then stand still."""
RESULTS = 24
"""Accepted calls that answer 20 MiB each."""
BODIES = 200
"""Accepted calls with bodies of 250 kB."""
DOCUMENTS = 4
"""Whole documents for jobs: lists of as many small values as fit."""
LOGS = 270
"""Calls that print `PRINTED` bytes or more each."""
PRINTED, KEPT_IN_MEMORY = 256 * 1024, 64 * MIB
"""Bytes of output that memory keeps of one call, and of all."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    allow_many_files()
    codes = {"echo": ECHO, "large": LARGE, "result": RESULT, "print": PRINT, "events": EVENTS}
    functions = {
        name: handler(code, max_instances=INSTANCES[name], timeout="120s", queue_size=1000)
        for name, code in codes.items()
    }
    settings = {
        "body_memory": f"{BUDGET // MIB}MiB",
        "async_size": "128MiB",
        "client_timeout": "60s",
        "api_keys": "\n".join(f"{KEYS[name]} {scopes} name={name}" for name, scopes in SCOPES.items()),
    }
    with Gateway(tmp_path_factory.mktemp("bound"), functions, settings=settings) as gateway:
        gateway.http.headers["x-hearth-key"] = KEYS["good"]
        for function, event in (("echo", 0), ("large", 0), ("print", 0)):
            gateway.call(function, event).raise_for_status()
        yield gateway


def most_memory(gateway: Gateway) -> int:
    """Return the most resident memory that the process has had, in bytes."""
    lines = Path(f"/proc/{gateway.process.pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def held(gateway: Gateway) -> dict[str, float]:
    """Return what is held of the budget for requests and answers, by holder, in bytes."""
    page = gateway.http.get("/metrics").text
    return {
        holder: sum_of(page, "hearth_body_memory_bytes", {"holder": holder})
        for holder in ("bodies", "unread", "answers")
    }


def flood_store_and_logs(url: str) -> list[str]:
    """Have calls accepted that bring or answer much, and call what prints much; return the ids of the latter."""
    with httpx.Client(base_url=url, timeout=120, headers={"x-hearth-key": KEYS["good"]}) as http:
        for _ in range(BODIES):
            http.post(
                "/invoke/echo", content=b'"' + b"b" * 250_000 + b'"', headers={"prefer": "respond-async"}
            )
        for number in range(RESULTS):
            http.post("/invoke/result", json=number, headers={"prefer": "respond-async"})
        printed = [http.post("/invoke/print", json=0) for _ in range(LOGS)]
        assert {answer.status_code for answer in printed} == {200}
        return [answer.headers["x-invocation-id"] for answer in printed]


def send_documents(url: str) -> set[int]:
    """Send documents that are refused when they have been parsed; return with which statuses."""
    document = b'{"function": "echo", "inputs": [%b[]]}' % (b"[]," * (14 * MIB // 3))
    with httpx.Client(base_url=url, timeout=120, headers={"x-hearth-key": KEYS["good"]}) as http:
        return {http.post("/jobs", content=document).status_code for _ in range(DOCUMENTS)}


def read_lists(url: str, over: Future[list[str]]) -> int:
    """Ask for the longest pages of every list until the flood is over; return how many were served."""
    paths = (
        "/invocations?limit=1000",
        "/invocations",
        "/jobs",
        "/runs",
        "/pool",
        "/pool/instances",
        "/functions",
        "/metrics",
        "/openapi.json",
    )
    served = 0
    with httpx.Client(base_url=url, timeout=120, headers={"x-hearth-key": KEYS["good"]}) as http:
        while not over.done():
            served += sum(http.get(path).status_code == 200 for path in paths)
    return served


def test_everything_at_once_stays_within_the_formula(gateway: Gateway) -> None:
    slots, clients = sum(INSTANCES.values()), sum(count for count, _ in HALVES.values())
    assert clients < BUDGET // (32 * 1024), "as many as may be connected"
    parts = memory_bound(Settings(body_memory=f"{BUDGET // MIB}MiB"), clients + 16, slots)
    bound = sum(part.size for part in parts)
    offered = sum(count * len(data) for count, data in HALVES.values()) + RESULTS * 20 * MIB
    offered += LOGS * 300_000 + BODIES * 250_000 + DOCUMENTS * 14 * MIB
    assert offered > bound, "else it shows nothing"
    before = gateway.memory()
    with Crowd(gateway) as crowd, ThreadPoolExecutor() as threads:
        flood = threads.submit(flood_store_and_logs, gateway.url)
        documents = threads.submit(send_documents, gateway.url)
        lists = [threads.submit(read_lists, gateway.url, flood) for _ in range(4)]
        most = dict.fromkeys(held(gateway), 0.0)
        for count, data in HALVES.values():
            crowd.come(count, data)
        while not (flood.done() and documents.done()) or gateway.metric("hearth_async_backlog"):
            crowd.look()
            assert gateway.call("echo", "a good one").text == "a good one"
            most = {holder: max(most[holder], size) for holder, size in held(gateway).items()}
        assert sum(served.result() for served in lists) > 0
        printed = flood.result()
        print(f"documents were answered with {documents.result()}")
    peak = most_memory(gateway)
    shares = {holder: int(size) // MIB for holder, size in most.items()}
    print(
        f"MiB: {offered // MIB} sent or made; memory {before // MIB}, then {peak // MIB} of {bound // MIB}; {shares}"
    )
    assert peak < bound
    assert BUDGET / 4 < most["bodies"] <= BUDGET, "three callers have as much as they get"
    assert 0 < most["unread"] <= BUDGET / 4
    assert 0 < most["answers"] <= BUDGET / 4
    assert len(printed) * PRINTED > KEPT_IN_MEMORY, "else nothing is forgotten"
    known = [gateway.http.get(f"/invocations/{id}/logs").status_code for id in (printed[0], printed[-1])]
    assert known == [200, 200], "the first is known by its record"
    assert gateway.metric("hearth_async_bytes", what="used") <= 128 * MIB
    eventually(lambda: not any(held(gateway).values()), 30)
    # Values of large documents lay between what stays, so that their pages cannot all be given back.
    kept = sum(size for name, size in parts if name in ("base", "one document as it is parsed", "logs"))
    eventually(lambda: gateway.memory() < kept, 20)
