"""The way over a folder with sockets: who may dial, and what the container prints."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pool.clock import LoopClock, VirtualClock
from pool.transport import socket_folder
from pool.transport.socket_folder import SocketFolder
from pool.transport.way import WayEnds
from tests.support.dialling import Shim


class Bench:
    """A folder, what dials into it, and what has come."""

    def __init__(self, folder: Path) -> None:
        self.clock = VirtualClock()
        self.printed: list[bytes] = []
        self.dialled: list[asyncio.Protocol] = []
        self.way = SocketFolder(folder, self.clock)
        self.shim = Shim(folder)

    async def open(self) -> None:
        await self.way.open(WayEnds(self._protocol, self.printed.append))

    def _protocol(self) -> asyncio.Protocol:
        self.dialled.append(asyncio.Protocol())
        return self.dialled[-1]

    async def close(self) -> None:
        await self.way.close()
        self.shim.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "run" / "0123")
    await made.open()
    yield made
    await made.close()


NO_ENDS = WayEnds(asyncio.Protocol, lambda data: None)


async def test_a_folder_deeper_than_a_sockets_path_may_be(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*(8 * ["twenty-bytes-of-name"]), "0123")
    assert len(str(folder / "calls.sock")) > 107
    bench = Bench(folder)
    await bench.open()
    await bench.shim.dial()
    assert len(bench.dialled) == 1
    await bench.close()


async def test_the_sockets_are_for_every_user_of_the_container_and_the_folder_is_not(bench: Bench) -> None:
    folder = bench.way.folder
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "calls.sock": 0o666,
        "log.sock": 0o666,
    }


async def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    way = SocketFolder(tmp_path / "none", LoopClock())
    with pytest.raises(FileNotFoundError, match="is gone"):
        await way.reopen(NO_ENDS, "container")
    assert not way.folder.exists()


async def test_closing_what_was_never_opened(tmp_path: Path) -> None:
    await SocketFolder(tmp_path / "none", LoopClock()).close()


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    way = SocketFolder(tmp_path / "file" / "0123", LoopClock())
    with pytest.raises(OSError, match="Not a directory"):
        await way.open(NO_ENDS)
    await way.close()


# -- who may dial ----------------------------------------------------------------------------------------


def modes(folder: Path) -> set[tuple[str, str]]:
    return {(path.name, oct(path.stat().st_mode & 0o777)) for path in (folder, *folder.iterdir())}


async def opened(folder: Path, owner: int | None) -> set[tuple[str, str]]:
    way = SocketFolder(folder, LoopClock(), owner)
    await way.open(NO_ENDS)
    found = modes(folder)
    await way.close()
    return found


async def test_a_folder_and_its_sockets_are_the_owners_alone(tmp_path: Path) -> None:
    found = await opened(tmp_path / "run" / "0123", os.getuid())
    assert found == {("0123", "0o500"), ("calls.sock", "0o600"), ("log.sock", "0o600")}
    assert oct((tmp_path / "run").stat().st_mode & 0o777) == "0o711"


async def test_the_next_process_gives_the_sockets_to_the_same_owner(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "0123"
    first = await opened(folder, os.getuid())
    folder.chmod(0o700)  # what root needs no right for
    again = SocketFolder(folder, LoopClock(), os.getuid())
    await again.reopen(NO_ENDS, "container")
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
    bench.way.drain_log()  # no turn of the loop in between
    assert bench.printed == [b"one\n", b"two\n"]
    bench.way.drain_log()
    assert len(bench.printed) == 2


async def test_a_new_output_connection_replaces_the_old_one(bench: Bench) -> None:
    old = await bench.shim.dial("log.sock")
    new = await bench.shim.dial("log.sock")
    assert await bench.shim.hears_the_end(old)
    new.send(b"new")
    bench.way.drain_log()
    assert bench.printed == [b"new"]
    new.close()
    await asyncio.sleep(0.02)
    third = await bench.shim.dial("log.sock")
    third.send(b"third")
    bench.way.drain_log()
    assert bench.printed == [b"new", b"third"]


async def test_who_prints_without_end_is_read_at_a_bounded_rate(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_folder, "LOG_BYTES_PER_TICK", 256 * 1024)
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
        assert 256 * 1024 <= more <= 256 * 1024 + socket_folder.READ_SIZE
        received += more
        await bench.clock.advance(0.9 * socket_folder.LOG_TICK_SECONDS)
        assert await all_that_is_read() == received, "nothing more is read within the tick"
        await bench.clock.advance(0.1 * socket_folder.LOG_TICK_SECONDS)
    received = await all_that_is_read()
    for _ in range(5):
        bench.way.drain_log()  # as after every call: what the kernel holds, and no more
    assert sum(map(len, bench.printed)) - received <= 5 * socket_folder.DRAIN_BYTES
    printing.cancel()
    await asyncio.gather(printing, return_exceptions=True)
