"""Clients that call for as long as they are told, look at every answer, and keep count of what they saw."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from mix import JSON, Answer, Question

PATIENCE = 60.0
"""Seconds after which a call without an answer is a fault: more than `timeout` and `queue_timeout` together."""
IN_TWO = 0.02
"""How many of the requests are sent in two pieces, as a part of all."""


@dataclass(slots=True)
class Seen:
    """What the clients saw of one life of the gateway. All keys begin with the function."""

    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Calls by function and outcome, as `hearth_invocations_total` names it."""
    starts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Answered calls by function and `X-Hearth-Start`."""
    cut: Counter[str] = field(default_factory=Counter)
    """Calls whose connection ended after the head of the answer: the outcome is not known here."""
    left: Counter[str] = field(default_factory=Counter)
    """Calls that their client left, after it had sent the whole request."""
    left_early: Counter[str] = field(default_factory=Counter)
    """Calls that their client left before it had sent the whole request: not all become an invocation."""


class Cut(Exception):
    """The connection ended before the answer was whole; `args[0]` says whether its head was here."""


class Wire:
    """A connection to the gateway. `life` is the gateway's life that it was made in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, life: int) -> None:
        self.reader, self.writer, self.life = reader, writer, life

    async def ask(self, request: bytes, first: int = 0, pause: float = 0) -> Answer:
        """Send a request, its `first` bytes `pause` seconds ahead of the rest, and read the answer. Raises `Cut`."""
        head = b""
        try:
            if first:
                self.writer.write(request[:first])
                await asyncio.sleep(pause)
            self.writer.write(request[first:])
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            status = int(lines[0].split()[1])
            fields = (line.partition(":") for line in lines[1:] if line)
            headers = {name.lower(): value.strip() for name, _, value in fields}
            if "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            else:
                body = await self._chunks()
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Cut(bool(head)) from error
        return Answer(status, headers, body)

    async def _chunks(self) -> bytes:
        pieces = []
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            pieces.append((await self.reader.readexactly(size + 2))[:-2])
        await self.reader.readexactly(2)
        return b"".join(pieces)

    def close(self) -> None:
        """Close at once, whatever is under way."""
        self.writer.transport.abort()


class World:
    """What clients and mischief know together: where the gateway is, and whether it is there."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.life = 0
        """Counts the gateway's processes."""
        self.up = asyncio.Event()
        self.up.set()
        self.seen = Seen()
        self.total = Seen()
        """The same for all lives that have ended."""
        self.killed_calls = 0
        """Calls that ended with the gateway that they were made to."""
        self.calls = 0
        """Calls that were begun."""
        self.wrong: list[str] = []
        """What may never happen, in words."""
        self.removals: Counter[str] = Counter()
        """Instances removed in all lives that were looked at, by reason."""
        self.in_service = self.declared = 0
        """Versions of `echo`."""
        self.calling = asyncio.Event()
        """Cleared: clients finish their call and wait."""
        self.resting = 0
        self.clients = 0
        self._due = 0.0
        self.rate = 0.0
        """Calls a second of all quick clients together; 0: as many as they can."""

    def versions(self) -> tuple[int, int]:
        """The version of `echo` that was in service last, and the one that was declared last."""
        return self.in_service, self.declared

    def falls(self) -> None:
        """The gateway is about to be killed: what its clients see from here on is its death."""
        self.up.clear()
        self.life += 1
        for kept, now in zip(self._counters(self.total), self._counters(self.seen), strict=True):
            kept.update(now)
        self.seen = Seen()

    def rises(self, port: int) -> None:
        """It is there again."""
        self.port = port
        self.up.set()

    def count(self, function: str, answer: Answer) -> str:
        """Note an answer of this life; its outcome, as `hearth_invocations_total` names it."""
        outcome = "ok" if answer.status < 500 else "function-error"
        if answer.headers.get("content-type") == "application/problem+json":
            outcome = json.loads(answer.body)["type"].rpartition(":")[2]
        elif "x-hearth-start" in answer.headers:
            self.seen.starts[function, answer.headers["x-hearth-start"]] += 1
        else:
            self.wrong.append(f"{function}: no answer of a function: {answer}"[:600])
        self.seen.ended[function, outcome] += 1
        return outcome

    async def turn(self) -> None:
        """Wait for the next call that `rate` allows; what was missed is not made up for."""
        if not self.rate:
            return
        now = asyncio.get_running_loop().time()
        self._due = max(self._due, now - 0.02) + 1 / self.rate
        if self._due > now:
            await asyncio.sleep(self._due - now)

    async def rest(self) -> None:
        """Have all clients finish their call and close their connections."""
        self.calling.clear()
        async with asyncio.timeout(2 * PATIENCE):
            while self.resting < self.clients:
                await asyncio.sleep(0.05)

    @property
    def everything(self) -> Seen:
        """What was seen of all lives."""
        whole = Seen()
        for seen in (self.total, self.seen):
            for kept, now in zip(self._counters(whole), self._counters(seen), strict=True):
                kept.update(now)
        return whole

    @staticmethod
    def _counters(seen: Seen) -> tuple[Counter[object], ...]:
        return (seen.ended, seen.starts, seen.cut, seen.left, seen.left_early)  # type: ignore[return-value]


