"""Requests in chunks of a few bytes: parsed a slice at a time, so that they hold nobody else up, and read as sent."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from gateway.edge.client_limits import ClientLimits
from gateway.edge.client_protocol import ClientProtocol
from gateway.edge.slices import SLICE_BYTES, HoldableFlow, SliceQueue, has_many_lines
from gateway.memory.budget import UNREAD, BodyBudget
from gateway.memory.connections import ConnectionMemory
from tests.support.wire import Wire

HEAD = b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKS = 40_000
"""Of one byte each: as many as one read of a connection brings."""
TINY = HEAD + b"1\r\na\r\n" * CHUNKS
END = b"0\r\n\r\n"


class CountingProtocol(ClientProtocol):
    """A connection that counts the pieces of a body, of all connections together."""

    pieces = 0

    def on_body(self, body: bytes) -> None:
        CountingProtocol.pieces += 1
        super().on_body(body)


class PausingWire(Wire):
    """A transport that knows whether it is read."""

    paused = False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Clients:
    """Connections to an application that reads all of a body and answers with its length."""

    def __init__(self, count: int, budget: BodyBudget | None = None) -> None:
        self.bodies: list[bytes] = []
        config = uvicorn.Config(self._app, interface="asgi3", lifespan="off", ws="none", log_config=None)
        limits = ClientLimits(60.0, 1000, ConnectionMemory(budget or BodyBudget(2**40)))
        self.wires = [
            PausingWire(CountingProtocol(limits, config=config, server_state=ServerState(), app_state={}))
            for _ in range(count)
        ]
        CountingProtocol.pieces = 0

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


async def most_pieces_in_a_turn(wires: list[PausingWire]) -> int:
    """Return the most pieces that were parsed in one turn of the loop, until nothing more is."""
    most, idle = 0, 0
    while idle < 20:
        before = CountingProtocol.pieces
        await asyncio.sleep(0)
        now = CountingProtocol.pieces - before
        most, idle = max(most, now), 0 if now else idle + 1
    return most


def test_one_turn_of_the_loop_parses_one_slice_however_many_connections_bring_tiny_chunks() -> None:
    async def run() -> None:
        clients = Clients(10)
        for wire in clients.wires:
            wire.protocol.data_received(TINY + END)
        assert CountingProtocol.pieces == 0
        assert await most_pieces_in_a_turn(clients.wires) <= SLICE_BYTES // 6 + 1
        assert clients.bodies == [b"a" * CHUNKS] * 10
        assert not any(wire.paused for wire in clients.wires), "their next requests are read"
        for wire in clients.wires:
            wire.close()

    asyncio.run(run())


def test_such_a_body_goes_on_in_a_second_read() -> None:
    async def run() -> None:
        clients = Clients(1)
        wire = clients.wires[0]
        wire.protocol.data_received(TINY)
        assert wire.paused
        await most_pieces_in_a_turn([wire])
        assert not wire.paused, "the application asks for more"
        wire.protocol.data_received(b"1\r\nb\r\n" * CHUNKS + END)
        await most_pieces_in_a_turn([wire])
        assert clients.bodies == [b"a" * CHUNKS + b"b" * CHUNKS]
        wire.close()

    asyncio.run(run())


def test_what_waits_for_its_slice_counts_and_makes_room_for_others() -> None:
    async def run() -> None:
        budget = BodyBudget(4 * len(TINY) * 3)
        clients = Clients(10, budget)
        for wire in clients.wires:
            wire.protocol.data_received(TINY)
            assert budget.held_by(UNREAD) <= budget.total // 4
        refused = [wire for wire in clients.wires if bytes(wire.written).startswith(b"HTTP/1.1 503")]
        assert len(refused) >= 7
        for wire in clients.wires:
            wire.close()
        await most_pieces_in_a_turn(clients.wires)
        assert budget.held == 0

    asyncio.run(run())


def test_a_fault_in_a_later_slice_is_answered() -> None:
    async def run() -> None:
        clients = Clients(1)
        wire = clients.wires[0]
        wire.protocol.data_received(TINY + b"no chunk\r\n" + b"1\r\na\r\n" * CHUNKS)
        await most_pieces_in_a_turn([wire])
        assert bytes(wire.written).startswith(b"HTTP/1.1 400")
        assert CountingProtocol.pieces <= CHUNKS + SLICE_BYTES
        wire.close()

    asyncio.run(run())


def test_data_with_long_lines_is_parsed_at_once() -> None:
    assert not has_many_lines(b"10000\r\n" + b"a" * 0x10000 + b"\r\n")
    assert not has_many_lines(b"1\r\na\r\n" * (SLICE_BYTES // 6))
    assert has_many_lines(b"1\r\na\r\n" * (SLICE_BYTES // 6 + 1))


def test_text_of_a_declared_length_is_parsed_at_once_and_what_follows_it_is_not() -> None:
    async def run() -> None:
        clients = Clients(1)
        wire = clients.wires[0]
        text = b"line\r\n" * CHUNKS
        declared = b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (2 * len(text))
        wire.protocol.data_received(declared)
        await most_pieces_in_a_turn([wire])
        wire.protocol.data_received(text)
        assert CountingProtocol.pieces == 1
        await most_pieces_in_a_turn([wire])
        wire.protocol.data_received(text + TINY + END)
        assert CountingProtocol.pieces == 1
        assert await most_pieces_in_a_turn([wire]) <= SLICE_BYTES // 6 + 1
        assert clients.bodies == [text + text, b"a" * CHUNKS]
        wire.close()

    asyncio.run(run())


def test_a_held_flow_does_at_its_release_what_was_wished_last() -> None:
    async def run() -> None:
        wire = Clients(1).wires[0]
        flow = HoldableFlow(wire)
        flow.hold()
        flow.resume_reading()
        assert wire.paused
        flow.release()
        assert not wire.paused
        flow.hold()
        flow.resume_reading()
        flow.pause_reading()
        flow.release()
        assert wire.paused
        flow.resume_reading()
        assert not wire.paused
        wire.close()

    asyncio.run(run())


async def test_a_fault_of_one_connection_holds_up_no_other() -> None:
    slices, done, told = SliceQueue(), asyncio.Event(), list[str]()

    def fails() -> bool:
        raise ValueError("of this connection")

    def ends() -> bool:
        done.set()
        return False

    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: told.append(str(context["exception"]))
    )
    slices.put(fails)
    slices.put(ends)
    async with asyncio.timeout(5):
        await done.wait()
        done.clear()
        slices.put(ends)
        await done.wait()
    assert told == ["of this connection"]
