"""The record of calls over HTTP: what is shown, to whom, and what the filters leave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.access.access import OPEN, Admission, KeyHolder
from gateway.access.keys import create
from gateway.access.limits import UNLIMITED
from gateway.access.scopes import parse_scopes
from gateway.assembly.runtime import Runtime
from gateway.assembly.server import build_edge
from gateway.assembly.settings import Settings
from gateway.invoke.background import Behalf
from gateway.invoke.invocation import Invocation
from gateway.invoke.recent_calls import CallFacts, Failure, RecentCalls
from pool.clock import LoopClock
from pool.data_folder import DataFolder
from pool.engine.memory import MemoryEngine
from pool.instance import StartReason
from pool.lease import StartKind

KEY, MY_KEY = create("me", parse_scopes(["invoke:mine"]), UNLIMITED, None, 0.0)
READER, READER_KEY = create("reader", parse_scopes(["read"]), UNLIMITED, None, 0.0)
CALLER, CALLER_KEY = create("caller", parse_scopes(["invoke:*"]), UNLIMITED, None, 0.0)
RAISED = Failure("handler-raised", "function", "KeyError: 'name'")


class Asked:
    """A gateway that is not started, and someone who asks it."""

    def __init__(self, runtime: Runtime, client: httpx.AsyncClient) -> None:
        self.runtime = runtime
        self._client = client
        self._number = 0

    @property
    def record(self) -> RecentCalls:
        return self.runtime.gateway_floor.outcomes.recent

    def keep(
        self,
        function: str = "mine",
        failure: Failure | None = None,
        took: float = 0.001,
        start: str = "warm",
        admission: Admission = OPEN,
        ago: float = 0.0,
    ) -> str:
        """Keep a call that began so many seconds ago, and return its id."""
        self._number += 1
        id = f"abcd{self._number:04}" + 24 * "0"
        arrived = self.record.clock.now() - ago
        facts = CallFacts(id, function, "v1", arrived, start, 0.0, 0.0, took, admission, 200)
        if failure is None:
            self.record.keep_served(tuple(facts))
        else:
            self.record.keep_failed(facts._replace(status=500), failure)
        return id

    async def get(self, path: str, key: str = READER) -> httpx.Response:
        return await self._client.get(path, headers={"authorization": f"Bearer {key}"})

    async def listed(self, query: str = "", key: str = READER) -> list[dict[str, Any]]:
        answer = await self.get(f"/calls{query}", key)
        assert answer.status_code == 200, answer.text
        calls: list[dict[str, Any]] = answer.json()["calls"]
        return calls


@asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[Asked]:
    keys = [MY_KEY, READER_KEY, CALLER_KEY]
    runtime = Runtime(Settings(api_keys=keys), DataFolder(folder / "data"), MemoryEngine(LoopClock()))
    transport = httpx.ASGITransport(build_edge(runtime), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        yield Asked(runtime, client)
    await runtime.close()


async def test_a_failed_call_is_shown_with_everything_that_is_known(tmp_path: Path) -> None:
    async with gateway(tmp_path) as asked:
        reason = StartReason("the last one was evicted 40 s ago to make room for {other}", "resize")
        id = asked.keep(failure=RAISED, took=0.5, start=StartKind.of("cold", reason))
        shown = (await asked.get(f"/calls/{id}")).json()
    assert shown.pop("at").endswith("Z")
    assert shown == {
        "id": id,
        "kind": "sync",
        "function": "mine",
        "revision": "v1",
        "running": False,
        "status": 500,
        "outcome": "handler-raised",
        "blame": "function",
        "start": "cold",
        "cold_reason": "the last one was evicted 40 s ago to make room for resize",
        "queue": 0.0,
        "start_seconds": 0.0,
        "exec": 0.5,
        "total": 0.5,
        "key": None,
        "owner": None,
        "attempt": None,
        "error": {
            "slug": "handler-raised",
            "title": "The handler raised an exception",
            "detail": "KeyError: 'name'",
        },
    }


async def test_a_key_sees_calls_of_its_functions_only(tmp_path: Path) -> None:
    async with gateway(tmp_path) as asked:
        mine, other, unknown = asked.keep(), asked.keep("other"), asked.keep("", RAISED)
        assert [call["id"] for call in await asked.listed(key=KEY)] == [mine]
        assert [call["id"] for call in await asked.listed()] == [unknown, other, mine]
        assert (await asked.get(f"/calls/{other}", KEY)).status_code == 404
        assert (await asked.get(f"/calls/{mine}", KEY)).status_code == 200
        assert (await asked.get("/calls/abcd", KEY)).json()["id"] == mine, (
            "the others are none of its business"
        )
        assert (await asked.get("/calls/abcd")).status_code == 409


async def test_the_filter_comes_before_the_limit(tmp_path: Path) -> None:
    async with gateway(tmp_path) as asked:
        mine = [asked.keep() for _ in range(3)]
        for _ in range(100):
            asked.keep("other")
        assert [call["id"] for call in await asked.listed("?limit=2", KEY)] == mine[:0:-1]
        assert [call["id"] for call in await asked.listed("?limit=2&function=mine")] == mine[:0:-1]


async def test_a_name_that_the_key_may_not_see_is_in_no_reason(tmp_path: Path) -> None:
    async with gateway(tmp_path) as asked:
        asked.keep(start=StartKind.of("cold", StartReason("room for {other}", "secret")))
        assert [call["cold_reason"] for call in await asked.listed(key=KEY)] == ["room for another function"]
        assert [call["cold_reason"] for call in await asked.listed()] == ["room for secret"]


async def test_the_name_of_a_key_is_shown_to_itself_and_to_readers(tmp_path: Path) -> None:
    async with gateway(tmp_path) as asked:
        access = asked.runtime.gateway_floor.access
        me = access.admit_call([(b"authorization", f"Bearer {KEY}".encode())], b"/invoke/mine")
        assert isinstance(me, KeyHolder)
        asked.keep(admission=me)
        asked.keep(admission=KeyHolder(READER_KEY, 0.0))
        assert [call["key"] for call in await asked.listed()] == ["reader", "me"]
        assert [call["key"] for call in await asked.listed(key=KEY)] == [None, "me"]
        assert [call["key"] for call in await asked.listed(key=CALLER)] == [None, None]


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("?failed=true", ["fails"]),
        ("?slow=1s", ["slow"]),
        ("?since=1m", ["slow", "fails", "quick"]),
        ("?function=f&limit=1", ["slow"]),
        ("?limit=0", []),
        ("", ["slow", "fails", "quick", "old"]),
    ],
)
async def test_filters(tmp_path: Path, query: str, left: list[str]) -> None:
    async with gateway(tmp_path) as asked:
        names = {
            asked.keep("f", ago=3600.0): "old",
            asked.keep("f", ago=30.0): "quick",
            asked.keep("f", RAISED, ago=20.0): "fails",
            asked.keep("f", took=2.0, ago=10.0): "slow",
        }
        assert [names[call["id"]] for call in await asked.listed(query)] == left


@pytest.mark.parametrize(
    ("query", "about"),
    [("?slow=1", "query.slow: 1 has no unit"), ("?since=yesterday", "query.since: 'yesterday' is no time")],
)
async def test_a_filter_that_makes_no_sense_says_how_to_mend_it(
    tmp_path: Path, query: str, about: str
) -> None:
    async with gateway(tmp_path) as asked:
        answer = await asked.get(f"/calls{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(about)


async def test_the_times_of_the_latest_calls_are_summed_up_by_function(tmp_path: Path) -> None:
    async with gateway(tmp_path) as asked:
        for number in range(1, 101):
            asked.keep(took=number / 1000)
        asked.keep(took=9.0, ago=60.0)
        asked.keep("other", RAISED, took=0.5)
        asked.keep("", RAISED)
        assert (await asked.get("/calls/times")).json() == {
            "mine": {"calls": 100, "p50": 0.05, "p99": 0.099},
            "other": {"calls": 1, "p50": 0.5, "p99": 0.5},
        }
        assert (await asked.get("/calls/times?since=5m", KEY)).json()["mine"]["calls"] == 101
        assert (await asked.get("/calls/times?since=5m", KEY)).json().keys() == {"mine"}


async def test_a_call_that_runs_comes_first_and_has_no_outcome_yet(tmp_path: Path) -> None:
    async with gateway(tmp_path) as asked:
        asked.keep()
        runs = Invocation(asked.record.clock.now(), "mine")
        asked.record.running[runs.id] = runs
        first, second = await asked.listed()
        assert (first["id"], first["running"], first["outcome"]) == (runs.id, True, None)
        assert (second["running"], second["outcome"]) == (False, "ok")
        assert [call["id"] for call in await asked.listed("?failed=true")] == []


@pytest.mark.parametrize(
    ("owner", "kind"), [("", "async"), ("job:1", "task"), ("run:1/s", "step"), ("other:1", "async")]
)
async def test_an_accepted_call_says_what_it_is_a_part_of(tmp_path: Path, owner: str, kind: str) -> None:
    async with gateway(tmp_path) as asked:
        asked.keep(admission=Behalf(owner, 2))
        (shown,) = await asked.listed()
    assert (shown["kind"], shown["owner"], shown["attempt"]) == (kind, owner or None, 2)


async def test_a_follower_gets_what_ends_from_now_on(tmp_path: Path) -> None:
    async with gateway(tmp_path) as asked:
        before = [asked.keep() for _ in range(3)]
        following = asyncio.ensure_future(asked.get("/calls?follow=true&limit=2", KEY))
        await eventually(lambda: asked.record.clock.now() > 0 and not following.done())
        await asyncio.sleep(0.1)
        asked.keep("other")
        after = asked.keep(failure=RAISED)
        await asyncio.sleep(0.5)
        asked.runtime.scheduler_floor.dispatcher.draining = True
        answer = await following
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [event for event in answer.text.split("\n\n") if event.startswith("event: call\n")]
    told = [json.loads(event.partition("data: ")[2]) for event in events]
    assert [call["id"] for call in told] == [*before[1:], after]
    assert told[-1]["error"]["detail"] == RAISED.detail


async def test_a_follower_whose_key_may_see_less_now_gets_less(tmp_path: Path) -> None:
    async with gateway(tmp_path) as asked:
        following = asyncio.ensure_future(asked.get("/calls?follow=true", CALLER))
        await eventually(lambda: asked.record.followers == 1)
        before = asked.keep()
        await asyncio.sleep(0.5)
        holder = asked.runtime.gateway_floor.access.admit_request(
            [(b"authorization", f"Bearer {CALLER}".encode())], "GET", "/calls"
        )
        assert isinstance(holder, KeyHolder)
        holder.key = replace(holder.key, scopes=parse_scopes(["invoke:other"]))
        asked.keep()
        after = asked.keep("other")
        await asyncio.sleep(0.5)
        asked.runtime.scheduler_floor.dispatcher.draining = True
        answer = await following
    told = [
        part.partition("data: ")[2] for part in answer.text.split("\n\n") if part.startswith("event: call")
    ]
    assert [json.loads(call)["id"] for call in told] == [before, after]


async def test_a_detail_that_is_no_text_breaks_no_list(tmp_path: Path) -> None:
    async with gateway(tmp_path) as asked:
        asked.keep(failure=RAISED._replace(detail="half of a pair: \ud800"))
        assert [call["error"]["detail"] for call in await asked.listed()] == ["half of a pair: \\ud800"]


async def eventually(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)
