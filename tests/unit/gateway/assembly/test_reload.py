"""Live reload goes on when the kernel refuses to tell of changes, and when something unforeseen breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.assembly import file_events, file_polling
from gateway.assembly.definitions_file import DefinitionsFile
from gateway.assembly.file_polling import poll_changes, take_snapshot
from gateway.assembly.reload import Reload
from gateway.assembly.settings import Settings
from pool.clock import LoopClock, VirtualClock
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor
from scheduler.definitions.file import Definitions, load

FILE = """\
version: 1
functions:
  hello: {runtime: python, source: code, handler: "main:hello"}
  %s: {image: "some/image"}
"""


class FakeRegistry:
    """Notes which functions were brought into service."""

    def __init__(self) -> None:
        self.applied: list[set[str]] = []
        self.faults: list[Exception] = []
        """Raised by the next times, one each."""

    async def apply(self, definitions: Definitions) -> None:
        if self.faults:
            raise self.faults.pop()
        self.applied.append(set(definitions.functions))

    def serves(self, name: str) -> bool:
        """Return whether a function was in the latest definitions."""
        return bool(self.applied) and name in self.applied[-1]


class World:
    """A file with a source folder, and the loop that reloads it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "functions.yaml"
        self.code = folder / "code" / "main.py"
        self.code.parent.mkdir()
        self.code.write_text("def hello(event): return 1\n")
        self.write("first")
        self.registry = FakeRegistry()
        self.metrics = Metrics()
        self.supervisor = Supervisor(LoopClock(), self.metrics)

    def write(self, name: str) -> None:
        self.file.write_text(FILE % name)

    def start(self) -> None:
        file = DefinitionsFile.of(Settings(functions=self.file))
        reloading = Reload(self.registry, file, load(self.file), LoopClock(), self.supervisor)  # type: ignore[arg-type]
        self.task = self.supervisor.supervise("reload", reloading.run)

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not done():
                await asyncio.sleep(0.01)

    async def up(self, *loops: str) -> None:
        """Wait until these loops run: they have begun to watch soon after."""
        await self.until(
            lambda: {(name,) for name in loops} <= {labels for labels, _ in self.metrics.loop_up.read()}
        )


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(file_polling, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(file_polling, "SETTLE_SECONDS", 0.02)
    made = World(tmp_path)
    yield made
    made.task.cancel()
    await asyncio.gather(made.task, return_exceptions=True)


def refuse_to_tell(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Have every watch of the kernel's refused, as over its limit."""

    def watch(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(file_events.FileEvents, "watch", watch)


async def test_over_the_kernels_limit_files_are_looked_at_and_the_log_says_what_to_do(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    error = OSError(28, "No space left on device")
    refuse_to_tell(monkeypatch, error)
    world.start()
    await world.until(lambda: bool(world.registry.applied))  # it has looked once, to miss nothing
    world.write("second")
    await world.until(lambda: world.registry.serves("second"))
    count = len(world.registry.applied)
    await asyncio.to_thread(world.code.write_text, "def hello(event): return 2\n")
    await world.until(lambda: len(world.registry.applied) > count)
    [told] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert str(error) in told and "sysctl fs.inotify.max_user_watches=" in told


async def test_a_change_while_the_kernel_refuses_is_not_missed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_tell(monkeypatch, OSError("limit reached"))
    world.start()
    world.write("second")  # before anybody has looked
    await world.until(lambda: world.registry.serves("second"))


async def test_a_failure_of_taking_a_change_over_does_not_end_reloading(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.start()
    await world.up("file-watch", "source-watch")
    world.registry.faults = [KeyError("unforeseen")]

    async def change_until_seen() -> None:  # the watch may begin a moment after its loop
        while world.registry.faults:
            world.write("second")
            await asyncio.sleep(0.3)

    await asyncio.wait_for(change_until_seen(), 20)
    await world.until(lambda: world.registry.serves("second"))
    assert "background loop reload failed" in caplog.text
    assert not world.task.done()


def test_a_snapshot_has_the_files_that_concern_it(tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    for file in (tmp_path / "a.py", tmp_path / "a.pyc", below / "b.py"):
        file.write_text("x")

    def names(recursive: bool) -> list[str]:
        paths = [tmp_path, tmp_path / "missing"]
        return sorted(Path(path).name for path in take_snapshot(paths, recursive, is_source))

    assert names(recursive=True) == ["a.py", "b.py"]
    assert names(recursive=False) == ["a.py"]
    (below / "b.py").unlink()
    (tmp_path / "dangling.py").symlink_to(tmp_path / "nowhere")
    assert names(recursive=True) == ["a.py"]


def is_source(path: str) -> bool:
    return path.endswith(".py")


def test_a_file_that_is_written_again_at_once_is_another(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("x")
    before = take_snapshot([tmp_path], True, is_source)
    file.write_text("y")
    assert take_snapshot([tmp_path], True, is_source) != before


async def test_changes_are_told_when_files_have_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor that writes in several steps is not looked at in between."""
    first, half, whole = ({"a.py": (1, size, 0), "b.py": (2, 0, 0)} for size in (0, 1, 2))
    looks = [first, first, half, whole, whole, {"b.py": (2, 0, 0)}, {"b.py": (2, 0, 0)}]
    left = iter(looks)
    monkeypatch.setattr(file_polling, "take_snapshot", lambda *_: next(left))
    clock = VirtualClock()
    changes = poll_changes([], True, is_source, clock)
    for looks_left in (2, 0):
        told = asyncio.ensure_future(anext(changes))
        async with asyncio.timeout(10):
            while not told.done():
                await clock.advance(0.1)
                await asyncio.sleep(0.001)  # each look is in a thread
        assert told.result() == {"a.py"}
        assert len(list(left)) == looks_left
        left = iter(looks[len(looks) - looks_left :])
