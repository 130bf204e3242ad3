"""One run by init: input and output at once, exit status, and whatever either side does meanwhile."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from pool.errors import AnswerTooLarge, CommandFailed, InstanceDied, MalformedAnswer
from pool.transport.connection import HttpConnection
from pool.transport.message import Call
from pool.transport.run import RunAnswer, RunConnection, RunResult, encoded
from tests.support.fake_init import FakeProgram, FakeRun, serve_runs

HELD = 100_000
"""Output that waits for the exit status, bytes."""
BIG = 8 * 2**20


class Bench:
    """A connection to init, which runs `program`."""

    def __init__(self) -> None:
        self.program: FakeProgram = echo
        self.held_bytes = HELD
        self.most_bytes = 100 * BIG
        self.own_variables = {"OWN"}
        self.begun: list[Call] = []
        self.ends: list[RunResult | None] = []
        self.serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        self.serving = asyncio.ensure_future(self._serve(reader, writer))
        _, self.connection = await asyncio.get_running_loop().create_connection(
            lambda: RunConnection(self.changed, self.changed, self), sock=ours
        )

    def changed(self, connection: HttpConnection) -> None:
        """It was opened, or lost."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def program(run: FakeRun) -> int:
            return await self.program(run)

        await serve_runs(reader, writer, program)

    def began(self, call: Call) -> None:
        self.begun.append(call)

    def ended(self, end: RunResult | None) -> None:
        self.ends.append(end)

    def failure(self, end: RunResult) -> str:
        return f"failed with {end.status} or {end.signal}"

    async def run(self, body: bytes = b"", **keys: object) -> RunAnswer:
        call = Call(b"POST", b"/", [], first=body, **keys)  # type: ignore[arg-type]
        answer = await asyncio.wait_for(self.connection.exchange(call), 10)
        assert isinstance(answer, RunAnswer)
        return answer

    async def output(self, body: bytes = b"", **keys: object) -> bytes:
        return await whole(await self.run(body, **keys))


async def whole(answer: RunAnswer) -> bytes:
    output = bytearray(answer.take())
    while not answer.complete:
        output += await answer.read()
    return bytes(output)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.start()
    yield made
    made.connection.finish()
    made.connection.abort()
    assert made.serving is not None
    made.serving.cancel()
    await asyncio.wait((made.serving,))


async def echo(run: FakeRun) -> int:
    while piece := await run.stdin.read(65536):
        await run.write(piece)
    return 0


def printing(output: bytes, status: int) -> FakeProgram:
    async def program(run: FakeRun) -> int:
        await run.write(output)
        return status

    return program


def pieces(*given: bytes | Exception) -> Callable[[], object]:
    left = list(given)

    async def more() -> bytes:
        piece = left.pop(0) if left else b""
        if isinstance(piece, Exception):
            raise piece
        return piece

    return more


async def test_a_run_gets_its_body_and_gives_its_output_and_another_follows(bench: Bench) -> None:
    for body in (b"hello", b"", bytes(range(256))):
        answer = await bench.run(body)
        assert (answer.status, answer.complete, answer.exec_seconds) == (200, True, 0.25)
        assert await whole(answer) == body
        assert bench.connection.finish()
    assert bench.ends == [RunResult(0, None)] * 3
    assert len(bench.begun) == 3


@pytest.mark.parametrize("length", [None, 7])
async def test_a_body_in_pieces_with_a_length_and_without(bench: Bench, length: int | None) -> None:
    assert await bench.output(b"one", more=pieces(b"two", b"!"), length=length) == b"onetwo!"
    assert bench.connection.finish()


async def test_variables_arrive_as_they_are(bench: Bench) -> None:
    given = {"PLAIN": "a=b", "ODD": "two words, 100 %\t\r\nnext: line", "WIDE": "Zoë ✓", "EMPTY": ""}

    async def tell(run: FakeRun) -> int:
        await run.write(repr(run.variables).encode())
        return 0

    bench.program = tell
    assert eval(await bench.output(meta={**given, "OWN": "the caller's"})) == given
    assert encoded("\udcff%") == b"%FF%25", "bytes that are no text stay what they are"


