"""Functions that never become ready: they keep their own callers waiting, and nobody else."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from catalogue import code_of
from harness import Gateway, eventually, handler, server

pytestmark = pytest.mark.engine

ECHO = "def handle(event, context):\n    return event\n"
DEAF = "import time; time.sleep(3600)"
WAIT = {"queue_timeout": "3s"}


@pytest.mark.parametrize(
    "never",
    [
        handler(code_of("slow-import"), **WAIT),
        handler(code_of("slow-import"), memory="64MiB", **WAIT),
        server(DEAF, **WAIT),
    ],
    ids=[
        "import in a prewarmed instance",
        "import in an instance of its own",
        "a server that does not listen",
    ],
)
def test_what_never_becomes_ready_holds_no_start_of_others_up(tmp_path: Path, never: Mapping[str, object]):
    others = {f"other-{n}": handler(ECHO, memory=f"{96 + n}MiB") for n in range(3)}
    with (
        Gateway(tmp_path, {"never": never, **others}, prewarm={"python": 1}) as gateway,
        ThreadPoolExecutor(4) as threads,
    ):
        eventually(lambda: gateway.prewarmed() == 1)
        calls = [threads.submit(gateway.call, "never") for _ in range(4)]
        eventually(lambda: gateway.pool("never")["queue_depth"] == 4)
        for name in others:
            assert gateway.call(name, name).text == name
        assert not any(call.done() for call in calls), "it was over before it was measured"
        for call in calls:
            problem = call.result().json()
            assert (problem["status"], problem["type"]) == (503, "urn:hearth:problem:not-ready")
            assert "still being imported" in problem["detail"] or "nothing accepts" in problem["detail"]
        assert len(gateway.instances("never")) <= 2
        eventually(lambda: gateway.prewarmed() == 1)