class Caller:
    """One client: one call after the other over a connection that it keeps.

    `question` makes the next call. One call in `1 / leaving` is left, at a random step. `pause` is the mean of the
    seconds between two calls; None: the world's rate decides.
    """

    def __init__(
        self,
        world: World,
        chance: random.Random,
        question: Callable[[], Question],
        leaving: float,
        pause: float | None = None,
    ) -> None:
        self._world, self._chance, self._question = world, chance, question
        self._leaving, self._pause = leaving, pause
        self._wire: Wire | None = None
        world.clients += 1

    async def run(self) -> None:
        """Call until cancelled."""
        world = self._world
        try:
            while True:
                if not world.calling.is_set():
                    self._hang_up()
                    world.resting += 1
                    await world.calling.wait()
                    world.resting -= 1
                await (world.turn() if self._pause is None else self._idle(self._pause))
                await world.up.wait()
                wire = await self._connected()
                if wire is not None:
                    await self._call(wire)
        finally:
            self._hang_up()

    async def _idle(self, mean: float) -> None:
        await asyncio.sleep(self._chance.uniform(0.5, 1.5) * mean)

    async def _connected(self) -> Wire | None:
        world = self._world
        if self._wire is not None and self._wire.life == world.life and not self._wire.reader.at_eof():
            return self._wire
        self._hang_up()
        life = world.life
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        except OSError as error:
            if life == world.life:
                world.wrong.append(f"a gateway that is there does not accept a connection: {error}")
            return None
        writer.transport.set_write_buffer_limits(0)  # so that `drain` waits until all is sent
        self._wire = Wire(reader, writer, life)
        return self._wire

    def _hang_up(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    async def _call(self, wire: Wire) -> None:
        world, question = self._world, self._question()
        world.calls += 1
        if self._chance.random() < self._leaving:
            await self._leave(wire, question)
            return
        request, first, pause = question.as_bytes(), 0, 0.0
        if self._chance.random() < IN_TWO:
            first, pause = self._chance.randrange(1, len(request)), self._chance.choice((0, 0.01, 0.3))
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await wire.ask(request, first, pause)
        except TimeoutError:
            world.wrong.append(f"{question.function}: no answer within {PATIENCE:g} s")
            self._hang_up()
            return
        except Cut as cut:
            self._hang_up()
            if wire.life != world.life:
                world.killed_calls += 1
            elif cut.args[0]:
                world.seen.cut[question.function] += 1
            else:
                world.wrong.append(f"{question.function}: the connection ended without an answer")
            return
        if answer.headers.get("connection") == "close":
            self._hang_up()
        if wire.life == world.life:
            world.count(question.function, answer)
        if answer.status == 200:
            await self._check(wire, question, answer)

    async def _check(self, wire: Wire, question: Question, answer: Answer) -> None:
        wrong = self._world.wrong
        try:
            right = question.right(answer.body)
        except (ValueError, KeyError, TypeError):
            right = False
        invocation = answer.headers.get("x-invocation-id", "")
        if not right:
            wrong.append(
                f"{question.function}: {question.body[:80]!r} was answered with {answer.body[:200]!r}"
            )
        names_itself = question.function == "echo" and question.content_type == JSON
        if names_itself and f'"{invocation}"'.encode() not in answer.body:
            wrong.append(f"echo: the answer of invocation {invocation} is that of {answer.body[:200]!r}")
        if question.printed is not None and self._wire is wire:
            await self._check_log(wire, invocation, question.printed)

    async def _check_log(self, wire: Wire, invocation: str, printed: str) -> None:
        request = f"GET /invocations/{invocation}/logs HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
        try:
            answer = await wire.ask(request.encode())
        except Cut:
            self._hang_up()
            if wire.life == self._world.life:
                self._world.wrong.append("the connection ended without a log")
            return
        if answer.status != 200 or answer.body.decode() != printed:
            self._world.wrong.append(
                f"echo: the log of {invocation} is {answer.status} {answer.body[:200]!r}, not {printed!r}"
            )

    async def _leave(self, wire: Wire, question: Question) -> None:
        """Send a request, or a part of it, perhaps read a part of the answer, and close the connection."""
        request, seen, chance = question.as_bytes(), self._world.seen, self._chance
        sent = request if chance.random() < 0.7 else request[: chance.randrange(len(request))]
        (seen.left if sent is request else seen.left_early)[question.function] += 1
        try:
            wire.writer.write(sent)
            await wire.writer.drain()
            match chance.randrange(4):
                case 0:
                    await asyncio.sleep(0)
                case 1:
                    await asyncio.sleep(chance.uniform(0, 0.03))
                case _ if sent is request:
                    async with asyncio.timeout(PATIENCE):
                        await wire.reader.read(chance.randrange(1, 300))
        except (OSError, TimeoutError):
            pass  # it was about to leave anyway
        self._hang_up()
