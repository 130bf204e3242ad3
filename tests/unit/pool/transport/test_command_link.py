"""One run of an image for one call, whatever the command and the engine do. On the engine in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from pool.clock import LoopClock
from pool.engine.base import Attachment, ContainerSpec, EngineError, EngineUnreachable, NotRunnable
from pool.engine.memory import Latency, MemoryEngine
from pool.engine.memory_process import Process
from pool.errors import AnswerTooLarge, CommandFailed, EngineLost, NotSent
from pool.transport.command import CommandLink
from pool.transport.message import Call

LIMIT = 1000
"""Bytes of an answer."""


async def echo(process: Process) -> int:
    """Copies stdin to stdout, and says on stderr how much it was. `exit N` as the input is its exit status."""
    whole = b""
    while (piece := await process.read()) is not None:
        whole += piece
    await process.write(b"%d bytes" % len(whole), stream=2)
    if whole.startswith(b"exit "):
        return int(whole[5:])
    await process.write(whole)
    return 0


async def forever(process: Process) -> int:
    await asyncio.Event().wait()
    return 0


class Bench:
    """A link to an image, and what it has told."""

    def __init__(self, create_seconds: float = 0) -> None:
        self.engine = MemoryEngine(LoopClock(), latency=Latency(create_seconds, 0, 0, 0))
        self.engine.add_image("image", program=echo)
        self.containers: list[str] = []
        self.printed = b""
        spec = ContainerSpec(name="one", image="image", stdin=True, keep_output=False, env={"KEY": "own"})
        self.link = CommandLink(self.engine, spec, asyncio.Semaphore(1), self.containers.append, LIMIT)
        self.link.log = self._print

    def _print(self, data: bytes) -> None:
        self.printed += data

    async def call(self, body: bytes = b"", **keys: object) -> bytes:
        """A whole call; what the command wrote."""
        call = Call(b"POST", b"/", [], first=body, **keys)  # type: ignore[arg-type]
        answer = await (await self.link.connect(call)).exchange(call)
        whole = b""
        while piece := await answer.read():
            whole += piece
        assert answer.complete
        assert answer.headers == [(b"content-length", b"%d" % len(whole))]
        return whole


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.engine.heal()
    await made.link.close()
    for container in made.containers:
        await made.engine.remove(container)
    assert made.engine.alive() == 0
    await made.engine.close()


async def test_a_body_in_pieces_goes_in_and_comes_out(bench: Bench) -> None:
    pieces = iter([b"two ", b"three", b""])

    async def more() -> bytes:
        return next(pieces)

    assert bench.link.free_slots(0) == 1
    assert bench.link.free_slots(1) == 0
    assert bench.link.take() is None
    assert await bench.call(b"one ", more=more, meta={"KEY": "the caller's", "QUERY_STRING": "a=1"}) == (
        b"one two three"
    )
    assert bench.printed == b"13 bytes"
    [container] = bench.containers
    assert bench.engine.find(container).spec.env == {"KEY": "own", "QUERY_STRING": "a=1"}
    assert bench.link.free_slots(0) == 0, "one container, one call"


async def test_an_exit_status_fails_the_call(bench: Bench) -> None:
    with pytest.raises(CommandFailed, match="the command ended with exit status 3"):
        await bench.call(b"exit 3")


async def test_an_exit_status_whose_cause_cannot_be_asked_for_fails_the_call_all_the_same(
    bench: Bench,
) -> None:
    bench.engine.fail_next("inspect", EngineError("no answer"))
    with pytest.raises(CommandFailed, match="the command ended with exit status 3"):
        await bench.call(b"exit 3")


async def test_a_command_that_took_too_much_memory_is_told_so(bench: Bench) -> None:
    bench.engine.add_image("image", program=forever)
    calling = asyncio.ensure_future(bench.call(b"x"))
    while not bench.containers or not (await bench.engine.inspect(bench.containers[0])).running:
        await asyncio.sleep(0)
    bench.engine.kill(bench.containers[0], oom=True)
    with pytest.raises(CommandFailed, match=r"killed for want of memory \(exit status 137\)"):
        await calling


async def test_more_than_the_limit_is_not_an_answer(bench: Bench) -> None:
    assert len(await bench.call(bytes(LIMIT))) == LIMIT
    other = Bench()
    with pytest.raises(AnswerTooLarge, match="more than 1000 bytes"):
        await other.call(bytes(LIMIT + 1))
    await other.link.close()
    await other.engine.close()


@pytest.mark.parametrize(
    ("verb", "error", "raised", "message"),
    [
        ("create", EngineError("no space"), NotSent, "could not be started: no space"),
        ("attach", EngineError("no streams"), NotSent, "could not be started: no streams"),
        ("start", EngineError("busy"), NotSent, "could not be started: busy"),
        ("start", NotRunnable("no such file"), CommandFailed, "cannot be run: no such file"),
        ("wait", EngineUnreachable("cut"), EngineLost, "the engine went away while the command ran: cut"),
        ("wait", EngineError("unknown"), CommandFailed, "the command's container was lost: unknown"),
    ],
)
async def test_what_the_engine_fails_at(
    bench: Bench, verb: str, error: EngineError, raised: type[Exception], message: str
) -> None:
    bench.engine.fail_next(verb, error)
    with pytest.raises(raised, match=message):
        await bench.call(b"x")


async def test_a_body_that_breaks_off_is_no_answer(bench: Bench) -> None:
    async def more() -> bytes:
        bench.engine.kill(bench.containers[0], 0)  # it has ended before its body has
        raise ConnectionResetError("the client has left")

    with pytest.raises(ConnectionResetError, match="the client has left"):
        await bench.call(b"x", more=more)


async def test_a_container_is_known_although_its_caller_left_while_it_was_created() -> None:
    bench = Bench(create_seconds=0.02)
    connecting = asyncio.ensure_future(bench.link.connect(Call(b"POST", b"/", [])))
    while not bench.engine.calls["create"]:
        await asyncio.sleep(0)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert len(bench.containers) == bench.engine.alive() == 1
    await bench.engine.remove(bench.containers[0])
    await bench.engine.close()


async def reads_little(process: Process) -> int:
    """Ends, as its first input says, when most of it is unread: with an answer, or a status of 3."""
    first = await process.read()
    await asyncio.sleep(0.02)  # the pipe of its input fills
    await process.write(b"enough")
    return 0 if first == b"answer" else 3


@pytest.mark.parametrize("first", [b"answer", b"fail"])
async def test_the_end_of_a_command_that_does_not_read_its_body_ends_the_call(
    bench: Bench, first: bytes
) -> None:
    bench.engine.add_image("image", program=reads_little)
    asked = 0

    async def more() -> bytes:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return bytes(2**16)  # it never ends

    calling = asyncio.ensure_future(bench.call(first, more=more))
    async with asyncio.timeout(10):
        if first == b"answer":
            assert await calling == b"enough"
        else:
            with pytest.raises(CommandFailed, match="the command ended with exit status 3"):
                await calling
    before = asked
    await asyncio.sleep(0.01)
    assert asked == before, "nobody asks the client for more"


async def test_a_client_that_leaves_ends_the_call_of_a_command_that_waits_for_its_body(bench: Bench) -> None:
    async def more() -> bytes:
        raise ConnectionResetError("the client has left")

    async with asyncio.timeout(10):
        with pytest.raises(ConnectionResetError, match="the client has left"):
            await bench.call(b"x", more=more)


async def test_what_one_attachment_has_taken_is_given_back_if_the_other_fails(bench: Bench) -> None:
    attach, closed = bench.engine.attach, []

    async def only_stdin(container: str, stdin: bool = True, output: bool = True) -> Attachment:
        if output:
            raise EngineError("no streams")
        made = await attach(container, stdin, output)
        close = made.close

        async def told() -> None:
            closed.append(container)
            await close()

        made.close = told  # type: ignore[method-assign]
        return made

    bench.engine.attach = only_stdin  # type: ignore[method-assign]
    with pytest.raises(NotSent, match="no streams"):
        await bench.call(b"x")
    assert closed == bench.containers
