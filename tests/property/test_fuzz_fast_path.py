"""Whatever a client says: fast path and long way say the same to an instance, and answers go to their calls."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h11
import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st
from property.test_fuzz_requests import REQUESTS, Forwarded, as_read_by_another

from gateway.invoke.fast_call import FastCall
from pool.transport.connection import HttpConnection
from tests.support.warm_call_loop import Link, WarmCall
from tests.support.wire import CUTS, LOOK_HARDER, Wire, pieces, spoiled, turns

SLOTS = 2
MAX_BODY = 64
HEAD = b"POST /invoke/hello HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n"


def plain(field: bytes, body: bytes) -> bytes:
    """What goes the fast path."""
    return HEAD % (field, len(body)) + body


FIELD = st.sampled_from([b"", b"", b"", b"X-One: 1\r\n"])
PLAIN = st.builds(
    plain, FIELD, st.sampled_from([b"ab", b"cd", b"\r\n", b"", b"POST ", b"x" * (MAX_BODY + 1)])
)
"""Few heads: those that were seen before are known again."""
WRAPPED = st.builds(lambda inner: [HEAD % (b"", len(inner)), inner], PLAIN)
"""A body that looks like a request, and comes by itself."""
ONE_OF_THEM = st.one_of(PLAIN, REQUESTS.map(lambda said: said.replace(b"/invoke/f", b"/invoke/hello")))
PIECES = st.one_of(
    st.lists(PLAIN, min_size=1, max_size=3),
    st.lists(PLAIN, min_size=2, max_size=3).map(lambda said: [b"".join(said)]),
    WRAPPED,
    st.sampled_from([[b"\0"], [b"POST"]]),
    st.lists(ONE_OF_THEM, max_size=2),
    spoiled(ONE_OF_THEM).map(lambda said: [said]),
)
SAID = st.lists(PIECES, min_size=1, max_size=4).map(lambda said: [piece for some in said for piece in some])


class Ear(Wire):
    """The instance's end of a connection: notes what was read, and answers with the body that it was sent."""

    def __init__(self, protocol: HttpConnection, heard: list[Forwarded], held: list[Ear]) -> None:
        super().__init__(protocol)
        self._heard = heard
        self._held = held
        self._body = b""

    def write(self, data: Any) -> None:
        super().write(data)
        self._loop.call_soon(self._listen)

    def _listen(self) -> None:
        read = as_read_by_another(bytes(self.written)) if self.written else None
        if read is not None:
            self.written.clear()
            self._heard.append(read)
            self._body = read[2]
            self._held.append(self)

    def answer(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self._body)
        self.protocol.data_received(head + self._body)


class Instance(Link):
    """Each slot is there again when its connection was lost, as a shim dials again."""

    def __init__(self) -> None:
        self.heard: list[Forwarded] = []
        self.held: list[Ear] = []
        """Those who are to answer."""
        self._free = [self._dial() for _ in range(SLOTS)]

    def _dial(self) -> HttpConnection:
        connection = HttpConnection()
        Ear(connection, self.heard, self.held)
        return connection

    def give(self, connection: HttpConnection) -> None:
        self._free.append(connection if connection.finish() else self._dial())

    def answer(self) -> bool:
        """Answer the latest call that waits for it; whether there was any."""
        if not self.held:
            return False
        ear = self.held.pop()
        if not ear.closed:
            ear.answer()
        return True


@dataclass(frozen=True)
class Served:
    """What came of what a client has said."""

    heard: list[Forwarded]
    """By the instance."""
    answers: list[tuple[int, bytes]]
    """Status, and the body of those that the function has given."""
    closed: bool
    """Whether the gateway has closed the connection."""
    fast: int
    """Pieces after which the connection was the fast path's."""


