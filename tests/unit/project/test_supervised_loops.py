"""Every background loop of the three floors runs under the supervisor, or says here why it need not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
FLOORS = ("gateway", "scheduler", "pool")
EXEMPT = ("pool/supervise.py", "pool/clock.py", "gateway/cli/")
"""The supervisor itself, virtual time, and commands, which are processes of their own."""

TASKS: dict[str, str] = {
    "runtime:Runtime.start": "it only starts supervised loops, and logs its own failure",
    "server:serve": "their end is the end of the gateway",
    "server:start": "awaited by the same function",
    "nats:NatsBroker.take": "awaited by the same function",
    "deliverer:Deliverer._run": "one delivery; every failure is recorded, and tried again",
    "pieces:in_time": "work of one request; its failure is logged if the request has ended",
    "endpoint:_Invocation._next": "awaited by the request",
    "endpoint:_Invocation._stream": "awaited by the request",
    "endpoint:_Invocation._wait.watch_client": "awaited by the request",
    "starter:Starter.unless_it_ends": "awaited by the same function",
    "docker_api:gather_bounded": "awaited by the same function",
    "memory_process:MemoryContainer.start": "a container of the engine in memory",
    "process_engine:ProcessEngine.start": "of one process; they end with it",
    "freezer:Freezer.freeze": "of one instance; every failure ends in a removal",
    "freezer:Freezer.thaw": "of one instance; every failure ends in a removal",
    "pool:Pool._spawn_start": "of one instance; every failure ends in a removal",
    "pool:Pool.remove": "of one instance; it tries until the container is gone",
    "attach_stream:AttachStream._lost": "of one instance; once it has ended without success, the instance is dead",
    "creation:create_surely": "awaited by the same function",
    "run:RunConnection._start": "ends with the body of its call, or with its answer",
    "piecewise:_unless_done": "awaited by the call",
    "recorder:Recorder._go_on": "one batch of ends; every failure is put off or left out",
    "running:TaskRun.__init__": "one run of a call; every failure is its result",
    "worker:Worker._lease": "awaited by the supervised loop",
    "function_images:_install": "awaited by the same function",
    "registry:Registry._set_up_all": "awaited by the same function",
    "trials:Trials.begin": "one trial of a revision; every failure is told",
    "jobs:Jobs._serve": "awaited by each who needs the function",
    "calls:SqliteCallStore.discard": "one removal; the next start makes up for it",
    "runs:WorkflowRuns.look_at": "one step of a run; every failure ends the run",
}
"""By module and function: why its tasks need no supervisor."""
LOOPS: dict[str, str] = {
    "file_events:kernel_changes": "part of the loops file-watch and source-watch",
    "file_polling:poll_changes": "part of the loops file-watch and source-watch",
    "deliverer:Deliverer._record": "asks the store until the end of one callback is recorded",
    "hijack:HijackedConnection.read": "ends with its connection",
    "process_engine:ProcessEngine.events": "ends with its listener",
    "pool:Pool._destroy_surely": "ends when one container is gone",
    "piecewise:_send_body": "ends with the body of its call",
}
"""By module and function: why its endless loop needs no supervisor."""


class Module(NamedTuple):
    """A module of the three floors."""

    name: str
    tree: ast.Module


def modules() -> Iterator[Module]:
    for floor in FLOORS:
        for file in sorted((ROOT / floor).rglob("*.py")):
            name = str(file.relative_to(ROOT))
            if not name.startswith(EXEMPT):
                yield Module(name, ast.parse(file.read_text()))


def functions(
    tree: ast.AST, prefix: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield every function with its qualified name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}{node.name}"
            if not isinstance(node, ast.ClassDef):
                yield name, node
            yield from functions(node, f"{name}.")


def own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a function without those of the functions in it."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            yield from own_nodes(node)


def makes_tasks(function: ast.AST) -> bool:
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("ensure_future", "create_task")
        for node in own_nodes(function)
    )


def is_endless(function: ast.AST) -> bool:
    """Return whether a coroutine has a loop with no end of its own."""
    return isinstance(function, ast.AsyncFunctionDef) and any(
        isinstance(node, ast.While) and isinstance(node.test, ast.Constant) and node.test.value
        for node in own_nodes(function)
    )


class Supervised(NamedTuple):
    """A loop that is given to a supervisor: its name, with NAME for what varies, and that of its function."""

    loop: str
    function: str


def supervised(tree: ast.AST) -> Iterator[Supervised]:
    """Yield every loop that is given to a supervisor."""
    for call in ast.walk(tree):
        if (
            isinstance(call, ast.Call)
            and ast.unparse(call.func).endswith("supervise")
            and len(call.args) == 2
        ):
            name, work = call.args
            if isinstance(work, ast.Call):  # functools.partial
                work = work.args[0]
            loop = re.sub(r"\{.*?\}", "NAME", ast.unparse(name).removeprefix("f")).strip("'")
            yield Supervised(loop, work.attr if isinstance(work, ast.Attribute) else ast.unparse(work))


def test_every_task_is_supervised_or_bound_to_something_that_ends() -> None:
    found = {
        f"{Path(module.name).stem}:{name}"
        for module in modules()
        for name, function in functions(module.tree)
        if makes_tasks(function)
    }
    assert found - TASKS.keys() == set(), "give it to Supervisor.supervise, or say here why not"
    assert TASKS.keys() - found == set(), "no longer needed here"


def test_every_endless_loop_is_supervised() -> None:
    everything = list(modules())
    under = {each.function for module in everything for each in supervised(module.tree)}
    found = {
        f"{Path(module.name).stem}:{name}"
        for module in everything
        for name, function in functions(module.tree)
        if is_endless(function) and name.rpartition(".")[2] not in under
    }
    assert found - LOOPS.keys() == set(), "give it to Supervisor.supervise, or say here why not"
    assert LOOPS.keys() - found == set(), "no longer needed here"
    assert len(under) >= 15, "the loops of a gateway are found"


def test_docs_name_every_loop() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    table = page.partition("### Loops")[2].partition("\n## ")[0]
    first_cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    written = set(re.findall(r"`([\w:-]+)`", " ".join(first_cells))) - {"loop"}
    assert written == {each.loop for module in modules() for each in supervised(module.tree)}
