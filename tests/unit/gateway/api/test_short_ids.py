"""The first digits of an id stand for it, for every kind of id, and never tell of what the caller may not see."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.access.keys import create
from gateway.access.limits import UNLIMITED
from gateway.access.scopes import parse_scopes
from gateway.assembly.runtime import Runtime
from gateway.assembly.server import build_edge
from gateway.assembly.settings import Settings
from pool.clock import LoopClock
from pool.data_folder import DataFolder
from pool.engine.memory import MemoryEngine
from pool.instance import Instance, new_instance_id
from scheduler.definitions.jobs import JobDefinition
from scheduler.definitions.workflows import StepDefinition, WorkflowDefinition
from scheduler.work import NewCall, NewJob, NewRun, Request
from scheduler.workflows.values import EMPTY_BODY

MINE, OTHER = "abcd1" + 27 * "0", "abcd2" + 27 * "0"
"""Ids of what the function `mine` does, and of what the function `other` does."""
TWIN = "abcd1f" + 26 * "0"
KEY, MY_KEY = create("me", parse_scopes(["invoke:mine"]), UNLIMITED, None, 0.0)
READER, READER_KEY = create("reader", parse_scopes(["read", "deploy", "invoke:*"]), UNLIMITED, None, 0.0)


@asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[tuple[Runtime, Callable[..., Any]]]:
    """A gateway that is not started, with two keys, and a way to ask it: `ask(method, path, key)`."""
    runtime = Runtime(
        Settings(api_keys=[MY_KEY, READER_KEY]), DataFolder(folder / "data"), MemoryEngine(LoopClock())
    )
    transport = httpx.ASGITransport(build_edge(runtime), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:

        async def ask(path: str, key: str = READER, method: str = "GET") -> httpx.Response:
            return await client.request(method, path, headers={"authorization": f"Bearer {key}"})

        yield runtime, ask
    await runtime.close()


async def accept(runtime: Runtime, *calls: tuple[str, str]) -> None:
    """Accept calls of these ids and functions."""
    for id, function in calls:
        await runtime.api_parts.calls.accept(NewCall(id, function, Request(), b""), 0.0)


async def begin_a_run(runtime: Runtime, id: str, function: str) -> None:
    workflow = WorkflowDefinition(steps={"s": StepDefinition(function=function)})
    await runtime.api_parts.runs.store.begin(NewRun(id, "w", workflow, EMPTY_BODY), 0.0)


async def begin_a_job(runtime: Runtime, id: str, function: str) -> None:
    definition = JobDefinition.model_validate({"function": function, "count": 1})
    await runtime.api_parts.jobs.store.begin(NewJob(id=id, definition=definition, parallel=1), 0.0)


async def accept_a_call(runtime: Runtime, id: str, function: str) -> None:
    await accept(runtime, (id, function))


@pytest.mark.parametrize(
    ("path", "begin"),
    [("/invocations", accept_a_call), ("/runs", begin_a_run), ("/jobs", begin_a_job)],
    ids=["invocations", "runs", "jobs"],
)
async def test_a_short_id_stands_for_one_that_the_caller_may_see(
    tmp_path: Path, path: str, begin: Callable[[Runtime, str, str], Any]
) -> None:
    async with gateway(tmp_path) as (runtime, ask):
        assert (await ask(f"{path}/abcd")).status_code == 404, "there is no store yet"
        await begin(runtime, MINE, "mine")
        await begin(runtime, OTHER, "other")
        assert (await ask(f"{path}/abcd1")).json()["id"] == MINE
        ambiguous = await ask(f"{path}/abcd")
        assert ambiguous.status_code == 409
        assert ambiguous.json()["type"] == "urn:hearth:problem:ambiguous-id"
        assert ambiguous.json()["detail"].endswith(f": {MINE}, {OTHER}")
        assert (await ask(f"{path}/abcd", KEY)).json()["id"] == MINE, "the other is none of its business"
        assert (await ask(f"{path}/abcd2", KEY)).status_code == 404
        for unknown in ("abcd3", "abc", "ABCD1", "abcg", "abcd%25", f"{MINE}0"):
            assert (await ask(f"{path}/{unknown}")).status_code == 404, unknown
        assert (await ask(f"{path}/{MINE}")).json()["id"] == MINE


async def test_a_short_id_serves_where_something_is_changed(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (runtime, ask):
        await accept(runtime, (MINE, "mine"), (TWIN, "mine"))
        assert (await ask("/invocations/abcd1", KEY, "DELETE")).status_code == 409, "it cancels neither"
        cancelled = await ask("/invocations/abcd1f", KEY, "DELETE")
        assert (cancelled.json()["id"], cancelled.json()["status"]) == (TWIN, "cancelled")
        assert (await ask(f"/invocations/{MINE}")).json()["status"] == "queued"


async def test_a_problem_names_a_few_candidates_only(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (runtime, ask):
        await accept(runtime, *((f"abcd{number:02}" + 26 * "0", "mine") for number in range(50)))
        detail = (await ask("/invocations/abcd", KEY)).json()["detail"]
    assert detail.count("abcd") == 6 and detail.endswith(", …")


async def test_the_log_of_an_invocation_is_found_by_a_short_id(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (runtime, ask):
        runtime.api_parts.logs.write(MINE, b"said")
        assert (await ask("/invocations/abcd/logs")).text == "said"
        await accept(runtime, (MINE, "mine"), (OTHER, "other"))
        assert (await ask("/invocations/abcd/logs")).status_code == 409
        assert (await ask("/invocations/abcd1/logs")).text == "said", "known twice, it is one"
        assert (await ask("/invocations/abcd2/logs")).text == ""


async def test_an_instance_is_found_by_a_short_id_and_by_its_own(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (runtime, ask):
        made = Instance(new_instance_id(), "python", 0, None, 0.0)
        runtime.api_parts.pool.ledger.add(made)
        for id in (made.id[:4], made.id):
            assert (await ask(f"/pool/instances/{id}")).json()["id"] == made.id
        assert (await ask(f"/pool/instances/{made.id[:3]}")).status_code == 404
