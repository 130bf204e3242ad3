"""Tests run beside each other in several processes: which come first, and that one marked `alone` is alone.

A conftest that imports the hooks from here has it so.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

DOOR, ROOM = Path(__file__), Path(__file__).parent
"""What is locked. Nothing is written to either: they are just the same for all processes of a run."""


@contextmanager
def lock(place: Path, way: int) -> Iterator[None]:
    """Hold a file or folder with others (`LOCK_SH`) or without (`LOCK_EX`), after waiting for those who hold it."""
    file = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(file, way)
        yield
    finally:
        os.close(file)


@contextmanager
def turn(alone: bool) -> Iterator[None]:
    """Be in the room. Who waits to be alone there stands in the door: otherwise others would come for ever."""
    with ExitStack() as room:
        with lock(DOOR, fcntl.LOCK_EX):
            room.enter_context(lock(ROOM, fcntl.LOCK_EX if alone else fcntl.LOCK_SH))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with a test that has a time-out of its own come first: it is long, and at the end all would wait."""
    long = {item.path for item in items if item.get_closest_marker("timeout")}
    items.sort(key=lambda item: item.path not in long)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before pytest-timeout begins to count
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Wait for the test's turn."""
    with turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)
