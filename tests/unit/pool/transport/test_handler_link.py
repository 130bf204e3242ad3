"""The gateway's end of a handler's sockets: slots, and what the function prints."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pool.clock import LoopClock, VirtualClock
from pool.errors import NotSent
from pool.transport import handler
from pool.transport.handler import HandlerLink
from pool.transport.message import Call

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CALL = Call(b"POST", b"/", [])


class Shim:
    """The instance's end: dials as the shim does, by a short path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sockets: list[socket.socket] = []

    async def dial(self, name: str = "calls.sock") -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        self.sockets.append(sock)
        directory = os.open(self.folder, os.O_RDONLY)  # its path may be longer than a socket's may be
        try:
            await asyncio.get_running_loop().sock_connect(sock, f"/proc/self/fd/{directory}/{name}")
        finally:
            os.close(directory)
        await asyncio.sleep(0.01)
        return sock

    async def hears_the_end(self, sock: socket.socket) -> bool:
        try:
            return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1), 1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False


class Bench:
    """A link, its shim, and what the link has told."""

    def __init__(self, folder: Path) -> None:
        self.changes = 0
        self.clock = VirtualClock()
        self.printed: list[bytes] = []
        self.link = HandlerLink(folder, self.clock, self._changed, self.printed.append)
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
    for sock in made.shim.sockets:
        sock.close()
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


async def test_a_folder_deeper_than_a_sockets_path_may_be(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*(8 * ["twenty-bytes-of-name"]), "0123")
    assert len(str(folder / "calls.sock")) > 107
    bench = Bench(folder)
    await bench.link.open()
    sock = await bench.shim.dial()
    answering = asyncio.ensure_future(answer(sock))
    assert await bench.call() == b"ok"
    await answering
    await bench.link.close()
    sock.close()


async def test_the_sockets_are_for_every_user_of_the_container_and_the_folder_is_not(bench: Bench) -> None:
    folder = bench.link.folder
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "calls.sock": 0o666,
        "log.sock": 0o666,
    }


async def test_closing_ends_everything_and_may_be_done_twice(bench: Bench) -> None:
    sock, output = await bench.shim.dial(), await bench.shim.dial("log.sock")
    output.send(b"last words")
    await bench.link.close()
    assert bench.printed == [b"last words"]
    assert bench.link.folder.exists(), "it is the next process's way to the instance"
    assert await bench.shim.hears_the_end(sock)
    assert await bench.shim.hears_the_end(output)
    assert not bench.link.alive
    await bench.link.close()
    bench.link.drain_log()


async def test_a_folder_that_another_process_listened_in_is_listened_in_again(bench: Bench) -> None:
    old = await bench.shim.dial()
    await bench.link.close()
    again = Bench(bench.link.folder)
    again.link.slots = 2
    await again.link.reopen()
    waiting = asyncio.ensure_future(again.link.connected())
    first = await again.shim.dial()
    assert not waiting.done(), "one slot of two has dialled"
    second = await again.shim.dial()
    await waiting
    assert again.link.free_slots(0) == 2
    await again.link.close()
    for sock in (old, first, second):
        sock.close()


async def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    link = HandlerLink(tmp_path / "none", LoopClock(), lambda: None, lambda data: None)
    with pytest.raises(FileNotFoundError, match="is gone"):
        await link.reopen()
    assert not link.folder.exists()


async def test_closing_what_was_never_opened(tmp_path: Path) -> None:
    await HandlerLink(tmp_path / "none", LoopClock(), lambda: None, lambda data: None).close()


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    link = HandlerLink(tmp_path / "file" / "0123", LoopClock(), lambda: None, lambda data: None)
    with pytest.raises(OSError, match="Not a directory"):
        await link.open()
    await link.close()


# -- who may dial ----------------------------------------------------------------------------------------


def modes(folder: Path) -> set[tuple[str, str]]:
    return {(path.name, oct(path.stat().st_mode & 0o777)) for path in (folder, *folder.iterdir())}