class World:
    """One gateway with one function, for one client after the other."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.faults: list[object] = []
        self.runner.get_loop().set_exception_handler(lambda _, context: self.faults.append(context))
        self.runner.run(self._start())

    async def _start(self) -> None:
        self.instance = Instance()
        self.call = WarmCall(lambda: self.instance, SLOTS, "192.0.2.1")
        self.call.limit(max_body=MAX_BODY)
        await self.call.start()

    def close(self) -> None:
        self.runner.run(self.call.close())
        self.runner.close()

    def served(self, said: list[bytes], fast: bool, patient: bool) -> Served:
        """What comes of these pieces, sent one by one.

        `patient`: the client says all before anything is answered, else each answer comes before the next bytes.
        """
        return self.runner.run(self._serve(said, fast, patient))

    async def _serve(self, said: list[bytes], fast: bool, patient: bool) -> Served:
        call, instance = self.call, self.instance
        protocol = call.fast_protocol() if fast else call.long_protocol()
        wire, went_fast = Wire(protocol), 0
        for piece in said:
            await wire.receive(piece)
            went_fast += isinstance(protocol.cycle, FastCall)
            while not patient and instance.answer():
                await turns()
        for _ in range(4):
            await turns()
            while instance.answer():
                await turns()
        closed = wire.closed
        wire.close()
        await turns()
        while instance.answer() or protocol.server_state.tasks:
            await turns()
        heard, instance.heard[:] = list(instance.heard), []
        [only] = call.pool.ledger.of("hello")
        assert (only.in_use, str(only.state), instance.free_slots(0)) == (0, "idle", SLOTS)
        assert call.dispatcher.functions["hello"].waiting == 0
        return Served(heard, answers(bytes(wire.written)), closed, went_fast)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def answers(answered: bytes) -> list[tuple[int, bytes]]:
    """Status of each answer, as h11 reads it, and its body if it is the function's."""
    parser, read = h11.Connection(h11.CLIENT), []
    parser.receive_data(answered)
    while parser.our_state is h11.IDLE and parser.trailing_data[0]:
        parser.send(h11.Request(method="POST", target="/", headers=[("host", "a"), ("content-length", "0")]))
        parser.send(h11.EndOfMessage())
        while isinstance(head := parser.next_event(), h11.InformationalResponse):
            read.append((head.status_code, b""))
        assert isinstance(head, h11.Response), head
        body = b""
        while isinstance(said := parser.next_event(), h11.Data):
            body += bytes(said.data)
        assert isinstance(said, h11.EndOfMessage), said
        read.append((head.status_code, body if head.status_code == 200 else b""))
        if parser.their_state is h11.DONE:
            parser.start_next_cycle()
    assert not parser.trailing_data[0], "more than answers"
    return read


AB, CD = plain(b"", b"ab"), plain(b"", b"cd")


@LOOK_HARDER
@example(
    said=[AB, HEAD % (b"", len(CD)), CD], cuts=[], patient=False
)  # a body that looks like a known request
@example(said=[AB, AB + CD], cuts=[], patient=False)
@example(said=[AB, CD, b"\0", AB], cuts=[], patient=False)
@example(said=[AB, b"POST", b"\0", AB], cuts=[], patient=True)
@example(said=[plain(b"Connection: close\r\n", b"ab"), AB], cuts=[], patient=False)
@example(said=[HEAD % (b"Expect: 100-continue\r\n", 2), b"ab"], cuts=[], patient=False)
@example(said=[plain(b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"ab"), AB], cuts=[], patient=False)
@example(said=[AB.replace(b"1.1", b"1.0", 1), AB], cuts=[], patient=False)
@example(said=[plain(b"", b"x" * (MAX_BODY + 1)), AB], cuts=[100], patient=False)
@given(said=SAID, cuts=CUTS, patient=st.booleans())
def test_the_fast_path_and_the_long_way_say_the_same_to_an_instance(
    world: World, caplog: pytest.LogCaptureFixture, said: list[bytes], cuts: list[int], patient: bool
) -> None:
    """Whole requests, the same bytes in other pieces, and without the fast path."""
    caplog.clear()
    ways = [
        world.served(said, True, patient),
        world.served(pieces(b"".join(said), cuts), True, patient),
        world.served(said, False, patient),
    ]
    assert world.faults == []
    assert not [record for record in caplog.records if record.exc_info], caplog.text
    event(f"{min(ways[0].fast, 3)} went the fast path")
    whole, _, long = ways
    assert (whole.answers, whole.closed) == (long.answers, long.closed)
    longest = max((way.heard for way in ways), key=len)
    for way in ways:
        assert longest[: len(way.heard)] == way.heard
        assert all(status < 500 for status, _ in way.answers)
        echoed = [body for status, body in way.answers if status == 200]
        assert echoed == [body for _, _, body in way.heard][: len(echoed)]
