"""A gateway that was killed or stopped is started again: it adopts what is warm, removes all else, leaks nothing."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from harness import Gateway, eventually, handler, server

pytestmark = pytest.mark.engine

HOST = "import os\n\ndef handle(event, context):\n    return os.uname().nodename\n"
SITE = "import http.server as s; s.test(s.SimpleHTTPRequestHandler, port=8000)"


def restart(gateway: Gateway) -> float:
    """Start it again and wait until it is ready; how many seconds that took."""
    begin = time.monotonic()
    gateway.launch()
    gateway.wait_until_ready()
    return time.monotonic() - begin


def accounted(gateway: Gateway) -> bool:
    """Whether the pool knows of every container, and every record and folder is an instance's."""
    instances = {i["id"]: i for i in gateway.instances()}
    containers = {c["Id"] for c in gateway.containers()}
    folders = {f.name for f in (gateway.data / "run").glob("*")}
    records = {f.stem for f in (gateway.data / "records").glob("*")}
    return (
        all(i["state"] in ("idle", "frozen", "prewarmed") for i in instances.values())
        and containers == {i["container"] for i in instances.values()}
        and folders == {id for id, i in instances.items() if i["function"] != "site"}
        and records == set(instances)
    )


def test_after_a_kill_warm_instances_are_adopted(tmp_path: Path):
    functions = {"host": handler(HOST), "site": server(SITE), "packed": handler(HOST, concurrency=3)}
    with Gateway(tmp_path, functions, prewarm={"python": 1}) as gateway:
        hosts = {name: gateway.call(name).text for name in ("host", "packed")}
        assert gateway.http.get("/invoke/site/").status_code == 200
        eventually(lambda: accounted(gateway) and gateway.prewarmed() == 1)
        before = {i["id"]: i for i in gateway.instances()}
        assert len(before) == 4
        gateway.stop(signal.SIGKILL)
        assert {c["Id"] for c in gateway.containers()} == {i["container"] for i in before.values()}
        restart(gateway)
        after = {i["id"]: i for i in gateway.instances()}
        assert after.keys() == before.keys()
        assert all(after[id]["age"] > before[id]["age"] for id in before)
        for name, host in hosts.items():
            answer = gateway.call(name)
            assert (answer.text, answer.headers["x-hearth-start"]) == (host, "warm")
        assert gateway.http.get("/invoke/site/").headers["x-hearth-start"] == "warm"
        assert gateway.prewarmed() == 1
        assert accounted(gateway)
