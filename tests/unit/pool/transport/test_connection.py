"""One connection to an instance, against a peer that plays by a script, over real sockets."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from unittest.mock import Mock

import pytest
import uvloop

from pool.errors import InstanceDied, MalformedAnswer, NotSent
from pool.transport import kernel
from pool.transport.connection import HIGH_WATER, MAX_HEAD, SLICE, HttpConnection
from pool.transport.message import Answer, Call
from tests.support.wire import Wire

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Line:
    """A connection and the instance's end of it."""

    connection: HttpConnection
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    lost: list[HttpConnection]

    async def heard(self, until: bytes = b"\r\n\r\n") -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(until), 5)

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hang_up(self) -> None:
        self.writer.close()
        await asyncio.sleep(0.01)

    async def exchange(self, answer: bytes, call: Call | None = None, hang_up: bool = False) -> Answer:
        """Make a call and play this answer."""
        calling = asyncio.ensure_future(self.connection.exchange(call or get()))
        await self.heard()
        await self.say(answer)
        if hang_up:
            await self.hang_up()
        return await asyncio.wait_for(calling, 5)


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    ours, theirs = socket.socketpair()
    lost: list[HttpConnection] = []
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: HttpConnection(None, lost.append), sock=ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    yield Line(connection, reader, writer, lost)
    connection.abort()
    writer.close()
    await asyncio.sleep(0.01)


def get(method: bytes = b"GET") -> Call:
    return Call(method, b"/", [(b"host", b"hearth")])


async def whole(answer: Answer) -> bytes:
    body = b""
    while piece := await asyncio.wait_for(answer.read(), 5):
        body += piece
    return body


def pieces(*data: bytes) -> Callable[[], Awaitable[bytes]]:
    """A body that comes piece by piece."""
    left = list(data)

    async def more() -> bytes:
        await asyncio.sleep(0)
        return left.pop(0) if left else b""

    return more


async def test_what_is_sent(line: Line) -> None:
    call = Call(b"POST", b"/a?b=c", [(b"host", b"hearth"), (b"x-one", b"1")], b"body")
    calling = asyncio.ensure_future(line.connection.exchange(call))
    sent = await line.heard(b"body")
    assert sent == b"POST /a?b=c HTTP/1.1\r\nhost: hearth\r\nx-one: 1\r\ncontent-length: 4\r\n\r\nbody"
    await line.say(OK)
    assert (await calling).status == 200


