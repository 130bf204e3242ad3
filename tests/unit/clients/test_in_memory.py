"""The gateway in memory: the same answers as `hearth.testing.invoke`, behind a real client."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import hearth
from hearth.in_memory import URL, InMemoryGateway, InMemoryTransport
from hearth.testing import invoke
from hearth.values import encode
from tests.support import handler_cases
from tests.support.handler_cases import CASES, Case

DIFFERENT_EACH_TIME = {"server-timing", "x-invocation-id"}


def shown(status: int, headers: httpx.Headers, body: bytes, complete: bool) -> list[Any]:
    """What of an answer must be equal."""
    invocation = headers["x-invocation-id"].encode()
    fields = sorted(field for field in headers.multi_items() if field[0] not in DIFFERENT_EACH_TIME)
    return [status, fields, body.replace(invocation, b"ID"), complete]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_handler_answers_as_in_a_test_of_its_own(case: Case) -> None:
    headers = {**case.headers, "x-case": case.handler}
    alone = invoke(
        handler_cases.handle, case.event, headers=headers, method=case.method, query=case.query, function="f"
    )
    body, fields = encode(case.event, headers)
    pieces, complete = b"", True
    transport = InMemoryTransport(InMemoryGateway({"f": handler_cases.handle}))
    with httpx.Client(base_url=URL, transport=transport) as http:
        target = "/invoke/f" + (f"?{case.query}" if case.query else "")
        with http.stream(case.method, target, content=body, headers=fields) as answer:
            try:
                for piece in answer.iter_raw():
                    pieces += piece
            except httpx.RemoteProtocolError:
                complete = False
        log = http.get(f"/invocations/{answer.headers['x-invocation-id']}/logs")
    told = (answer.status_code, answer.headers, b"" if case.method == "HEAD" else pieces, complete)
    assert shown(*told) == shown(alone.status, alone.headers, alone.body, alone.complete)
    assert (log.text if log.status_code == 200 else "") == alone.log


def test_a_handler_that_takes_too_long_is_a_timeout() -> None:
    let_go = threading.Event()
    with InMemoryGateway({"slow": lambda event, context: let_go.wait(10)}, timeout=0.1).client() as client:
        with pytest.raises(hearth.FunctionTimeout, match=r"slow ran past its timeout of 0\.1 s"):
            client.call("slow")
        let_go.set()


def test_a_stream_is_read_as_it_comes_and_told_when_nobody_reads_on() -> None:
    left = threading.Event()

    def numbers(event: Any, context: Any) -> Iterator[int]:
        try:
            n = 0
            while True:
                yield n
                n += 1
        finally:
            left.set()

    with InMemoryGateway({"numbers": numbers}).client() as client:
        with client.stream("numbers") as stream:
            values = stream.values()
            assert [next(values), next(values)] == [0, 1]
        assert left.wait(10)
        left.clear()
        with client.stream("numbers") as stream:
            assert stream.head.status == 200
        assert left.wait(10)


async def test_a_client_for_asyncio() -> None:
    async def double(event: Any, context: Any) -> Any:
        return event * 2

    async with InMemoryGateway({"double": double}).async_client() as client:
        assert await client.call("double", 2) == 4
        assert [value async for value in client.map("double", range(9))] == list(range(0, 18, 2))
        assert await (await client.submit("double", 3)).result(10) == 6


def test_what_it_does_not_have_is_named() -> None:
    with InMemoryGateway({}).client() as client:
        assert client.functions() == []
        with pytest.raises(
            hearth.NotFound, match="the gateway in memory has no POST /events; use a real one"
        ):
            client.emit("a")


def test_a_cut_answer_of_an_accepted_call_is_the_function_s_fault() -> None:
    gateway = InMemoryGateway({"f": handler_cases.fails_later})
    with gateway.client() as client, pytest.raises(hearth.FunctionError) as raised:
        client.submit("f").result(10)
    assert raised.value.slug == "instance-died"


def test_map_never_has_more_calls_at_once() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def handle(event: Any, context: Any) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        pause.wait(0.01)
        with lock:
            running -= 1
        return event

    pause, taken = threading.Event(), []

    def items() -> Iterator[int]:
        for n in range(60):
            taken.append(n)
            yield n

    with InMemoryGateway({"f": handle}).client() as client:
        results = client.map("f", items(), concurrency=3)
        assert next(results) == 0
        assert len(taken) <= 3 * 4 + 1  # it takes no more ahead
        assert list(results) == list(range(1, 60))
    assert 1 < most <= 3