async def test_a_client_may_send_all_before_it_reads(bench: Bench) -> None:
    """Many do. So nothing of the answer is given out before the body is in, however much waits on disk by then."""
    left = BIG // 2**16

    async def more() -> bytes:
        nonlocal left
        left -= 1
        return bytes(2**16) if left > 0 else b""

    answer = await bench.run(b"x" * 2**16, more=more)
    assert left <= 0
    assert await whole(answer) == b"x" * 2**16 + bytes(BIG - 2**16)
    assert bench.connection.finish()


async def test_output_on_disk_whose_end_is_known_has_a_length(bench: Bench) -> None:
    bench.held_bytes = 10
    ended = asyncio.Event()

    async def more() -> bytes:
        await ended.wait()
        return b""

    async def prints(run: FakeRun) -> int:
        await run.write(bytes(1000))
        ended.set()
        await run.stdin.read()
        await run.stdin.read()
        return 0

    bench.program = prints
    answer = await bench.run(b"x", more=more)
    assert await whole(answer) == bytes(1000)
    assert answer.headers in ([], [(b"content-length", b"1000")]), (
        "as the end of the body comes before or after"
    )


async def test_more_than_the_limit_is_not_an_answer(bench: Bench) -> None:
    bench.most_bytes = 10
    assert await bench.output(bytes(10)) == bytes(10)
    with pytest.raises(AnswerTooLarge, match="more than 10 bytes"):
        await bench.run(bytes(11))


async def test_much_goes_in_and_comes_out_at_the_same_time(bench: Bench) -> None:
    """With nothing held, neither side would end if the whole body had to be read before the output."""
    bench.held_bytes = 0
    sent, piece = 0, bytes(64 * 1024)

    async def more() -> bytes:
        nonlocal sent
        sent += len(piece)
        return piece if sent <= BIG else b""

    answer = await bench.run(more=more)
    assert not answer.complete
    assert sent < BIG, "it is not read faster than its output is taken"
    assert len(await whole(answer)) == BIG
    assert bench.connection.finish()


async def test_output_that_nobody_reads_makes_the_program_wait(bench: Bench) -> None:
    written = 0

    async def flood(run: FakeRun) -> int:
        nonlocal written
        for _ in range(1000):
            await run.write(bytes(2**16))
            written += 2**16
        return 0

    bench.program = flood
    answer = await bench.run()
    await asyncio.sleep(0.05)
    before = written
    await asyncio.sleep(0.05)
    assert written == before < 2**22
    assert len(await whole(answer)) == 1000 * 2**16


@pytest.mark.parametrize(("status", "end"), [(3, RunResult(3, None)), (-11, RunResult(None, 11))])
async def test_a_failure_is_no_answer_although_there_is_output(
    bench: Bench, status: int, end: RunResult
) -> None:
    bench.program = printing(b"some output", status)
    with pytest.raises(CommandFailed, match=f"failed with {end.status} or {end.signal}"):
        await bench.run(b"x")
    assert bench.ends == [end]
    assert end.exit_status == (3 if status > 0 else 139)
    assert bench.connection.finish(), "the next run may follow"
    bench.program = echo
    assert await bench.output(b"well") == b"well"


async def test_a_failure_after_much_output_breaks_the_answer_off(bench: Bench) -> None:
    go_on = asyncio.Event()

    async def much(run: FakeRun) -> int:
        await run.write(bytes(HELD + 1))
        await go_on.wait()
        return 3

    bench.program = much
    answer = await bench.run()
    go_on.set()
    with pytest.raises(CommandFailed):
        await whole(answer)


async def test_with_nothing_held_the_first_output_is_the_beginning_of_the_answer(bench: Bench) -> None:
    bench.held_bytes = 0
    go_on = asyncio.Event()

    async def slow(run: FakeRun) -> int:
        await run.write(b"first")
        await go_on.wait()
        await run.write(b"second")
        return 0

    bench.program = slow
    answer = await bench.run()
    assert (answer.take(), answer.complete) == (b"first", False)
    go_on.set()
    assert await whole(answer) == b"second"
    bench.program = printing(b"", 1)
    with pytest.raises(CommandFailed):
        await bench.run()


