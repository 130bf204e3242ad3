"""A checked function refuses what does not fit before the call gets an instance; others go as before."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.invoke.fast_call import FastCall
from scheduler.definitions.input_check import InputCheck
from tests.harness import sum_of
from tests.support.warm_call_loop import ANSWER, WarmCall

CHECK = InputCheck({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]})


@pytest.fixture
async def call() -> AsyncIterator[WarmCall]:
    call = WarmCall()
    await call.start()
    yield call
    await call.close()


async def send(call: WarmCall, *pieces: bytes, kind: bytes = b"application/json") -> tuple[int, Any]:
    """Send a request with this body, and let the instance answer if it is asked. Return status and body."""
    call.client.written.clear()
    call.link.transport.written.clear()
    size = sum(map(len, pieces))
    head = b"POST /invoke/hello HTTP/1.1\r\nhost: 127.0.0.1:8080\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
    for piece in (head % (kind, size), *pieces):
        call.protocol.data_received(piece)
        await settle()
    for _ in range(100):
        if call.link.transport.written and not call.client.written:
            call.link.connection.data_received(ANSWER)
        await asyncio.sleep(0.01 if size > 65536 else 0)
        if call.client.written:
            break
    await settle()
    answer, _, body = b"".join(call.client.written).partition(b"\r\n\r\n")
    return int(answer.split()[1]), json.loads(body)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_fits_is_sent_on_as_it_came(call: WarmCall) -> None:
    call.limit(check=CHECK)
    assert await send(call, b'{"name": ', b'"Ada"}') == (200, {"message": "Hello, Ada!"})
    assert b"".join(call.link.transport.written).endswith(b'\r\n\r\n{"name": "Ada"}')
    assert not isinstance(call.protocol.cycle, FastCall)


async def test_what_does_not_fit_never_reaches_an_instance(call: WarmCall) -> None:
    call.limit(check=CHECK)
    status, problem = await send(call, b'{"name": 3}')
    assert call.link.transport.written == []
    assert (status, problem["type"], problem["blame"]) == (422, "urn:hearth:problem:input-mismatch", "caller")
    assert problem["pointer"] == "/name"
    assert (
        problem["detail"] == 'the input of hello does not fit its schema at /name: 3 is not of type "string"'
    )
    status, problem = await send(call, b"{}", kind=b"text/plain")
    assert (status, problem["pointer"]) == (422, "")
    text = call.metrics.registry.text().decode()
    assert sum_of(text, "hearth_invocations_total", {"function": "hello", "outcome": "input-mismatch"}) == 2


async def test_a_large_input_is_checked_whole(call: WarmCall) -> None:
    call.limit(check=CHECK, max_body=262144)
    good = json.dumps({"name": 200_000 * "a"}).encode()
    assert (await send(call, good[:99_000], good[99_000:]))[0] == 200
    bad = json.dumps({"name": [200_000 * "a"]}).encode()
    status, problem = await send(call, bad[:99_000], bad[99_000:])
    assert (status, problem["pointer"]) == (422, "/name")
    assert len(problem["detail"]) < 400
    assert (await send(call, b" " * 262145))[0] == 413


async def test_a_check_begins_and_ends_without_a_new_revision(call: WarmCall) -> None:
    revision = call.dispatcher.revision_for("hello")
    assert revision is not None and revision.fast_path
    call.limit(check=CHECK)
    assert call.dispatcher.revision_for("hello") is revision and not revision.fast_path
    assert (await send(call, b"3"))[0] == 422
    call.limit()
    assert revision.fast_path
    assert (await send(call, b"3"))[0] == 200
    assert isinstance(call.protocol.cycle, FastCall)
