"""An instance may say anything: every call ends in an answer, in `MalformedAnswer` or in `InstanceDied`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE

from gateway.http.answer_headers import response_headers
from gateway.http.problems import problem_of
from pool.contracts.handler import HANDLER, take_exec_seconds
from pool.errors import AnswerFault, InstanceDied, MalformedAnswer
from pool.observe.logs import TRUNCATED, InstanceLog, LogStore
from pool.transport.connection import HttpConnection
from pool.transport.message import Call
from tests.support.wire import CUTS, LOOK_HARDER, Wire, bodies, fields, pieces, spoiled, turns

STATUS_LINES = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 200\r\n",
    b"HTTP/1.0 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n",
    b"HTTP/1.1 103 Early Hints\r\n",
    b"HTTP/1.1 204 No Content\r\n",
    b"HTTP/1.1 304 Not Modified\r\n",
    b"HTTP/1.1 500 No\r\n",
    b"HTTP/1.1 600 No\r\n",
    b"HTTP/1.1 000 No\r\n",
    b"HTTP/1.1 99 No\r\n",
    b"HTTP/1.1 2000 No\r\n",
    b"HTTP/2.0 200 OK\r\n",
]
ANSWERS = st.tuples(st.sampled_from(STATUS_LINES), fields(), bodies()).map(b"".join)
SAID = st.one_of(spoiled(ANSWERS), st.binary(max_size=100))
Fate = tuple[Any, ...]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """One loop for all examples; a fault in one of its callbacks fails the test."""
    with asyncio.Runner() as runner:
        yield runner


def fate(runner: asyncio.Runner, said: list[bytes], method: bytes) -> Fate:
    """What becomes of a call whose instance says this and then closes."""
    faults: list[object] = []
    runner.get_loop().set_exception_handler(lambda _, context: faults.append(context))
    found = runner.run(asyncio.wait_for(call(said, method), 60))
    assert faults == []
    return found


async def call(said: list[bytes], method: bytes) -> Fate:
    connection = HttpConnection()
    wire = Wire(connection)
    answering = asyncio.ensure_future(whole(connection, Call(method, b"/", [(b"host", b"a")])))
    await turns()
    for piece in said:
        await wire.receive(piece)
    wire.close()
    return await answering


async def whole(connection: HttpConnection, request: Call) -> Fate:
    try:
        answer = await connection.exchange(request)
        body = b""
        while piece := await answer.read():
            body += piece
    except (MalformedAnswer, InstanceDied) as error:
        return (type(error),)
    finally:
        await turns(20)
        assert not (connection.finish() and connection.open)
    return answer.status, answer.headers, body


@LOOK_HARDER
@given(said=SAID, cuts=CUTS, method=st.sampled_from([b"POST", b"HEAD"]))
@example(
    said=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    cuts=[],
    method=b"POST",
)
def test_every_call_ends_whatever_the_instance_says(
    loop: asyncio.Runner, said: bytes, cuts: list[int], method: bytes
) -> None:
    """And it ends in the same way in whatever pieces the bytes come."""
    in_one, in_pieces = (fate(loop, each, method) for each in ([said], pieces(said, cuts)))
    assert in_one == in_pieces
    if len(in_one) == 3:
        status, headers, body = in_one
        assert 200 <= status <= 599
        for name, value in response_headers(headers, web=True):
            assert not HEADER_RE.search(name), "the server would refuse to send it"
            assert not HEADER_VALUE_RE.search(value), "the server would refuse to send it"
        assert all(int(value) >= 0 for name, value in headers if name == b"content-length")
        if method == b"HEAD" or status in (204, 304):
            assert body == b""


class Report:
    """The answer of a shim that user code has taken over."""

    complete = True

    def __init__(self, status: int, outcome: bytes, body: bytes) -> None:
        self.status = status
        self.headers = [(b"x-hearth-outcome", outcome), (b"x-hearth-exec", body)]
        self._body = body

    def take(self) -> bytes:
        body, self._body = self._body, b""
        return body

    async def read(self) -> bytes:
        return self.take()


VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
REPORTS = st.one_of(
    st.binary(max_size=200),
    VALUE.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries({"type": VALUE, "message": VALUE}).map(lambda report: json.dumps(report).encode()),
)


@given(
    status=st.sampled_from([400, 500]), outcome=st.sampled_from([b"raised", b"bad-json", b"?"]), body=REPORTS
)
@example(status=500, outcome=b"raised", body=b"[" * 60_000)
@example(status=500, outcome=b"raised", body=b'{"type": "\\ud800", "message": "\\udfff"}')
@example(status=500, outcome=b"raised", body=b"x" * 100_000)
@example(status=500, outcome=b"raised", body=b'{"type": ' + b"9" * 5000 + b', "message": 1}')
def test_a_report_of_a_shim_becomes_a_problem(
    loop: asyncio.Runner, status: int, outcome: bytes, body: bytes
) -> None:
    """Never a fault of ours, and never one that cannot be sent."""
    answer = Report(status, outcome, body)
    seconds = take_exec_seconds(answer.headers)
    assert seconds is None or 0 <= seconds < float("inf")
    with pytest.raises((AnswerFault, MalformedAnswer)) as caught:
        loop.run(HANDLER.check_answer(answer))
    problem = problem_of(caught.value)
    assert problem.slug in ("handler-raised", "bad-request", "contract-broken")
    told = json.loads(problem.body("1"))
    assert told["status"] == problem.status


@given(st.lists(st.binary(max_size=30), max_size=30), st.integers(1, 50))
def test_an_instances_log_is_its_latest_bytes(written: list[bytes], limit: int) -> None:
    log = InstanceLog(limit)
    for data in written:
        log.write(data)
    assert log.read() == b"".join(written)[-limit:]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.binary(max_size=30)), max_size=40))
def test_logs_stay_within_their_bounds(written: list[tuple[str, bytes]]) -> None:
    logs = LogStore(per_invocation=40, total=100, remembered=4)
    for invocation, data in written:
        logs.write(invocation, data)
        kept = [logs.read(name) for name in "abcdef"]
        known = [log for log in kept if log is not None]
        assert len(known) <= 4
        assert sum(map(len, known)) <= 100 or len(known) == 1
        assert all(len(log.removesuffix(TRUNCATED)) <= 40 for log in known)
