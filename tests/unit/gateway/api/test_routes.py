"""The routes are made once, and serve each gateway with its own parts."""

from __future__ import annotations

import ast
from pathlib import Path

import httpx

from gateway.api.routes import api_routes
from gateway.assembly.runtime import Runtime
from gateway.assembly.settings import Settings
from gateway.edge.app import build_app
from pool.clock import LoopClock
from pool.data_folder import DataFolder
from pool.engine.memory import MemoryEngine
from scheduler.definitions.file import FunctionDefinition
from scheduler.deploy.declared import Declared

GATEWAY = Path(__file__).parents[4] / "gateway"


async def test_two_gateways_in_a_process_answer_each_of_its_own_functions(tmp_path: Path) -> None:
    engine = MemoryEngine(LoopClock())
    runtimes = [Runtime(Settings(), DataFolder(tmp_path / name), engine) for name in ("one", "two")]
    apps = [build_app(runtime.api_parts) for runtime in runtimes]
    for runtime in runtimes:
        name = runtime.folder.path.name
        definition = FunctionDefinition(name=name, runtime="python", source="x", handler="a:b")
        runtime.scheduler_floor.registry.declared[name] = Declared(definition, state="ready")
    shown = []
    for app in apps:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            shown.append([function["name"] for function in (await client.get("/functions")).json()])
    for runtime in runtimes:
        await runtime.close()
    assert shown == [["one"], ["two"]]


def test_every_route_is_a_function_of_a_module() -> None:
    assert len(api_routes()) > 40
    for route in api_routes():
        assert "<locals>" not in route.endpoint.__qualname__
    for path in GATEWAY.rglob("*.py"):
        for outer in ast.walk(ast.parse(path.read_text())):
            if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef):
                inner = [node for node in ast.walk(outer) if node is not outer]
                assert not any(map(is_route, inner)), f"{path}: {outer.name} makes routes"


def is_route(node: ast.AST) -> bool:
    """Return whether a node is a function that a decorator makes a route: `@router.get(…)`."""
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(
        isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Attribute)
        and decorator.func.attr in {"get", "post", "put", "patch", "delete", "exception_handler"}
        for decorator in node.decorator_list
    )
