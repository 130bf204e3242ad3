"""Runs a script, and on SIGUSR1 writes the names of the tasks that are not done into the file `tasks` of the folder
that it was started in, one a line: `python watched_gateway.py hearth serve ...`."""

import asyncio
import runpy
import signal
import sys
from pathlib import Path


def write_tasks(*_: object) -> None:
    """Whole at once: who waits for the file may read it as soon as it is there."""
    tasks = asyncio.all_tasks()  # the signal's handler runs between two callbacks of the loop
    fresh = Path("tasks~")
    fresh.write_text("".join(f"{getattr(task.get_coro(), '__qualname__', '?')}\n" for task in tasks))
    fresh.replace("tasks")


signal.signal(signal.SIGUSR1, write_tasks)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
