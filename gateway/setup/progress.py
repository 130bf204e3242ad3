"""Progress of what takes long: a moving bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Step(Protocol):
    """One piece of work under way."""

    def show(self, detail: str, done: float | None = None) -> None:
        """Say what happens now, and how much is done: 0 to 1, None when that is not known."""


class _Plain:
    def show(self, detail: str, done: float | None = None) -> None:
        """Plain output has the beginning and the end only: a log needs no more."""


class _Moving:
    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._task = progress.add_task(escape(title), total=None, detail="")

    def show(self, detail: str, done: float | None = None) -> None:
        short = escape(detail[:60])
        if done is None:
            self._progress.update(self._task, detail=short)
        else:
            self._progress.update(self._task, detail=short, total=1.0, completed=done)


@contextmanager
def step(title: str, console: Console | None = None) -> Iterator[Step]:
    """Show that `title` is being done until the block ends, then say how long it took."""
    console = console or Console(stderr=True, highlight=False)
    began = time.monotonic()
    if console.is_terminal:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[detail]}"),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            yield _Moving(progress, title)
    else:
        console.print(f"{title} ...", markup=False, soft_wrap=True)
        yield _Plain()
    took = time.monotonic() - began
    console.print(f"{title}: done in {took:.1f} s", markup=False, soft_wrap=True)