async def opened(folder: Path, owner: int | None) -> set[tuple[str, str]]:
    link = HandlerLink(folder, LoopClock(), lambda: None, lambda data: None, owner)
    await link.open()
    found = modes(folder)
    await link.close()
    return found


async def test_a_folder_and_its_sockets_are_the_owners_alone(tmp_path: Path) -> None:
    found = await opened(tmp_path / "run" / "0123", os.getuid())
    assert found == {("0123", "0o500"), ("calls.sock", "0o600"), ("log.sock", "0o600")}
    assert oct((tmp_path / "run").stat().st_mode & 0o777) == "0o711"


async def test_the_next_process_gives_the_sockets_to_the_same_owner(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "0123"
    first = await opened(folder, os.getuid())
    folder.chmod(0o700)  # what root needs no right for
    again = HandlerLink(folder, LoopClock(), lambda: None, lambda data: None, os.getuid())
    await again.reopen()
    assert modes(folder) == first
    await again.close()


async def test_where_nothing_can_be_given_away_everybody_may_dial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everybody = {("0123", "0o755"), ("calls.sock", "0o666"), ("log.sock", "0o666")}
    assert await opened(tmp_path / "one" / "0123", None) == everybody

    def refused(*_: object) -> None:
        raise PermissionError("not permitted")

    monkeypatch.setattr(os, "chown", refused)
    assert await opened(tmp_path / "two" / "0123", 70_000) == everybody


# -- what it prints --------------------------------------------------------------------------------------


async def test_output_arrives_by_itself_and_at_once_when_asked_for(bench: Bench) -> None:
    output = await bench.shim.dial("log.sock")
    output.send(b"one\n")
    await asyncio.sleep(0.02)
    assert bench.printed == [b"one\n"]
    output.send(b"two\n")
    bench.link.drain_log()  # no turn of the loop in between
    assert bench.printed == [b"one\n", b"two\n"]
    bench.link.drain_log()
    assert len(bench.printed) == 2


async def test_a_new_output_connection_replaces_the_old_one(bench: Bench) -> None:
    old = await bench.shim.dial("log.sock")
    new = await bench.shim.dial("log.sock")
    assert await bench.shim.hears_the_end(old)
    new.send(b"new")
    bench.link.drain_log()
    assert bench.printed == [b"new"]
    new.close()
    await asyncio.sleep(0.02)
    third = await bench.shim.dial("log.sock")
    third.send(b"third")
    bench.link.drain_log()
    assert bench.printed == [b"new", b"third"]


async def test_who_prints_without_end_is_read_at_a_bounded_rate(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "LOG_BYTES_PER_TICK", 256 * 1024)
    output = await bench.shim.dial("log.sock")
    loop = asyncio.get_running_loop()

    async def print_without_end() -> None:
        while True:
            await loop.sock_sendall(output, 64 * 1024 * b"x")

    async def all_that_is_read() -> int:
        before, received = -1, 0
        while received != before:
            await asyncio.sleep(0.02)
            before, received = received, sum(map(len, bench.printed))
        return received

    printing = asyncio.ensure_future(print_without_end())
    received = 0
    for _ in range(5):
        more = await all_that_is_read() - received
        assert 256 * 1024 <= more <= 256 * 1024 + handler.READ_SIZE
        received += more
        await bench.clock.advance(0.9 * handler.LOG_TICK_SECONDS)
        assert await all_that_is_read() == received, "nothing more is read within the tick"
        await bench.clock.advance(0.1 * handler.LOG_TICK_SECONDS)
    received = await all_that_is_read()
    for _ in range(5):
        bench.link.drain_log()  # as after every call: what the kernel holds, and no more
    assert sum(map(len, bench.printed)) - received <= 5 * handler.DRAIN_BYTES
    printing.cancel()
    await asyncio.gather(printing, return_exceptions=True)
