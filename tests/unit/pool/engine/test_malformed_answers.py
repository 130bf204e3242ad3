"""Whatever another service answers on the engine's socket, as a page of HTML with status 200, is an engine fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from pool.clock import VirtualClock
from pool.engine.base import ContainerSpec, Engine, EngineDown, EngineError, EngineFault
from pool.engine.breaker import PAUSE
from pool.engine.docker import DockerEngine
from pool.engine.guarded import GuardedEngine
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor

Answer = tuple[bytes, bytes]
"""A content type and a body."""
HTML: Answer = (b"text/html", b"<html>welcome</html>")
VERSION: Answer = (b"application/json", b'{"ApiVersion": "1.41", "Version": "20.10"}')
NOTHING: Answer = (b"application/json", b"[]")
ODD_ANSWERS: dict[str, Answer] = {
    "html": HTML,
    "text": (b"text/plain", b"hello"),
    "no JSON": (b"application/json", b"{"),
    "no text": (b"application/json", b"\xff\xfe"),
    "an empty object": (b"application/json", b"{}"),
    "a number": (b"application/json", b"7"),
    "a list": (b"application/json", b'["a"]'),
}


class FakeSocket:
    """A real unix socket that answers every request with the same, but for what `by_path` says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer = HTML
        self.by_path: dict[bytes, Answer] = {}
        """By the end of a request's path."""
        self.asked = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        while head := await reader.readline():
            path = head.split()[1].partition(b"?")[0]
            length = 0
            while (line := await reader.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            await reader.readexactly(length)
            self.asked += 1
            kind, body = next((a for end, a in self.by_path.items() if path.endswith(end)), self.answer)
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b"
                % (kind, len(body), body)
            )

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeSocket]:
    made = FakeSocket(tmp_path / "engine.sock")
    server = await asyncio.start_unix_server(made.serve, made.path)
    yield made
    server.close()
    await made.close()
    await server.wait_closed()


@pytest.fixture
async def engine(fake: FakeSocket) -> AsyncIterator[DockerEngine]:
    made = DockerEngine(f"unix://{fake.path}", Metrics())
    yield made
    await made.close()


VERBS: dict[str, Callable[[Engine], Awaitable[object]]] = {
    "ping": lambda engine: engine.ping(),
    "info": lambda engine: engine.info(),
    "create": lambda engine: engine.create(ContainerSpec(name="c", image="i")),
    "inspect": lambda engine: engine.inspect("c"),
    "containers": lambda engine: engine.containers({}),
    "wait": lambda engine: engine.wait("c"),
    "image": lambda engine: engine.image("i"),
    "images": lambda engine: engine.images({}),
    "networks": lambda engine: engine.networks({}),
    "create_network": lambda engine: engine.create_network("n", "b", True, {}),
    "events": lambda engine: anext(aiter(engine.events({}))),
}
"""Every verb that reads what the engine answers."""


@pytest.mark.parametrize("verb", VERBS)
async def test_a_page_of_html_is_a_fault_that_names_the_address(
    fake: FakeSocket, engine: DockerEngine, verb: str
) -> None:
    with pytest.raises(EngineFault, match=rf"Cannot .*{fake.path} is not that of a Docker Engine"):
        await VERBS[verb](engine)


@pytest.mark.parametrize(
    ("verb", "odd"),
    [
        (verb, odd)
        for verb in ("ping", "inspect", "image", "containers", "events")
        for odd in ODD_ANSWERS
        if (verb, odd) != ("containers", "an empty object")  # it reads as an empty list
    ],
)
async def test_every_odd_answer_is_an_engine_error(
    fake: FakeSocket, engine: DockerEngine, verb: str, odd: str
) -> None:
    fake.answer = ODD_ANSWERS[odd]
    fake.by_path = {} if verb == "ping" else {b"/version": VERSION}
    with pytest.raises(EngineError):
        await VERBS[verb](engine)


class Guarded:
    """A guard on virtual time."""

    def __init__(self, inner: Engine) -> None:
        self.clock = VirtualClock()
        metrics = Metrics()
        self.supervisor = Supervisor(self.clock, metrics)
        self.engine = GuardedEngine(inner, self.clock, metrics, self.supervisor)

    async def until(self, done: Callable[[], bool]) -> None:
        """Let time pass, and real sockets be read, until something is so."""
        async with asyncio.timeout(10):
            while not done():
                await self.clock.advance(0.05)
                await asyncio.sleep(0.001)


async def test_the_breaker_closes_when_the_engine_itself_answers_again(
    fake: FakeSocket, engine: DockerEngine
) -> None:
    guarded = Guarded(engine)
    with pytest.raises(EngineFault):
        await guarded.engine.ping()
    assert guarded.engine.down() is not None
    asked = fake.asked
    await guarded.until(lambda: fake.asked >= asked + 3)  # attempts of its own, all answered with HTML
    with pytest.raises(EngineDown):
        await guarded.engine.images({})
    fake.by_path = {b"/version": VERSION, b"/json": NOTHING}
    await guarded.until(lambda: guarded.engine.down() is None)
    assert await guarded.engine.images({}) == []
    await guarded.engine.close()


async def test_a_fault_that_nobody_foresaw_does_not_end_the_recovery(
    engine: DockerEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = Guarded(engine)
    faults = [KeyError("unforeseen") for _ in range(3)]

    async def ping() -> None:
        if faults:
            raise faults.pop()

    async def containers(labels: object) -> list[object]:
        return []

    with pytest.raises(EngineFault):
        await guarded.engine.ping()
    monkeypatch.setattr(engine, "ping", ping)
    monkeypatch.setattr(engine, "containers", containers)
    told: list[str] = []

    def fails() -> None:
        raise RuntimeError("who is told first fails")

    guarded.engine.on_recovery = [fails, lambda: told.append("recovered")]
    await guarded.clock.advance(10 * PAUSE.longest)
    assert guarded.engine.down() is None and not faults
    assert told == ["recovered"]
    assert "background loop engine-recovery failed" in caplog.text
    await guarded.engine.close()
