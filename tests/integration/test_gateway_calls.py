"""The record of calls at a real gateway: each call is in it, with a true reason of its start, for who may see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import Gateway, command, eventually, handler

from gateway.access.keys import create
from gateway.access.limits import UNLIMITED
from gateway.access.scopes import parse_scopes

pytestmark = pytest.mark.engine

HEARTH = Path(sys.executable).with_name("hearth")
ADMIN, ADMIN_KEY = create("boss", parse_scopes(["admin"]), UNLIMITED, None, 0.0)
SHOP, SHOP_KEY = create("shop", parse_scopes(["invoke:shop"]), UNLIMITED, None, 0.0)
CODE = """
import time

def handle(event, context):
    print("asked for", event)
    time.sleep(event.get("sleep", 0))
    return event["name"]
"""
FUNCTIONS = {
    "shop": handler(CODE, memory="64MiB", max_instances=1, timeout="2s"),
    "large": handler(CODE, memory="96MiB"),
    "count": command("wc", "-w", memory="16MiB"),
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    keys = "\n".join(
        f"{key.hashed} {' '.join(key.scopes.words)} name={key.name}" for key in (ADMIN_KEY, SHOP_KEY)
    )
    settings = {"api_keys": keys, "memory_budget": "128MiB"}
    with Gateway(tmp_path_factory.mktemp("calls"), FUNCTIONS, settings=settings) as running:
        running.http.headers["x-hearth-key"] = ADMIN
        yield running


def hearth(gateway: Gateway, *words: str, key: str = ADMIN) -> subprocess.CompletedProcess[str]:
    """One run of the command."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HEARTH_")}
    variables = {"HEARTH_URL": gateway.url, "HEARTH_API_KEY": key}
    return subprocess.run(
        [HEARTH, *words], capture_output=True, text=True, env=clean | variables, timeout=60, check=False
    )


def shown(gateway: Gateway, response: httpx.Response) -> dict[str, Any]:
    """The call of an answer, as the record has it."""
    call: dict[str, Any] = gateway.http.get(f"/calls/{response.headers['x-invocation-id']}").json()
    return call


def test_a_failing_call_is_found_with_its_error_and_its_output(gateway: Gateway) -> None:
    failed = gateway.call("shop", {"nobody": 1})
    assert failed.status_code == 500
    (found,) = json.loads(hearth(gateway, "calls", "shop", "--failed", "--json").stdout)
    assert found == shown(gateway, failed)
    assert (found["outcome"], found["blame"], found["key"]) == ("handler-raised", "function", "boss")
    assert found["error"]["detail"].startswith("KeyError")
    text = hearth(gateway, "calls", found["id"][:8]).stdout
    assert text.endswith(f"  its output: hearth logs {found['id']}\n")
    assert "asked for" in hearth(gateway, "logs", found["id"][:8]).stdout
    ended = hearth(gateway, "invoke", "shop", "--data", "{}")
    assert ended.returncode == 1
    again = json.loads(hearth(gateway, "calls", "--failed", "--json", "-n", "1").stdout)[0]["id"]
    assert ended.stderr.endswith(f"\n  its output: hearth logs {again}\n")


def test_the_reason_of_a_cold_start_is_true(gateway: Gateway) -> None:
    gateway.call("shop", {"name": "Ada"})
    assert shown(gateway, gateway.call("shop", {"name": "Ada"}))["cold_reason"] is None, "it is warm"
    first = shown(gateway, gateway.call("large", {"name": "Ada"}))
    assert (first["start"], first["status"]) == ("cold", 200)
    assert first["cold_reason"].endswith("it is its first call since the gateway started")
    evicted = gateway.call("shop", {"name": "Ada"})
    assert "was evicted" in (reason := shown(gateway, evicted)["cold_reason"])
    assert reason.endswith("to make room for large")
    own = gateway.http.get(
        f"/calls/{evicted.headers['x-invocation-id']}", headers={"x-hearth-key": SHOP}
    ).json()
    assert own["cold_reason"] == reason.removesuffix("large") + "another function"
    (instance,) = gateway.instances("shop")
    assert instance["started_because"] == reason

    gateway.http.delete(f"/pool/instances/{instance['id']}")
    eventually(lambda: not gateway.instances("shop"))
    asked = shown(gateway, gateway.call("shop", {"name": "Ada"}))
    assert "as a caller had asked" in asked["cold_reason"]
    assert gateway.call("shop", {"sleep": 10}).status_code == 504
    timed_out = shown(gateway, gateway.call("shop", {"name": "Ada"}))
    assert "after a call had run past its timeout" in timed_out["cold_reason"]
    counted = shown(gateway, gateway.call("count", content=b"one two"))
    assert counted["cold_reason"].endswith("as it does not say `reuse: true`")


def test_a_key_sees_the_calls_of_its_functions_only(gateway: Gateway) -> None:
    mine = gateway.call("shop", {"name": "Ada"}, headers={"x-hearth-key": SHOP})
    gateway.call("large", {"name": "Ada"})
    listed = json.loads(hearth(gateway, "calls", "--json", key=SHOP).stdout)
    assert {call["function"] for call in listed} == {"shop"}
    assert listed[-1]["id"] == mine.headers["x-invocation-id"]
    assert listed[-1]["key"] == "shop"
    assert {call["key"] for call in listed} <= {"shop", None}


def test_calls_that_run_are_shown_and_followers_are_told_of_each_end(gateway: Gateway) -> None:
    told: list[dict[str, Any]] = []
    ready = threading.Event()

    def follow() -> None:
        with gateway.http.stream("GET", "/calls", params={"follow": "true", "limit": 0}) as response:
            for line in response.iter_lines():
                ready.set()
                if line.startswith("data: "):
                    told.append(json.loads(line.removeprefix("data: ")))
                if len(told) == 3:
                    return

    following = threading.Thread(target=follow, daemon=True)
    following.start()
    assert ready.wait(10)
    calling = threading.Thread(target=gateway.call, args=("shop", {"sleep": 1, "name": "Ada"}))
    calling.start()
    runs = eventually(
        lambda: [call for call in gateway.http.get("/calls?function=shop").json()["calls"] if call["running"]]
    )
    assert [(call["status"], call["outcome"], call["key"]) for call in runs] == [(None, None, "boss")]
    calling.join()
    unknown = gateway.call("nothing", {})
    accepted = gateway.call("shop", {"name": "Ada"}, headers={"prefer": "respond-async, wait=20"})
    following.join(10)
    ids = [runs[0]["id"], *(answer.headers["x-invocation-id"] for answer in (unknown, accepted))]
    assert [call["id"] for call in told] == ids
    assert [(call["kind"], call["function"]) for call in told] == [
        ("sync", "shop"),
        ("sync", None),
        ("async", "shop"),
    ]
    assert told[0]["total"] >= told[0]["exec"] >= 1.0


def test_a_caller_who_leaves_is_in_the_record(gateway: Gateway) -> None:
    gateway.call("shop", {"name": "Ada"})
    blocking = threading.Thread(target=gateway.call, args=("shop", {"sleep": 1, "name": "Ada"}))
    blocking.start()
    eventually(lambda: gateway.pool("shop")["instances"].get("busy"))
    with pytest.raises(httpx.ReadTimeout):
        gateway.call("shop", {"name": "Ada"}, timeout=0.2)
    left = eventually(
        lambda: [
            call
            for call in gateway.http.get("/calls?function=shop&failed=true&limit=1").json()["calls"]
            if call["outcome"] == "client-gone"
        ]
    )
    assert (left[0]["status"], left[0]["blame"], left[0]["start"]) == (None, "caller", None)
    blocking.join()