@pytest.mark.parametrize("status", [0, 3])
async def test_the_end_of_a_program_that_does_not_read_its_body_ends_the_run(
    bench: Bench, status: int
) -> None:
    asked = 0

    async def more() -> bytes:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return bytes(2**16)  # it never ends

    async def reads_little(run: FakeRun) -> int:
        await run.stdin.read(5)
        await run.write(b"enough")
        return status

    bench.program = reads_little
    if status:
        with pytest.raises(CommandFailed):
            await bench.run(b"first", more=more)
    else:
        assert await bench.output(b"first", more=more) == b"enough"
    before = asked
    await asyncio.sleep(0.02)
    assert asked <= before + 1, "nobody asks the client for more"
    assert not bench.connection.reusable


async def test_a_body_that_breaks_off_ends_the_run(bench: Bench) -> None:
    with pytest.raises(ConnectionResetError, match="the client has left"):
        await bench.run(b"x", more=pieces(ConnectionResetError("the client has left")))
    assert not bench.connection.open
    assert not bench.connection.finish()
    assert bench.ends == [None]


async def test_a_body_that_breaks_off_while_its_output_is_read_breaks_the_answer_off(bench: Bench) -> None:
    bench.held_bytes = 0
    go_on = asyncio.Event()

    async def more() -> bytes:
        await go_on.wait()
        raise ConnectionResetError("the client has left")

    answer = await bench.run(b"x", more=more)
    go_on.set()
    with pytest.raises(ConnectionResetError):
        await whole(answer)


async def test_a_body_that_is_shorter_than_it_said_ends_the_run(bench: Bench) -> None:
    with pytest.raises(InstanceDied, match="before its declared length"):
        await bench.run(b"x", more=pieces(), length=5)


async def test_an_instance_that_ends_in_a_run_is_told_so(bench: Bench) -> None:
    async def die(run: FakeRun) -> int:
        run.writer.close()
        await asyncio.sleep(10)
        return 0

    bench.program = die
    with pytest.raises(InstanceDied):
        await bench.run()


@pytest.mark.parametrize(
    ("answer", "fault", "message"),
    [
        (b"500 X\r\nx-hearth-outcome: not-runnable", CommandFailed, "cannot be run: no sh"),
        (b"400 X\r\nx-hearth-outcome: bad-request", MalformedAnswer, "refused the run: no sh"),
    ],
)
async def test_what_init_does_not_run(answer: bytes, fault: type[Exception], message: str) -> None:
    said = b'{"type": "ENOENT", "message": "no sh"}'
    with pytest.raises(fault, match=message):
        await answered(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (answer, len(said), said))


async def test_an_end_without_a_status_is_no_answer() -> None:
    chunks = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
    for trailers in (b"", b"x-hearth-status: x\r\n", b"x-hearth-other: 0\r\n" * 20):
        with pytest.raises(MalformedAnswer, match="does not say how"):
            await answered(chunks + trailers + b"\r\n")


async def answered(answer: bytes) -> None:
    """Run something; init answers this."""
    bench = Bench()
    ours, theirs = socket.socketpair()
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: RunConnection(bench.changed, bench.changed, bench), sock=ours
    )
    running = asyncio.ensure_future(connection.exchange(Call(b"POST", b"/", [])))
    await asyncio.sleep(0)
    theirs.send(answer)
    try:
        await asyncio.wait_for(running, 5)
    finally:
        connection.abort()
        theirs.close()


async def test_a_run_that_is_cancelled_closes_its_connection_and_its_body(bench: Bench) -> None:
    asked = asyncio.Event()

    async def more() -> bytes:
        asked.set()
        await asyncio.Event().wait()
        return b""

    running = asyncio.ensure_future(bench.run(b"x", more=more))
    await asked.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    feeding = bench.connection.feeding
    assert feeding is not None
    assert not bench.connection.finish()
    await asyncio.wait((feeding,), timeout=5)
    assert feeding.done()
