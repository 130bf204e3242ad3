"""A server whose network namespace cannot be entered is reached at its address, where that is allowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from pool.clock import LoopClock, VirtualClock
from pool.engine.base import ContainerState
from pool.errors import StartFailed
from pool.transport.server import DIAL_TIMEOUT_SECONDS, Server

NOBODY = 2**22 + 1
"""No process has this id: it is over the most that the kernel gives."""


def state(**addresses: str) -> ContainerState:
    return ContainerState(
        id="c",
        name="c",
        image="i",
        labels={},
        running=True,
        pid=NOBODY,
        paused=False,
        exit_code=None,
        oom_killed=False,
        addresses=addresses,
    )


class Health:
    """A real server that answers with the next of these statuses; with the last for ever."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.asked: list[bytes] = []
        self.port = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.read(1000)
        if head:
            self.asked.append(head.split()[1])
            status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status)
        writer.close()


@pytest.fixture
async def health() -> AsyncIterator[Health]:
    made = Health(503, 404, 204)
    listening = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.port = listening.sockets[0].getsockname()[1]
    yield made
    listening.close()
    await listening.wait_closed()


async def test_it_is_ready_when_its_health_is_below_400(health: Health) -> None:
    clock = LoopClock()
    server = Server(state(inside="127.0.0.1"), health.port, True, clock)
    await asyncio.wait_for(server.ready("/healthz"), 5)
    assert health.asked == [b"/healthz"] * 3
    server.close()


async def test_without_a_health_path_it_is_ready_when_it_accepts(health: Health) -> None:
    clock = LoopClock()
    server = Server(state(inside="127.0.0.1"), health.port, True, clock)
    await asyncio.wait_for(server.ready(None), 5)
    assert health.asked == []


async def test_a_health_that_does_not_answer_is_asked_again(
    health: Health,
) -> None:
    clock = VirtualClock()
    answer, asked = health.answer, asyncio.Event()

    async def first_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not asked.is_set():
            asked.set()
            await reader.read()  # until the one who asks gives up
            writer.close()
        else:
            await answer(reader, writer)

    listening = await asyncio.start_server(first_silent, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    health.statuses = [200]
    ready = asyncio.ensure_future(Server(state(inside="127.0.0.1"), port, True, clock).ready("/up"))
    await asyncio.wait_for(asked.wait(), 5)
    await clock.advance(DIAL_TIMEOUT_SECONDS)
    async with asyncio.timeout(5):
        while not ready.done():  # the pause before it is asked again is virtual, its sockets are real
            await clock.advance(0.1)
            await asyncio.sleep(0.001)
    assert clock.now() >= DIAL_TIMEOUT_SECONDS
    assert health.asked == [b"/up"]
    listening.close()
    await listening.wait_closed()


async def test_nobody_there_is_refused(health: Health) -> None:
    clock = LoopClock()
    server = Server(state(inside="127.0.0.2"), health.port, True, clock)
    with pytest.raises(ConnectionRefusedError):
        await server.dial()


@pytest.mark.parametrize(("addresses", "fallback"), [({}, True), ({"inside": "127.0.0.1"}, False)])
def test_no_way_to_it_says_how_to_make_one(addresses: dict[str, str], fallback: bool) -> None:
    with pytest.raises(StartFailed, match="HEARTH_ALLOW_NETWORK_FALLBACK=1"):
        Server(state(**addresses), 80, fallback, VirtualClock())
