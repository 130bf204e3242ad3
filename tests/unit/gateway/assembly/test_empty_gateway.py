"""A gateway that has kept nothing yet: every list is there, and empty."""

from __future__ import annotations

from pathlib import Path

import httpx

from gateway.assembly.runtime import Runtime
from gateway.assembly.settings import Settings
from gateway.edge.app import build_app
from pool.clock import LoopClock
from pool.data_folder import DataFolder
from pool.engine.memory import MemoryEngine


async def test_no_route_fails_where_nothing_was_kept(tmp_path: Path) -> None:
    """Each GET of the document, with an id that nobody has."""
    runtime = Runtime(Settings(), DataFolder(tmp_path / "data"), MemoryEngine(LoopClock()))
    app = build_app(runtime.api_parts)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
            paths = (await client.get("/openapi.json")).json()["paths"]
            found = {}
            for path, methods in paths.items():
                if "get" not in methods or path.startswith("/invoke/"):
                    continue
                answer = await client.get(path.replace("{", "").replace("}", ""))
                found[path] = answer.status_code
                if "{" not in path and path != "/readyz":
                    assert answer.status_code == 200, (path, answer.text)
                else:
                    assert answer.status_code in (404, 422, 503), (path, answer.text)
    finally:
        await runtime.close()
    assert {"/jobs", "/runs", "/invocations", "/dead-letters"} <= found.keys()
    assert not runtime.scheduler_floor.stores.calls.exists
