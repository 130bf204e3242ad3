"""Tests that take turns: many at once, or one alone. Here threads stand for processes, on locks of their own.

And the long ones first.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import turns
from harness import eventually


class Visitor:
    """A thread that wants its turn, has it, and keeps it until it shall `go`."""

    def __init__(self, alone: bool) -> None:
        self.inside = threading.Event()
        self.leaves = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(alone,))
        self.thread.start()

    def run(self, alone: bool) -> None:
        with turns.turn(alone):
            self.inside.set()
            self.leaves.wait(60)

    def go(self) -> None:
        self.leaves.set()
        self.thread.join()


TESTS = Path(__file__).parents[2]
Visit = Callable[[bool], Visitor]


@pytest.fixture
def visit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Visit]:
    """Have somebody come. In the end all have gone, in the order in which they came."""
    monkeypatch.setattr(turns, "ROOM", tmp_path)
    monkeypatch.setattr(turns, "DOOR", tmp_path / "door")
    turns.DOOR.touch()
    came: list[Visitor] = []

    def come(alone: bool) -> Visitor:
        came.append(Visitor(alone))
        return came[-1]

    yield come
    for visitor in came:
        visitor.go()


def door_is_held() -> bool:
    """Whether somebody stands in the door."""
    with turns.DOOR.open() as door:
        try:
            fcntl.flock(door, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_most_have_their_turn_beside_each_other(visit: Visit) -> None:
    assert all(visit(False).inside.wait(10) for _ in range(3))


def test_who_must_be_alone_waits_for_the_others_and_keeps_them_out(visit: Visit) -> None:
    first = visit(False)
    assert first.inside.wait(10)
    alone = visit(True)
    eventually(door_is_held)
    late = visit(False)
    assert not alone.inside.wait(0.1) and not late.inside.is_set(), "it came first, but the room is not empty"
    first.go()
    assert alone.inside.wait(10)
    assert not late.inside.wait(0.1)
    alone.go()
    assert late.inside.wait(10)


def test_long_files_come_first_and_else_nothing_moves() -> None:
    files = ["test_turns.py", "test_clock.py", "test_pool_machine.py", "test_units.py"]
    given = [next(TESTS.rglob(file)) for file in files]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *given]
    listed = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=True).stdout
    names = [line.partition("::")[0].rpartition("/")[2] for line in listed.splitlines() if "::" in line]
    assert list(dict.fromkeys(names)) == [files[2], *files[:2], files[3]]
