"""The journal: what is taken can be read, also by the next process; it is bounded, and nobody starves."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pool.clock import Clock, LoopClock
from pool.observe.journal import journal as module
from pool.observe.journal import reader, reading
from pool.observe.journal.journal import QUIET_SHARE, Journal, JournalBounds
from pool.observe.journal.reader import OutputFilter
from pool.observe.journal.reading import MOST_READERS, MOST_READERS_OF_A_KEY, OutputReading, TooManyReaders
from pool.observe.journal.records import OutputLine
from pool.observe.journal.segments import SEGMENTS
from pool.observe.plain_metrics import Count

MIB = 2**20
ALL = OutputFilter()


Shown = tuple[int, str]
"""Number and text of a line."""


def as_json(lines: list[OutputLine]) -> bytes:
    return json.dumps([(line.number, line.text) for line in lines]).encode() if lines else b""


def lines_of(piece: bytes) -> list[Shown]:
    return [(number, text) for number, text in json.loads(piece or b"[]")]


class World:
    """A running journal, and a reader of it."""

    def __init__(
        self, folder: Path, size: int = 4 * MIB, age: float = 3600.0, clock: Clock | None = None
    ) -> None:
        self.dropped = {"flood": Count(), "disk": Count()}
        self.journal = Journal(folder, JournalBounds(size, age), clock or LoopClock(), self.dropped)
        self.reading = OutputReading(self.journal, LoopClock())

    def print(self, text: str | bytes, function: str = "hello", invocation: str = "1" * 32) -> None:
        data = text.encode() if isinstance(text, str) else text
        self.journal.take(function, "r1", invocation, "instance", data)

    async def written(self, count: int = 1) -> None:
        """Wait until so many batches are on disk."""
        for _ in range(count):
            assert await self.journal.wait(self.journal.written)

    async def latest(self, limit: int = 10_000, wanted: OutputFilter = ALL) -> list[str]:
        lines = await self.reading.latest(wanted, limit, 0, self.journal.written)
        return [line.text for line in lines]

    async def onward(self, after: int = 0, wanted: OutputFilter = ALL) -> list[str]:
        found: list[str] = []
        async for piece in self.reading.onward(wanted, after, self.journal.written, as_json):
            found += [text for _, text in lines_of(piece)]
        return found


@asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    world.journal.start()
    try:
        yield world
    finally:
        await world.journal.close()


@pytest.fixture(autouse=True)
def short_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_SECONDS", 0.01)


async def test_what_is_printed_can_be_read_and_by_the_next_process_too(tmp_path: Path) -> None:
    async with running(World(tmp_path / "logs")) as world:
        world.print("one\ntwo\n")
        await world.written()
        world.print("three\n")
        await world.written()
        assert await world.latest() == await world.onward() == ["one", "two", "three"]
        assert await world.latest(2) == ["two", "three"]
        assert await world.latest(0) == []
    async with running(World(tmp_path / "logs")) as world:
        assert await world.latest() == ["one", "two", "three"]
        world.print("four\n")
        await world.written()
        assert await world.latest() == await world.onward() == ["one", "two", "three", "four"]
        assert await world.reading.of_invocation("1" * 32) == b"one\ntwo\nthree\nfour\n"
        assert await world.reading.of_invocation("2" * 32) is None
        assert await world.reading.invocations("11") == ["1" * 32]


async def test_the_end_of_a_journal_writes_half_a_line_that_was_held(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with running(world):
        world.print("half")
    assert await world.latest() == ["half"]


async def test_what_comes_while_a_batch_is_written_is_kept_when_the_journal_closes(tmp_path: Path) -> None:
    world, loop = World(tmp_path), asyncio.get_running_loop()
    writing, goes_on = asyncio.Event(), threading.Event()

    def slow(_: object) -> None:
        loop.call_soon_threadsafe(writing.set)
        goes_on.wait()

    world.journal.sinks.append(slow)
    world.journal.start()
    world.print("one\n")
    await writing.wait()
    world.print("two\n")
    closing = asyncio.create_task(world.journal.close())
    await asyncio.sleep(0)
    goes_on.set()
    await closing
    assert await world.latest() == ["one", "two"]


async def test_digits_that_a_function_prints_are_no_number_of_a_record(tmp_path: Path) -> None:
    async with running(World(tmp_path)) as world:
        for _ in range(6):
            world.print(b"9" * 65_000 + b"\n")
        await world.written()
        newest = world.journal.written
    async with running(World(tmp_path)) as world:
        assert world.journal.written == newest


async def test_an_id_stands_for_no_invocation_that_only_begins_so(tmp_path: Path) -> None:
    async with running(World(tmp_path)) as world:
        world.print("one\n")
        await world.written()
        assert await world.reading.of_invocation("1") is None


async def test_the_latest_lines_are_bounded_by_the_memory_that_they_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LATEST_BYTES", 72_000)
    async with running(World(tmp_path)) as world:
        world.print(("a" * 4000 + "\n") * 10)
        world.print(("a" * 4000 + "\U0001f600\n") * 4, "other")
        await world.written()
        assert len(await world.latest(wanted=OutputFilter(function="hello"))) == 10
        assert len(await world.latest(wanted=OutputFilter(function="other"))) == 4
        assert len(await world.latest()) == 5


async def test_a_torn_end_is_passed_over_and_nothing_is_written_behind_it(tmp_path: Path) -> None:
    async with running(World(tmp_path)) as world:
        world.print("before\n")
        await world.written()
    (segment,) = tmp_path.glob("quiet-*")
    with segment.open("ab") as file:
        file.write(segment.read_bytes()[:70])
    async with running(World(tmp_path)) as world:
        world.print("after\n")
        await world.written()
        assert await world.latest() == await world.onward() == ["before", "after"]
    assert len(list(tmp_path.glob("quiet-*"))) == 2


async def test_the_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    async with running(World(tmp_path / "logs")) as world:
        world.print("secret\n")
        await world.written()
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "logs").iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("wanted", "texts"),
    [
        (OutputFilter(function="other"), ["from other"]),
        (OutputFilter(invocation="1"), ["a needle", "nothing"]),
        (OutputFilter(invocation="2" * 32), ["from other"]),
        (OutputFilter(grep="needle"), ["a needle"]),
        (OutputFilter(instance="nobody"), []),
        (OutputFilter(since="2000"), ["a needle", "nothing", "from other"]),
        (OutputFilter(until="2000"), []),
        (OutputFilter(sees=lambda function: function == "other"), ["from other"]),
    ],
)
async def test_filters(tmp_path: Path, wanted: OutputFilter, texts: list[str]) -> None:
    async with running(World(tmp_path)) as world:
        world.print("a needle\nnothing\n")
        world.print("from other\n", "other", "2" * 32)
        await world.written()
        assert await world.latest(wanted=wanted) == await world.onward(wanted=wanted) == texts


async def test_who_prints_without_end_fills_no_disk_and_pushes_nobody_out(tmp_path: Path) -> None:
    async with running(World(tmp_path)) as world:
        world.print("a quiet word\n", "quiet")
        for number in itertools.count():
            for _ in range(6):
                world.print(b"f" * 65_000 + b"\n", "flood")
            await world.written()
            on_disk = sum(file.stat().st_size for file in tmp_path.iterdir())
            assert on_disk <= 4 * MIB
            if number * 6 * 65_000 > 8 * MIB:
                break
        assert await world.latest(wanted=OutputFilter(function="quiet")) == ["a quiet word"]
        quiet = sum(file.stat().st_size for file in tmp_path.glob("quiet-*"))
        assert quiet <= 2 * MIB // SEGMENTS // QUIET_SHARE + 1000
        assert len(await world.latest(3, OutputFilter(function="flood"))) == 3


async def test_lines_keep_their_order_over_both_streams(tmp_path: Path) -> None:
    texts = [f"line {number} " + "x" * 500 for number in range(300)]
    async with running(World(tmp_path)) as world:
        for at in range(0, 300, 50):
            for text in texts[at : at + 50]:
                world.print(text + "\n")
            await world.written()
        assert {file.name.partition("-")[0] for file in tmp_path.iterdir()} == {"quiet", "loud"}
        assert await world.latest() == await world.onward() == texts
        assert await world.latest(7) == texts[-7:]


async def test_a_flood_is_cut_off_told_of_and_leaves_room_for_others(tmp_path: Path) -> None:
    world = World(tmp_path)
    for _ in range(40):
        world.print(b"f" * 65_535 + b"\n", "flood")
    for number in range(10):
        world.print(b"g" * 65_535 + b"\n" * 3, f"flood-{number % 5}")
    world.print("I am here\n", "quiet")
    async with running(world):
        await world.written()
        assert await world.latest(wanted=OutputFilter(function="quiet")) == ["I am here"]
        *_, note = await world.latest(wanted=OutputFilter(function="flood"))
        assert note == "[33 lines dropped: printed faster than they can be kept]"
    assert world.dropped["flood"].value >= 33


async def test_tiny_pieces_are_bounded_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    for _ in range(100_000):
        world.print(b"\n")
    async with running(world):
        await world.written()
        assert world.dropped["flood"].value > 95_000


async def test_old_segments_are_deleted_and_a_new_process_keeps_to_a_smaller_bound(tmp_path: Path) -> None:
    async with running(World(tmp_path)) as world:
        for _ in range(8):
            world.print(b"f" * 50_000 + b"\n", "loud")
            await world.written()
    for file in tmp_path.glob("loud-*"):
        os.utime(file, (1, 1))
    async with running(World(tmp_path, age=3600.0)) as world:
        world.print("now\n")
        await world.written()
        assert not list(tmp_path.glob("loud-*"))
        assert (await world.latest(1)) == ["now"]


async def test_a_disk_that_cannot_be_written_loses_lines_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "logs"
    folder.write_text("a file is in its place")
    async with running(World(folder)) as world:
        for _ in range(3):
            world.print("lost\n")
            await world.written()
        assert world.dropped["disk"].value == 3
        assert caplog.text.count("Cannot keep what functions print") == 1
        folder.unlink()
        world.print("kept\n")
        await world.written()
        assert await world.latest() == ["kept"]


class MovedClock(LoopClock):
    """A clock that a test moves."""

    moved = 0.0

    def now(self) -> float:
        return super().now() + self.moved

    def wall(self) -> float:
        return super().wall() + self.moved


async def test_a_function_that_has_printed_its_share_is_quiet_again_later(tmp_path: Path) -> None:
    clock = MovedClock()
    async with running(World(tmp_path, age=3600.0, clock=clock)) as world:
        for moment, quiet in ((0.0, 1), (900.0, 2)):
            clock.moved = moment
            for _ in range(2):  # old segments are looked for before the second at the latest
                world.print(b"f" * 3000 + b"\n")
                await world.written()
            assert len(list(tmp_path.glob("quiet-*"))) == quiet


async def test_a_folder_that_is_deleted_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    async with running(World(folder)) as world:
        world.print("gone\n")
        await world.written()
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        world.print("kept\n")
        await world.written()
        assert await world.latest() == ["kept"]


async def test_a_data_folder_that_was_moved_away_can_come_back(tmp_path: Path) -> None:
    data, away = tmp_path / "data", tmp_path / "away"
    data.mkdir()
    async with running(World(data / "logs")) as world:
        world.print("before\n")
        await world.written()
        data.rename(away)
        for _ in range(3):
            world.print(b"f" * 65_000 + b"\n", "flood")  # more than a segment holds
            await world.written()
        assert not data.exists()
        away.rename(data)
        world.print("after\n")
        await world.written()
        assert await world.latest(wanted=OutputFilter(function="hello")) == ["before", "after"]


async def test_without_disk_nothing_is_kept_and_sinks_get_the_lines(tmp_path: Path) -> None:
    world = World(tmp_path, size=0)
    got: list[bytes] = []
    came = asyncio.Event()
    loop = asyncio.get_running_loop()
    world.journal.sinks.append(lambda pieces: got.extend(piece.data for piece in pieces))
    world.journal.sinks.append(lambda pieces: loop.call_soon_threadsafe(came.set) and None)
    async with running(world):
        world.print("shown\n")
        await came.wait()
        assert got == [b"shown\n"]
        assert not list(tmp_path.iterdir())
        assert await world.latest() == []


async def test_a_sink_that_fails_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World(tmp_path)
    world.journal.sinks.append(fails)
    async with running(world):
        world.print("kept\n")
        await world.written()
        assert await world.latest() == ["kept"]
    assert "Cannot pass on" in caplog.text


def fails(pieces: object) -> None:
    raise ValueError("a fault")


# -- following ------------------------------------------------------------------------------------------------


async def take(pieces: AsyncIterator[bytes], enough: Callable[[list[Shown]], bool]) -> list[Shown]:
    found: list[Shown] = []
    async for piece in pieces:
        found += lines_of(piece)
        if enough(found):
            break
    return found


async def test_a_follower_gets_what_comes_and_can_go_on_where_it_was(tmp_path: Path) -> None:
    async with running(World(tmp_path)) as world:
        world.print("before\n")
        await world.written()
        follower = world.reading.follow(ALL, world.journal.written, as_json)
        following = asyncio.ensure_future(take(follower, lambda found: len(found) == 3))
        for text in ("one\n", "two\nthree\n"):
            world.print(text)
            await world.written()
        found = await following
        assert [text for _, text in found] == ["one", "two", "three"]
        again = await take(world.reading.follow(ALL, found[0][0], as_json), lambda found: len(found) == 2)
        assert [text for _, text in again] == ["two", "three"]


async def test_a_slow_follower_loses_what_was_deleted_and_is_told(tmp_path: Path) -> None:
    async with running(World(tmp_path)) as world:
        world.print("first\n", "quiet")
        await world.written()
        follower = world.reading.follow(OutputFilter(function="flood"), 0, as_json)
        following = asyncio.ensure_future(anext(follower))
        for _ in range(2):
            world.print(b"f" * 65_000 + b"\n", "flood")
            await world.written()
        await following
        for _ in range(60):
            for _ in range(6):
                world.print(b"f" * 65_000 + b"\n", "flood")
            await world.written()
        found = await take(follower, lambda found: len(found) > 100)
        assert [text for number, text in found if not number] == [
            "[lines dropped: they were deleted before they were read]"
        ]


@pytest.mark.parametrize("read", [True, False])
async def test_a_deleted_segment_is_told_of_once_and_only_if_it_was_not_read(
    tmp_path: Path, read: bool
) -> None:
    async with running(World(tmp_path)) as world:
        world.print(("x" * 3000 + "\n") * (1 if read else 60), "quiet" if read else "flood")
        await world.written()
        place = reader.ForwardStream(tmp_path, "quiet" if read else "loud", 0)
        place.fill(ALL, world.journal.written)
        assert place.fill(ALL, world.journal.written) is not read
        for file in tmp_path.iterdir():
            file.unlink()
        told = []
        for _ in range(3):
            assert not place.fill(ALL, world.journal.written)
            told.append(place.lost)
            place.lost = False
        assert told == [not read, False, False]
        world.print("new\n" if read else "y" * 9000 + "\n", "quiet" if read else "flood")
        await world.written()
        assert place.fill(ALL, world.journal.written)
        assert not place.lost


async def test_followers_end_with_the_journal(tmp_path: Path) -> None:
    async with running(World(tmp_path)) as world:
        following = asyncio.ensure_future(take(world.reading.follow(ALL, 0, as_json), lambda _: False))
        world.print("one\n")
        await world.written()
        world.journal.end_readers()
        assert [text for _, text in await following] == ["one"]


async def test_one_key_does_not_keep_the_others_from_the_output(tmp_path: Path) -> None:
    world = World(tmp_path)
    with contextlib.ExitStack() as greedy:
        for _ in range(MOST_READERS_OF_A_KEY):
            greedy.enter_context(world.reading.reader("greedy"))
        with pytest.raises(TooManyReaders), world.reading.reader("greedy"):
            pass
        with world.reading.reader("other"), world.reading.reader():
            pass
    with world.reading.reader("greedy"):
        pass


async def test_readers_are_bounded(tmp_path: Path) -> None:
    world = World(tmp_path)
    blocks = [world.reading.reader() for _ in range(MOST_READERS)]
    for block in blocks:
        block.__enter__()
    with pytest.raises(TooManyReaders), world.reading.reader():
        pass
    for block in blocks:
        block.__exit__(None, None, None)
    with world.reading.reader():
        pass