@pytest.mark.parametrize(
    ("status", "rest", "body"),
    [
        (200, b"content-length: 2\r\n\r\nok", b"ok"),
        (200, b"content-length: 0\r\n\r\n", b""),
        (200, b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n3\r\n...\r\n0\r\n\r\n", b"ok..."),
        (204, b"\r\n", b""),
        (304, b"etag: x\r\n\r\n", b""),
        (304, b"content-length: 10\r\n\r\n", b""),
        (500, b"content-length: 3\r\n\r\nbad", b"bad"),
    ],
    ids=["length", "empty", "chunks", "204", "304", "304 with a length", "500"],
)
@pytest.mark.parametrize(
    "before",
    [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"],
    ids=["", "after 100", "after 103"],
)
async def test_a_clean_answer_keeps_the_connection(
    line: Line, before: bytes, status: int, rest: bytes, body: bytes
) -> None:
    for _ in range(2):
        answer = await line.exchange(before + b"HTTP/1.1 %d Status\r\n" % status + rest)
        assert answer.status == status
        assert await whole(answer) == body
        assert not any(name == b"link" for name, _ in answer.headers)
        assert line.connection.finish()
    assert not line.lost


@pytest.mark.parametrize("size", [1, 2, 7])
async def test_an_answer_in_small_pieces(line: Line, size: int) -> None:
    text = b"HTTP/1.1 201 Made\r\nX-Name: Value\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"
    calling = asyncio.ensure_future(line.connection.exchange(get()))
    await line.heard()
    for start in range(0, len(text), size):
        await line.say(text[start : start + size])
        await asyncio.sleep(0)
    answer = await calling
    assert answer.status == 201
    assert (b"x-name", b"Value") in answer.headers
    assert await whole(answer) == b"abcd"
    assert line.connection.finish()


async def test_the_end_of_the_connection_may_be_the_end_of_the_body(line: Line) -> None:
    answer = await line.exchange(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", hang_up=True)
    assert await whole(answer) == b"until the end"
    assert not line.connection.finish()


@pytest.mark.parametrize("headers", [b"content-length: 100\r\n", b"transfer-encoding: chunked\r\n"])
async def test_half_an_answer_is_no_answer(line: Line, headers: bytes) -> None:
    answer = await line.exchange(b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n5\r\nhalf.\r\n", hang_up=True)
    with pytest.raises(InstanceDied):
        await whole(answer)
    assert not answer.complete
    assert not line.connection.finish()


async def test_a_head_only_answer(line: Line) -> None:
    answer = await line.exchange(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", get(b"HEAD"))
    assert answer.complete
    assert await whole(answer) == b""
    assert (b"content-length", b"1000") in answer.headers
    assert not line.connection.finish(), "a body could still come"


async def test_no_answer(line: Line) -> None:
    with pytest.raises(InstanceDied):
        await line.exchange(b"", hang_up=True)
    assert line.lost == [line.connection]
    with pytest.raises(NotSent):
        await line.connection.exchange(get())


async def test_gone_before_the_call(line: Line) -> None:
    await line.hang_up()
    with pytest.raises(NotSent):
        await line.connection.exchange(get())
    assert line.lost == [line.connection]


@pytest.mark.parametrize(
    "answer",
    [
        b"this is not HTTP\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + (MAX_HEAD + 1) * b"y",
        b"HTTP/1.1 200 OK\r\n" + 5000 * b"x-many: headers\r\n",
        5000 * b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 999 No\r\ncontent-length: 0\r\n\r\n",
    ],
    ids=[
        "text",
        "status",
        "negative",
        "two lengths",
        "length and chunks",
        "101",
        "long",
        "many",
        "continues",
        "999",
    ],
)
async def test_nonsense(line: Line, answer: bytes) -> None:
    calling = asyncio.ensure_future(line.connection.exchange(get()))
    await line.heard()
    line.writer.write(answer)
    with pytest.raises(MalformedAnswer):
        await asyncio.wait_for(calling, 5)
    assert not line.connection.finish()
    assert not line.connection.open


async def test_a_switch_of_protocols_is_no_fault_of_ours(line: Line) -> None:
    """Else a function could put a stack trace into the log with each answer."""
    faults = list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    with pytest.raises(MalformedAnswer, match="switched protocols"):
        await line.exchange(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nhi"
        )
    assert not line.connection.finish()
    assert faults == []


async def test_nonsense_in_the_body(line: Line) -> None:
    answer = await line.exchange(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n")
    assert await answer.read() == b"ok"
    await line.say(b"zz\r\n")
    with pytest.raises(MalformedAnswer):
        await answer.read()


async def test_two_answers_to_one_call(line: Line) -> None:
    second = b"HTTP/1.1 404 No\r\nx-second: yes\r\ncontent-length: 5\r\n\r\nother"
    answer = await line.exchange(OK + second)
    assert answer.status == 200
    assert (b"x-second", b"yes") not in answer.headers
    assert await whole(answer) == b"ok"
    assert not line.connection.finish(), "the next caller could read it"


async def test_rubbish_right_after_an_answer_costs_the_connection_only(line: Line) -> None:
    answer = await line.exchange(OK + b"more than was asked for")
    assert await whole(answer) == b"ok"
    assert not line.connection.finish()


async def test_trailers_are_no_headers(line: Line) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    answer = await line.exchange(head + b"2\r\nok\r\n0\r\nx-late: 1\r\ncontent-type: x\r\n\r\n")
    assert await whole(answer) == b"ok"
    assert [name for name, _ in answer.headers] == [b"transfer-encoding"]
    assert line.connection.finish()


async def test_what_comes_unasked_ends_the_connection(line: Line) -> None:
    await whole(await line.exchange(OK))
    assert line.connection.finish()
    await line.say(OK)
    await asyncio.sleep(0.01)
    assert not line.connection.open
    with pytest.raises(NotSent):
        await line.connection.exchange(get())


async def test_a_server_that_closes_after_its_answer_is_not_called_again(line: Line) -> None:
    answer = await line.exchange(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
    assert await whole(answer) == b"ok"
    assert not line.connection.finish()


async def test_a_connection_that_was_not_used_is_kept(line: Line) -> None:
    assert line.connection.finish()
    await whole(await line.exchange(OK))
    assert line.connection.finish()
    assert line.connection.finish()
    await line.hang_up()
    assert not line.connection.finish()


async def test_an_answer_that_is_not_read_holds_the_instance_up(line: Line) -> None:
    size = 64 * HIGH_WATER
    answer = await line.exchange(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
    line.writer.write(size * b"x")
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert line.connection.buffered <= HIGH_WATER + 256 * 1024
    assert line.writer.transport.get_write_buffer_size() > 0
    assert len(await whole(answer)) == size
    assert line.connection.finish()


@pytest.mark.parametrize("length", [None, 9])
async def test_a_body_in_pieces(line: Line, length: int | None) -> None:
    call = Call(b"POST", b"/", [], b"one", pieces(b"two", b"six"), length)
    calling = asyncio.ensure_future(line.connection.exchange(call))
    head = await line.heard()
    if length is None:
        assert b"transfer-encoding: chunked" in head
        assert b"content-length" not in head
        assert await line.heard(b"0\r\n\r\n") == b"3\r\none\r\n3\r\ntwo\r\n3\r\nsix\r\n0\r\n\r\n"
    else:
        assert b"content-length: 9" in head
        assert b"transfer-encoding" not in head
        assert await line.heard(b"six") == b"onetwosix"
    await line.say(OK)
    assert await whole(await calling) == b"ok"
    assert line.connection.finish()


async def test_a_body_shorter_than_it_said(line: Line) -> None:
    call = Call(b"POST", b"/", [], b"one", pieces(b"two"), 100)
    with pytest.raises(InstanceDied):
        await line.connection.exchange(call)
    assert not line.connection.finish()


async def test_a_body_whose_sender_fails(line: Line) -> None:
    async def more() -> bytes:
        raise ConnectionError("the client has gone")

    with pytest.raises(ConnectionError):
        await line.connection.exchange(Call(b"POST", b"/", [], b"one", more))
    assert not line.connection.finish()
    assert b"0\r\n\r\n" not in await line.reader.read(), "half a body looks whole"


@pytest.mark.parametrize("end", [b"", None])
async def test_who_was_told_that_the_request_failed_asks_for_no_answer(line: Line, end: bytes | None) -> None:
    """What then becomes of the connection is no exception that nobody has seen, which the loop would log."""
    unseen: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))

    async def more() -> bytes:
        if end is None:
            raise ConnectionError("the client has gone")
        return end

    with pytest.raises((InstanceDied, ConnectionError)):
        await line.connection.exchange(Call(b"POST", b"/", [], b"one", more, 100))
    while not line.lost:
        await asyncio.sleep(0)
    gc.collect()
    assert unseen == []


async def test_an_instance_that_reads_slowly_holds_the_sender_up(line: Line) -> None:
    sent = 0

    async def more() -> bytes:
        nonlocal sent
        sent += 1
        return 256 * 1024 * b"x" if sent <= 200 else b""

    calling = asyncio.ensure_future(line.connection.exchange(Call(b"POST", b"/", [], b"", more)))
    await asyncio.sleep(0.05)
    assert sent < 20
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert not line.connection.finish()


async def test_a_sender_that_was_held_up_goes_on_when_it_is_read(line: Line) -> None:
    sent = 0

    async def more() -> bytes:
        nonlocal sent
        sent += 1
        return 256 * 1024 * b"x" if sent <= 20 else b""

    calling = asyncio.ensure_future(line.connection.exchange(Call(b"POST", b"/", [], b"", more)))
    while line.connection.can_write is None:
        await asyncio.sleep(0)
    held_up_at = sent
    read = bytearray()
    while not read.endswith(b"x\r\n0\r\n\r\n"):
        read += await asyncio.wait_for(line.reader.read(2**20), 5)
    assert held_up_at < sent == 21
    assert read.count(b"x") == 20 * 256 * 1024
    await line.say(OK)
    assert await whole(await calling) == b"ok"
    assert line.connection.finish()


async def test_an_answer_before_the_body_was_read(line: Line) -> None:
    never = asyncio.Event()
    cancelled = False

    async def more() -> bytes:
        nonlocal cancelled
        try:
            await never.wait()
        except asyncio.CancelledError:
            cancelled = True
            raise
        return b""

    calling = asyncio.ensure_future(line.connection.exchange(Call(b"POST", b"/", [], b"one", more)))
    await line.heard()
    await line.say(b"HTTP/1.1 413 Too much\r\ncontent-length: 2\r\n\r\nno")
    answer = await asyncio.wait_for(calling, 5)
    assert answer.status == 413
    assert await whole(answer) == b"no"
    assert cancelled
    assert not line.connection.finish(), "the rest of the body would be taken for the next call"


async def test_an_instance_that_dies_while_the_body_is_awaited(line: Line) -> None:
    async def more() -> bytes:
        await asyncio.get_running_loop().create_future()
        return b""

    calling = asyncio.ensure_future(line.connection.exchange(Call(b"POST", b"/", [], b"one", more)))
    await line.heard()
    await line.hang_up()
    with pytest.raises(InstanceDied):
        await asyncio.wait_for(calling, 5)


async def test_a_call_that_is_given_up(line: Line) -> None:
    calling = asyncio.ensure_future(line.connection.exchange(get()))
    await line.heard()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await line.say(OK)
    assert not line.connection.finish(), "its late answer would be the next caller's"


async def test_abort_while_reading(line: Line) -> None:
    answer = await line.exchange(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
    reading = asyncio.ensure_future(answer.read())
    await asyncio.sleep(0)
    line.connection.abort()
    with pytest.raises(InstanceDied):
        await reading
    line.connection.abort()
    assert not line.connection.finish()


async def test_an_instance_that_ends_just_as_the_next_piece_is_there() -> None:
    """Both in one round of the loop: a closed transport may raise when it is written to, so it is not."""
    written: list[bytes] = []
    connection = HttpConnection()
    connection.connection_made(Mock(write=written.append, is_closing=lambda: False))

    async def more() -> bytes:
        connection.connection_lost(None)
        return b"piece"

    call = Call(b"POST", b"/", [], b"first", more, length=100)
    with pytest.raises(InstanceDied):
        await connection.exchange(call)
    assert written[-1] == b"first"


def in_tiny_chunks(count: int) -> bytes:
    """An answer of so many chunks of one byte."""
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * count + b"0\r\n\r\n"


LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])


def over_tcp() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection; when the second is closed it is reset, as if something was left unread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return ours, theirs


@LOOPS
@pytest.mark.parametrize("pair", [socket.socketpair, over_tcp])
@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK, b"ok"),
        (OK + OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000, b"x" * 100_000),
        (in_tiny_chunks(10_000), b"x" * 10_000),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", InstanceDied),
        (in_tiny_chunks(10_000)[:-5], InstanceDied),
        (b"HTTP/1.1 200 O", InstanceDied),
        (b"", InstanceDied),
        (b"rubbish\r\n\r\n", MalformedAnswer),
    ],
    ids=[
        "length",
        "two answers",
        "no length",
        "long",
        "tiny chunks",
        "half a body",
        "half the chunks",
        "half a head",
        "nothing",
        "rubbish",
    ],
)
def test_who_answers_and_closes_before_the_call_is_written_has_answered(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    pair: Callable[[], tuple[socket.socket, socket.socket]],
    answer: bytes,
    body: bytes | type[Exception],
) -> None:
    """The write fails, and the loop has not looked yet whether there is something to read."""

    async def call() -> bytes:
        ours, theirs = pair()
        loop = asyncio.get_running_loop()
        lost: list[HttpConnection] = []
        _, connection = await loop.create_connection(lambda: HttpConnection(None, lost.append), sock=ours)
        waiter: asyncio.Future[None] = loop.create_future()

        def on_answer(fault: Exception | None) -> None:
            waiter.set_exception(fault) if fault else waiter.set_result(None)

        theirs.sendall(answer)
        theirs.close()
        connection.send(b"GET / HTTP/1.1\r\n\r\n", on_answer)
        try:
            await asyncio.wait_for(waiter, 5)
            return await whole(connection)
        finally:
            assert not connection.finish()
            assert lost == [connection]

    with asyncio.Runner(loop_factory=new_loop) as runner:
        if isinstance(body, bytes):
            assert runner.run(call()) == body
        else:
            with pytest.raises(body):
                runner.run(call())


@LOOPS
@pytest.mark.parametrize("length", [None, 10**9])
def test_who_answers_and_closes_amid_the_body_has_answered(
    new_loop: Callable[[], asyncio.AbstractEventLoop], length: int | None
) -> None:
    """The answer is so long to parse that pieces of the body go on coming meanwhile: they are not sent."""

    async def call() -> bytes:
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        transport, connection = await loop.create_connection(HttpConnection, sock=ours)
        transport.pause_reading()  # the loop does not look before the write
        pieces = 0

        async def more() -> bytes:
            nonlocal pieces
            pieces += 1
            if pieces == 1:
                theirs.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 500 + in_tiny_chunks(1000))
                theirs.close()
            return b"piece" if length or pieces < 3 else b""

        answer = await asyncio.wait_for(
            connection.exchange(Call(b"POST", b"/", [], b"first", more, length)), 5
        )
        body = await whole(answer)
        assert not connection.finish()
        return body

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(call()) == b"x" * 1000


async def test_tiny_chunks_are_parsed_a_slice_a_turn(line: Line) -> None:
    """A whole read of them would hold all other calls up."""
    calling = asyncio.ensure_future(line.connection.exchange(get()))
    await line.heard()
    line.connection.data_received(in_tiny_chunks(40_000))
    turns, most, body = 0, 0, b""
    answer = await calling
    while not answer.complete:
        taken = answer.take()
        most, turns, body = max(most, len(taken)), turns + 1, body + taken
        await asyncio.sleep(0)
    body += answer.take()
    assert body == b"x" * 40_000
    assert turns > 25 and most <= 3 * SLICE // 6
    assert line.connection.finish()


async def test_tiny_chunks_wait_for_a_slow_reader(line: Line) -> None:
    calling = asyncio.ensure_future(line.connection.exchange(get()))
    await line.heard()
    line.connection.data_received(in_tiny_chunks(200_000))
    answer = await calling
    for _ in range(300):
        await asyncio.sleep(0)
    assert HIGH_WATER < line.connection.buffered <= HIGH_WATER + SLICE
    body = b""
    while piece := await asyncio.wait_for(answer.read(), 5):
        body += piece
    assert body == b"x" * 200_000
    assert line.connection.finish()


@pytest.mark.parametrize("after", [b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"rubbish" * 5000])
async def test_what_follows_tiny_chunks_is_dropped_with_the_connection(line: Line, after: bytes) -> None:
    calling = asyncio.ensure_future(line.connection.exchange(get()))
    await line.heard()
    line.connection.data_received(in_tiny_chunks(10_000) + after)
    answer, body = await calling, b""
    while piece := await asyncio.wait_for(answer.read(), 5):
        body += piece
    assert body == b"x" * 10_000
    assert not line.connection.finish()


async def test_a_call_that_is_given_up_amid_tiny_chunks_leaves_nothing_to_the_next(line: Line) -> None:
    calling = asyncio.ensure_future(line.connection.exchange(get()))
    await line.heard()
    line.connection.data_received(in_tiny_chunks(10_000))
    await calling
    assert not line.connection.finish()
    await asyncio.sleep(0.01)
    assert line.lost == [line.connection]


async def test_of_what_is_no_socket_the_kernel_knows_nothing() -> None:
    connection = HttpConnection()
    assert connection.peer_pid() == 0
    wire = Wire(connection)
    assert connection.peer_pid() == 0
    assert kernel.unread(wire) == b""
    wire.close()
    await asyncio.sleep(0)


async def test_of_a_socket_that_cannot_be_read_there_is_nothing_unread() -> None:
    """One that listens, for example."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport = Mock(get_extra_info=lambda name: listener)
        assert kernel.unread(transport) == b""
