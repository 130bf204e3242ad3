"""Slots of an instance that dials: one connection is one slot."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pool.clock import VirtualClock
from pool.errors import NotSent
from pool.transport.message import Call
from pool.transport.slots import SlotLink
from pool.transport.socket_folder import SocketFolder
from tests.support.dialling import Shim

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CALL = Call(b"POST", b"/", [])


class Bench:
    """A link, its shim, and what the link has told."""

    def __init__(self, folder: Path) -> None:
        self.changes = 0
        self.printed: list[bytes] = []
        self.link = SlotLink(SocketFolder(folder, VirtualClock()), self._changed, self.printed.append)
        self.shim = Shim(folder)

    def _changed(self) -> None:
        self.changes += 1

    async def call(self) -> bytes:
        """A whole call over a free slot."""
        connection = self.link.take()
        assert connection is not None
        answer = await connection.exchange(CALL)
        body = await answer.read()
        self.link.give(connection)
        return body


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "run" / "0123")
    await made.link.open()
    yield made
    await made.link.close()
    made.shim.close()
    await asyncio.sleep(0.01)


async def answer(sock: socket.socket, data: bytes = OK) -> None:
    loop = asyncio.get_running_loop()
    assert (await loop.sock_recv(sock, 4096)).startswith(b"POST / HTTP/1.1")
    await loop.sock_sendall(sock, data)


async def test_an_open_connection_is_a_slot(bench: Bench) -> None:
    assert not bench.link.alive
    assert bench.link.take() is None
    connected = asyncio.ensure_future(bench.link.connected())
    sock = await bench.shim.dial()
    await asyncio.wait_for(connected, 1)
    assert bench.link.alive
    assert bench.link.free_slots(0) == 1
    assert bench.changes == 1
    for _ in range(3):
        answering = asyncio.ensure_future(answer(sock))
        assert await bench.call() == b"ok"
        await answering
    taken = bench.link.take()
    assert taken is not None
    assert bench.link.free_slots(1) == 0
    assert bench.link.take() is None
    bench.link.give(taken)
    assert bench.link.free_slots(0) == 1, "a slot that was not used is kept"


async def test_no_more_slots_than_allowed(bench: Bench) -> None:
    await bench.shim.dial()
    too_many = await bench.shim.dial()
    assert await bench.shim.hears_the_end(too_many)
    assert bench.link.free_slots(0) == 1
    bench.link.slots = 3
    for _ in range(3):
        await bench.shim.dial()
    assert bench.link.free_slots(0) == 3


async def test_a_lost_connection_is_a_lost_slot_until_it_is_dialled_again(bench: Bench) -> None:
    sock = await bench.shim.dial()
    sock.close()
    await asyncio.sleep(0.01)
    assert not bench.link.alive
    assert bench.link.free_slots(0) == 0
    assert bench.changes == 2
    await bench.shim.dial()
    assert bench.link.alive
    assert bench.link.free_slots(0) == 1


async def test_a_connection_that_is_not_clean_is_dialled_anew(bench: Bench) -> None:
    sock = await bench.shim.dial()
    answering = asyncio.ensure_future(answer(sock, OK + b"more than was asked for"))
    assert await bench.call() == b"ok"
    await answering
    assert bench.link.free_slots(0) == 0
    assert await bench.shim.hears_the_end(sock)
    await asyncio.sleep(0)
    sock = await bench.shim.dial()
    answering = asyncio.ensure_future(answer(sock))
    assert await bench.call() == b"ok"
    await answering


async def test_the_gateway_never_dials(bench: Bench) -> None:
    with pytest.raises(NotSent):
        await bench.link.connect(CALL)


async def test_closing_ends_everything_and_may_be_done_twice(bench: Bench) -> None:
    sock, output = await bench.shim.dial(), await bench.shim.dial("log.sock")
    output.send(b"last words")
    await bench.link.close()
    assert bench.printed == [b"last words"]
    assert bench.shim.folder.exists(), "it is the next process's way to the instance"
    assert await bench.shim.hears_the_end(sock)
    assert await bench.shim.hears_the_end(output)
    assert not bench.link.alive
    await bench.link.close()
    bench.link.drain_log()


async def test_a_folder_that_another_process_listened_in_is_listened_in_again(bench: Bench) -> None:
    old = await bench.shim.dial()
    await bench.link.close()
    again = Bench(bench.shim.folder)
    again.link.slots = 2
    await again.link.reopen("container")
    waiting = asyncio.ensure_future(again.link.connected())
    first = await again.shim.dial()
    assert not waiting.done(), "one slot of two has dialled"
    second = await again.shim.dial()
    await waiting
    assert again.link.free_slots(0) == 2
    await again.link.close()
    for sock in (old, first, second):
        sock.close()
