"""Spares on a real engine: what was deployed or called lately is ready, and goes first when memory is needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from harness import GATEWAY_LABEL, Gateway, eventually, handler
from wheelhouse import only_index, wheel

pytestmark = pytest.mark.engine

PACKED = """
import os
import slow_import

def handle(event, context):
    return {"pid": os.getpid(), "answer": slow_import.ANSWER}
"""
SLOWLY = b"import time\ntime.sleep(0.5)\nANSWER = 42\n"
HOST = "import os\n\ndef handle(event, context):\n    return os.uname().nodename\n"
NEEDED = ("slowly\n", "# a comment makes no other image\nslowly  # nor does this one\n")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway in which spares may take 256 MiB: those of both functions with packages, until another is called."""
    folder = tmp_path_factory.mktemp("spares")
    functions = {
        "packed-1": handler(PACKED, memory="64MiB"),
        "packed-2": handler(PACKED, memory="64MiB"),
        "fresh": handler(HOST, reuse=False, memory="64MiB"),
        "large": handler(HOST, memory="1000MiB"),
    }
    with pytest.MonkeyPatch.context() as patch:
        wheel(only_index(folder / "index", patch), "slowly", more={"slow_import.py": SLOWLY})
        running = Gateway(folder, functions, settings={"memory_budget": "1024MiB"})
        for name, text in zip(("packed-1", "packed-2"), NEEDED, strict=True):
            running.write(f"{name}/requirements.txt", text)
        with running:
            yield running


def instances(gateway: Gateway, function: str) -> list[dict[str, Any]]:
    return gateway.instances(function)


def ready(gateway: Gateway, function: str) -> list[dict[str, Any]]:
    return [i for i in instances(gateway, function) if i["state"] in ("idle", "frozen")]


def test_functions_with_packages_are_ready_before_their_first_call(gateway: Gateway) -> None:
    eventually(lambda: ready(gateway, "packed-1") and ready(gateway, "packed-2"), 60)
    images = {f["name"]: f["image"] for f in gateway.http.get("/functions").json()}
    assert images["packed-1"] == images["packed-2"] != images["fresh"]
    label = f"{GATEWAY_LABEL}={gateway.identity}"
    built = gateway.engine.request("GET", "/images/json", filters=json.dumps({"label": [label]}))
    assert len(built) == 1
    [spare] = ready(gateway, "packed-1")
    assert spare["started_for"] == "spare"
    assert spare["started_because"].startswith(
        "it was started ahead of calls: its function came into service"
    )
    answer = gateway.call("packed-1")
    assert answer.json()["answer"] == 42
    assert answer.headers["x-hearth-start"] == "prewarmed"
    assert gateway.call("packed-1").headers["x-hearth-start"] == "warm"
    pool = gateway.http.get("/pool").json()
    assert pool["functions"]["packed-1"]["kept_ready"] == 1
    assert pool["spares"] == {"ready": 1, "starting": 0, "memory": 64 * 2**20, "memory_share": 256 * 2**20}
    assert gateway.metric("hearth_spare_memory_bytes") == 64 * 2**20


def test_each_call_of_a_single_use_function_finds_a_new_one(gateway: Gateway) -> None:
    hosts = {gateway.call("fresh").text}
    for _ in range(3):
        eventually(lambda: ready(gateway, "fresh"), 60)
        answer = gateway.call("fresh")
        assert answer.headers["x-hearth-start"] == "prewarmed"
        hosts.add(answer.text)
    assert len(hosts) == 4, "each call had a container of its own"
    assert gateway.metric("hearth_instance_starts_total", purpose="spare") >= 3


def test_spares_go_first_when_a_call_needs_their_memory(gateway: Gateway) -> None:
    assert gateway.call("fresh").status_code == 200
    eventually(lambda: ready(gateway, "packed-2") and ready(gateway, "fresh"), 60)
    assert gateway.call("large").status_code == 200
    assert not instances(gateway, "packed-2")
    assert not instances(gateway, "fresh")
    assert gateway.metric("hearth_removals_total", reason="evicted") >= 2
    assert gateway.http.get("/pool").json()["spares"]["ready"] == 0
