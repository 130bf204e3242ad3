"""The kernel tells of changed files: those that are whole at once, all others when they have settled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.assembly.file_events import WatchLost, kernel_changes
from pool.clock import VirtualClock


class Changes:
    """The changes in one folder, on a clock that stands still until it is advanced."""

    def __init__(self, folder: Path, recursive: bool = True, at_once: bool = False) -> None:
        self.clock = VirtualClock()
        self._changes = kernel_changes([folder], recursive, lambda path: True, self.clock, at_once)
        self._next: asyncio.Future[set[str]] | None = None

    async def begin(self) -> None:
        """Watch from now on."""
        self._next = asyncio.ensure_future(anext(self._changes))
        await self.told()

    async def told(self, seconds: float = 0) -> set[str]:
        """Return the names of changed files that are told within these seconds; empty if there are none."""
        assert self._next is not None
        await asyncio.sleep(0.05)  # the kernel's events have arrived by then
        await self.clock.advance(seconds)
        await asyncio.sleep(0.01)
        if not self._next.done():
            return set()
        names = {Path(path).name for path in self._next.result()}
        self._next = asyncio.ensure_future(anext(self._changes))
        return names

    async def close(self) -> None:
        """Stop watching."""
        assert self._next is not None
        self._next.cancel()
        with contextlib.suppress(asyncio.CancelledError, WatchLost):
            await self._next
        await self._changes.aclose()  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def watched(folder: Path, recursive: bool = True, at_once: bool = False) -> AsyncIterator[Changes]:
    changes = Changes(folder, recursive, at_once)
    await changes.begin()
    try:
        yield changes
    finally:
        await changes.close()


async def test_changes_are_told_together_once_they_have_settled(tmp_path: Path) -> None:
    async with watched(tmp_path) as changes:
        (tmp_path / "a.py").write_text("1")
        assert await changes.told(0.15) == set()
        (tmp_path / "b.py").write_text("1")
        assert await changes.told(0.15) == set(), "the second change starts the wait again"
        assert await changes.told(0.1) == {"a.py", "b.py"}
        (tmp_path / "a.py").unlink()
        assert await changes.told(0.25) == {"a.py"}


@pytest.mark.parametrize("replace", [False, True], ids=["written in place", "put in its place"])
async def test_at_once_a_whole_file_is_not_waited_for(tmp_path: Path, replace: bool) -> None:
    async with watched(tmp_path, at_once=True) as changes:
        if replace:
            (tmp_path / "a.py~").write_text("1")
            await changes.told(1)
            (tmp_path / "a.py~").rename(tmp_path / "a.py")
        else:
            (tmp_path / "a.py").write_text("1")
        assert "a.py" in await changes.told()


async def test_at_once_a_file_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    async with watched(tmp_path, at_once=True) as changes:
        with (tmp_path / "a.py").open("w") as file:
            file.write("def ")
            file.flush()
            assert await changes.told() == set()
            file.write("handle")
        assert await changes.told() == {"a.py"}


async def test_new_folders_are_watched_too_and_skipped_ones_are_not(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    async with watched(tmp_path) as changes:
        (tmp_path / "below" / "further").mkdir(parents=True)
        assert await changes.told(0.25) == {"below"}
        (tmp_path / "below" / "further" / "c.py").write_text("1")
        (tmp_path / ".git" / "index").write_text("1")
        assert await changes.told(0.25) == {"c.py"}


async def test_without_recursion_folders_below_are_not_watched(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    async with watched(tmp_path, recursive=False) as changes:
        (tmp_path / "below" / "c.py").write_text("1")
        assert await changes.told(0.25) == set()


async def test_a_folder_that_is_gone_ends_the_watch(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    async with watched(folder) as changes:
        folder.rename(tmp_path / "elsewhere")
        with pytest.raises(WatchLost):
            await changes.told()


async def test_a_folder_that_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await anext(kernel_changes([tmp_path / "nowhere"], True, lambda path: True, VirtualClock(), False))
