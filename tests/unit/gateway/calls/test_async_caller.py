"""Accepted calls over the gateway's own way to an instance, without sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.api.calls.views import result_headers
from scheduler.calls.model import Query, Status
from tests.support.accepted_run_loop import SLOTS, AcceptedRuns, Answering

CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"
UNTYPED = b"HTTP/1.1 200 OK\r\nx-own: 1\r\n"


@pytest.mark.parametrize("most", [99, 100])
async def test_of_an_answer_that_is_too_large_to_be_kept_nothing_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """It comes in chunks, bit by bit: how much there will be is not known before."""
    monkeypatch.setattr("gateway.invoke.endpoint.LARGEST_KEPT", most)
    floor = AcceptedRuns(tmp_path / "calls.db")
    await floor.start()

    def in_two_pieces(instance: Answering, _: bytes) -> None:
        for piece in (CHUNKED, 10 * (b"a\r\n" + 10 * b"x" + b"\r\n") + b"0\r\n\r\n"):
            asyncio.get_running_loop().call_soon(instance.connection.data_received, piece)

    monkeypatch.setattr(Answering, "write", in_two_pieces)
    await floor.accept(1)
    status = Status.SUCCEEDED if most == 100 else Status.DEAD
    await floor.until_all_have_run(status)
    [record] = (await floor.store.page(Query(statuses=(status,), limit=1))).records
    result = await floor.store.result(record.id)
    assert result is not None
    if most == 100:
        assert result.body == 100 * b"x"
    else:
        assert (record.error, record.blame) == ("contract-broken", "function")
        assert "over 99 bytes (no more is kept of an accepted call's)" in record.detail
    await floor.close()


@pytest.mark.parametrize(
    "said",
    [
        UNTYPED + b"content-length: 2\r\n\r\n{}",
        UNTYPED + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ],
    ids=["whole", "in chunks"],
)
@pytest.mark.parametrize("status", [b"200", b"400"], ids=["fast path", "long way"])
async def test_an_answer_without_a_type_is_kept_so_and_shown_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes, status: bytes
) -> None:
    """A workflow guesses what it is, and a browser must not."""
    floor = AcceptedRuns(tmp_path / "calls.db")
    await floor.start()
    answer = said.replace(b"200", status, 1)
    monkeypatch.setattr(
        Answering,
        "write",
        lambda instance, _: asyncio.get_running_loop().call_soon(instance.connection.data_received, answer),
    )
    await floor.accept(1)
    ended = Status.SUCCEEDED if status == b"200" else Status.FAILED
    await floor.until_all_have_run(ended)
    [record] = (await floor.store.page(Query(statuses=(ended,), limit=1))).records
    result = await floor.store.result(record.id)
    assert result is not None
    assert b"content-type" not in dict(result.headers)
    shown = result_headers(result, record)
    assert [value for name, value in shown if name == b"content-type"] == [b"application/octet-stream"]
    assert dict(shown)[b"content-length"] == b"2"
    await floor.close()


@pytest.mark.parametrize("draining", [False, True])
async def test_a_call_that_is_interrupted_in_the_queue_is_no_fault_of_a_caller(
    tmp_path: Path, draining: bool
) -> None:
    floor = AcceptedRuns(tmp_path / "calls.db")
    await floor.start()
    function = floor.edge.dispatcher.functions["hello"]
    slots = [lease for _ in range(SLOTS) if (lease := floor.edge.take_slot())]
    assert len(slots) == SLOTS
    await floor.accept(1)
    floor.worker.notify()
    while not function.waiting:
        await asyncio.sleep(0)
    [waiting] = (await floor.store.page(Query(statuses=(Status.RUNNING,)))).records
    floor.edge.dispatcher.draining = draining
    assert await floor.worker.cancel(waiting.id)
    for lease in slots:
        floor.edge.dispatcher.release(lease)
    outcome = ("draining", "platform") if draining else ("cancelled", "none")
    count = floor.edge.metrics.invocations.value_of
    assert count("hello", *outcome) == 1
    assert count("hello", "client-gone", "caller") == 0
    await floor.close()


async def test_a_call_that_is_interrupted_while_it_runs_counts_as_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    floor = AcceptedRuns(tmp_path / "calls.db")
    await floor.start()
    sent = asyncio.Event()
    monkeypatch.setattr(Answering, "write", lambda instance, data: sent.set())
    await floor.accept(1)
    floor.worker.notify()
    await sent.wait()
    [runs] = (await floor.store.page(Query(statuses=(Status.RUNNING,)))).records
    assert await floor.worker.cancel(runs.id)
    assert floor.edge.metrics.invocations.value_of("hello", "cancelled", "none") == 1
    await floor.close()
