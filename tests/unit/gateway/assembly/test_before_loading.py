"""A gateway that listens already and does not yet know its functions."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from gateway.assembly.runtime import Runtime
from gateway.assembly.server import build_edge
from gateway.assembly.settings import Settings
from pool.clock import LoopClock
from pool.data_folder import DataFolder
from pool.engine.memory import MemoryEngine
from scheduler.definitions.file import Definitions


@pytest.mark.parametrize("headers", [{}, {"prefer": "respond-async"}])
async def test_a_call_of_a_function_that_may_yet_be_declared_is_told_to_come_again(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    runtime = Runtime(Settings(), DataFolder(tmp_path / "data"), MemoryEngine(LoopClock()))
    transport = httpx.ASGITransport(build_edge(runtime))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
            early = await client.post("/invoke/hello", headers=headers)
            await runtime.scheduler_floor.registry.apply(Definitions())
            late = await client.post("/invoke/hello", headers=headers)
    finally:
        await runtime.close()
    assert (early.status_code, early.json()["type"]) == (503, "urn:hearth:problem:no-capacity"), early.text
    assert early.headers["retry-after"] == "2"
    assert (late.status_code, late.json()["type"]) == (404, "urn:hearth:problem:no-such-function"), late.text
