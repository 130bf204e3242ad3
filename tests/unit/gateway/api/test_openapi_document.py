"""The OpenAPI document is made once for all who see the same, and sent again only where it has changed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from gateway.access.access import KEYLESS, OPEN, KeyHolder
from gateway.access.key_file import KeyFile
from gateway.access.keys import create
from gateway.access.limits import UNLIMITED
from gateway.access.scopes import parse_scopes
from gateway.api.openapi_document import KEPT, MOST_WAITING, Documents, is_known
from gateway.assembly.runtime import Runtime
from gateway.assembly.settings import Settings
from gateway.edge.app import build_app
from gateway.http.problems import Problem
from pool.clock import LoopClock
from pool.data_folder import DataFolder
from pool.engine.memory import MemoryEngine
from scheduler.definitions.file import FunctionDefinition
from scheduler.deploy.declared import Declared


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    made = Runtime(Settings(), DataFolder(tmp_path / "data"), MemoryEngine(LoopClock()))
    yield made
    await made.close()


@pytest.fixture
async def client(runtime: Runtime) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(build_app(runtime.api_parts))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as made:
        yield made


def declare(runtime: Runtime, *names: str) -> None:
    for name in names:
        definition = FunctionDefinition(name=name, runtime="python", source="x", handler="a:b")
        runtime.scheduler_floor.registry.declared[name] = Declared(definition, state="ready")


class SlowReader(KeyHolder):
    """A reader whose document takes as long as the test wants."""

    free: threading.Event

    def may_name(self, function: str) -> bool:
        assert self.free.wait(30)
        return super().may_name(function)


def slow(word: str, free: threading.Event) -> SlowReader:
    reader = SlowReader(holder(word).key, 0.0)
    reader.free = free
    return reader


def holder(*words: str) -> KeyHolder:
    return KeyHolder(create("k", parse_scopes(words), UNLIMITED, None, 0.0)[1], 0.0)


async def test_who_sees_nothing_makes_nobody_look_at_all_functions(runtime: Runtime) -> None:
    """With 5,000 functions that took 20 ms of the event loop for each request, and needs no key."""
    documents = Documents(build_app(runtime.api_parts))
    declare(runtime, "hello")
    first = await documents.of(KEYLESS)
    declare(runtime, "another")
    assert await documents.of(KEYLESS) is first
    assert documents.made == 1


async def test_it_is_made_once_until_something_changes(runtime: Runtime) -> None:
    documents = Documents(build_app(runtime.api_parts))
    declare(runtime, "hello")
    first = await documents.of(OPEN)
    assert all([await documents.of(OPEN) is first for _ in range(50)])
    assert documents.made == 1
    runtime.scheduler_floor.registry.declared["hello"].state = "failed"
    second = await documents.of(OPEN)
    assert b"`hello` (failed)" in second.body
    assert first.tag != second.tag


async def test_who_asks_at_once_shares_one(runtime: Runtime) -> None:
    documents = Documents(build_app(runtime.api_parts))
    served = await asyncio.gather(*(documents.of(OPEN) for _ in range(MOST_WAITING)))
    assert len(set(map(id, served))) == documents.made == 1


async def test_each_reader_sees_its_own_functions_and_no_others(runtime: Runtime) -> None:
    documents = Documents(build_app(runtime.api_parts))
    declare(runtime, "shop-a", "shop-b", "till")
    for reader, seen in (
        (OPEN, {"shop-a", "shop-b", "till"}),
        (KEYLESS, set()),
        (holder("invoke:shop-*"), {"shop-a", "shop-b"}),
        (holder("invoke:till"), {"till"}),
        (holder("read"), {"shop-a", "shop-b", "till"}),
    ):
        body = (await documents.of(reader)).body
        assert {name for name in ("shop-a", "shop-b", "till") if f'"{name}"'.encode() in body} == seen
    assert documents.made == 4, "who sees everything has the same document, with a key or without"


async def test_few_are_kept_and_few_wait(runtime: Runtime) -> None:
    documents = Documents(build_app(runtime.api_parts))
    readers = [holder(f"invoke:f{number}") for number in range(KEPT + 1)]
    for reader in (*readers, readers[-1], readers[0]):
        await documents.of(reader)
    assert documents.made == KEPT + 2, "the first was forgotten, the last was not"

    declare(runtime, "hello")
    free = threading.Event()
    waiting = [asyncio.ensure_future(documents.of(slow(f"invoke:g{n}", free))) for n in range(MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Problem, match="being made for many others"):
        await documents.of(holder("invoke:h"))
    free.set()
    await asyncio.gather(*waiting)


async def test_it_is_not_sent_again_to_who_has_it(runtime: Runtime, client: httpx.AsyncClient) -> None:
    answer = await client.get("/openapi.json")
    tag = answer.headers["etag"]
    assert answer.headers["cache-control"] == "private, no-cache"
    again = await client.get("/openapi.json", headers={"if-none-match": f'"other", W/{tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    declare(runtime, "hello")
    changed = await client.get("/openapi.json", headers={"if-none-match": tag})
    assert changed.status_code == 200
    assert "hello" in changed.text


async def test_the_first_key_changes_what_it_says(runtime: Runtime) -> None:
    documents = Documents(build_app(runtime.api_parts))
    before = await documents.of(OPEN)
    KeyFile(runtime.folder.path).add(create("k", parse_scopes(["read"]), UNLIMITED, None, 0.0)[1])
    runtime.gateway_floor.access.look()
    assert (await documents.of(OPEN)).tag != before.tag


@pytest.mark.parametrize(
    ("fields", "known"),
    [
        ([], False),
        (['"a"'], True),
        (['W/"a"'], True),
        (['"b", "a"'], True),
        (['"b"', '"a"'], True),
        (["*"], True),
    ],
)
def test_if_none_match(fields: list[str], known: bool) -> None:
    assert is_known(fields, '"a"') is known
