"""A client may say anything: what reaches an instance is read by any parser as we have read it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from typing import Any

import h11
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from gateway.edge.client_limits import ClientLimits
from gateway.edge.client_protocol import ClientProtocol
from gateway.http.forwarding import cgi_variables, request_headers, target_of
from gateway.http.problems import Problem
from gateway.invoke.body import ClientGone, RequestBody
from pool.transport.connection import HttpConnection
from pool.transport.message import Call
from tests.support.wire import CUTS, LOOK_HARDER, Wire, bodies, fields, pieces, spoiled, turns

REQUEST_LINES = [
    b"POST /invoke/f HTTP/1.1\r\nHost: a\r\n",
    b"POST /invoke/f/a%0d%0ab?c=%00 HTTP/1.1\r\nHost: a\r\n",
    b"GET /invoke/f/../..//x HTTP/1.1\r\nHost: a\r\n",
    b"POST /invoke/f HTTP/1.1\r\n",
    b"POST /invoke/f HTTP/1.0\r\n",
    b"POST http://b/invoke/f HTTP/1.1\r\nHost: a\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n",
    b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n",
    b"GET /invoke/f\r\n",
]
REQUESTS = st.tuples(st.sampled_from(REQUEST_LINES), fields(), bodies()).map(b"".join)
SAID = st.one_of(spoiled(REQUESTS), st.binary(max_size=100))
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
Forwarded = tuple[bytes, bytes, bytes]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


class Edge:
    """Forwards every request to an instance of its own, and notes what that instance would read."""

    def __init__(self, read_ahead: int) -> None:
        self._read_ahead = read_ahead
        self.forwarded: list[Forwarded] = []

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        status = 200
        try:
            self.forwarded.append(await self._forward(scope, receive))
        except Problem as problem:
            status = problem.status
        except ClientGone:
            return
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def _forward(self, scope: Mapping[str, Any], receive: Any) -> Forwarded:
        target = target_of(scope["raw_path"].removeprefix(b"/invoke/f"), scope["query_string"])
        body = RequestBody(receive, scope, 10_000)
        headers = request_headers(scope, b"id", 1.0)
        for name, value in cgi_variables(scope, "f", "id", body.length).items():
            assert re.fullmatch(r"[A-Z0-9_]+", name)
            assert "\0" not in value
        await body.read_ahead(self._read_ahead)
        call = Call(scope["method"].encode(), target, headers, body.take())
        if not body.complete:
            call.more, call.length = body.more, body.length
        connection = HttpConnection()
        wire = Wire(connection)
        exchange = asyncio.ensure_future(connection.exchange(call))
        try:
            read = None
            while read is None:
                await asyncio.sleep(0)
                if exchange.done():
                    exchange.result()
                read = as_read_by_another(bytes(wire.written))
            await wire.receive(ANSWER)
            assert (await exchange).status == 200
        finally:
            wire.close()
            await turns(2)
        return read


def as_read_by_another(sent: bytes) -> Forwarded | None:
    """Method, target and body of the one request that these bytes are to h11; None if it is not whole yet."""
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(sent)
    request, body = parser.next_event(), b""
    if request is h11.NEED_DATA:
        return None
    assert isinstance(request, h11.Request)
    names = [bytes(name) for name, _ in request.headers]
    assert names.count(b"host") <= 1
    assert (b"content-length" in names) + (b"transfer-encoding" in names) == 1
    assert not {b"upgrade", b"connection", b"expect", b"te", b"trailer", b"keep-alive"} & set(names)
    assert b"x-trailer" not in names
    assert names.count(b"x-invocation-id") == names.count(b"x-forwarded-for") == 1
    while isinstance(event := parser.next_event(), h11.Data):
        body += bytes(event.data)
    if event is h11.NEED_DATA:
        return None
    assert isinstance(event, h11.EndOfMessage)
    assert not event.headers
    assert parser.trailing_data == (b"", False), "more than one request"
    return bytes(request.method), bytes(request.target), body


async def forwarded(said: list[bytes], read_ahead: int) -> tuple[list[Forwarded], bytes]:
    """What reaches instances, and what the client is answered."""
    edge = Edge(read_ahead)
    config = uvicorn.Config(edge, lifespan="off", ws="none", log_config=None)
    state = ServerState()
    protocol = ClientProtocol(
        ClientLimits(timeout_seconds=60.0, connections=10), config=config, server_state=state, app_state={}
    )
    wire = Wire(protocol)
    for piece in said:
        await wire.receive(piece)
    for _ in range(20):
        await turns()
    wire.close()
    while state.tasks:
        await asyncio.wait(state.tasks, timeout=5)
    await turns()
    return edge.forwarded, bytes(wire.written)


@LOOK_HARDER
@given(said=SAID, cuts=CUTS, read_ahead=st.sampled_from([1, 65536]))
def test_what_reaches_an_instance_is_read_by_another_parser_alike(
    loop: asyncio.Runner, caplog: pytest.LogCaptureFixture, said: bytes, cuts: list[int], read_ahead: int
) -> None:
    """One framing, nothing hop-by-hop, no second request, and the same ones in whatever pieces the bytes come."""
    faults: list[object] = []
    loop.get_loop().set_exception_handler(lambda _, context: faults.append(context))
    caplog.clear()
    in_one, answered = loop.run(forwarded([said], read_ahead))
    in_pieces, _ = loop.run(forwarded(pieces(said, cuts), read_ahead))
    assert faults == []
    assert not [record for record in caplog.records if record.exc_info], caplog.text
    shorter, longer = sorted((in_one, in_pieces), key=len)
    assert longer[: len(shorter)] == shorter
    assert not re.search(rb"HTTP/1.1 5\d\d", answered)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"a", b"connection", b"x-forwarded-for", b"x_hearth_id", b"cookie"]), st.binary()
        )
    )
)
def test_no_header_breaks_out_of_its_line(headers: list[tuple[bytes, bytes]]) -> None:
    """Should the server in front of us ever let one pass."""
    scope = {"headers": headers, "client": ("1.2.3.4", 5), "scheme": "http"}
    try:
        kept = request_headers(scope, b"id", 1.0)
    except Problem as problem:
        assert problem.status == 400
        return
    assert not any(re.search(rb"[\r\n\0]", value) for _, value in kept)
    assert [value for name, value in kept if name == b"x-forwarded-for"] == [b"1.2.3.4"]
    assert not any(name.startswith(b"x_hearth") for name, _ in kept)


@given(path=st.binary(), query=st.binary())
def test_no_target_breaks_out_of_its_line(path: bytes, query: bytes) -> None:
    try:
        target = target_of(path, query)
    except Problem as problem:
        assert problem.status == 400
        return
    assert re.fullmatch(rb"/[^\x00-\x20\x7f]*", target)
