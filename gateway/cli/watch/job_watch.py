"""Progress of a job: a bar while it runs, and a table of its tasks at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from gateway.cli.client import GatewayClient, Refused
from gateway.cli.common import print_json
from gateway.cli.human import human_seconds
from gateway.cli.tables import print_table
from gateway.cli.terminal import say
from gateway.cli.watch.watching import Watched, short_line, watch

MAX_TASKS_SHOWN = 50
"""Most tasks in the table at the end, so that it fits a screen or two."""
MAX_RESULT_CHARS = 80
"""Most characters of a result in the table, so that a row takes two lines at most."""
MAX_FAULT_CHARS = 240
"""Most characters of a failure in the table: three lines of a narrow terminal."""
ENDED = ("succeeded", "failed", "cancelled")


def follow(gateway: GatewayClient, job: dict[str, Any]) -> dict[str, Any]:
    """Show the progress of a job until it ends, and return it. Ctrl-C ends the command, and not the job."""
    id = job["id"]
    watched = Watched(
        kind="job",
        place=f"/jobs/{id}",
        show=f"hearth jobs show {id}",
        follow=f"hearth jobs show --follow {id}",
        cancel=f"hearth jobs cancel {id}",
    )
    return watch(gateway, watched, job, lambda job: job["status"] not in ENDED, shown)


@contextmanager
def shown(job: dict[str, Any]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Show a bar on stderr if that is a terminal, else one line. Give the function that updates it."""
    if not sys.stderr.isatty():
        say(f"job {job['id']}: {job['count']} tasks, {job['parallel']} at once", err=True)
        yield lambda job: None
        return
    # Imported only here, because rich takes a tenth of a second to import.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("job {task.fields[id]}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=True),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )
    task = bar.add_task(in_words(job, markup=True), total=job["count"], id=job["id"][:8])

    def update(job: dict[str, Any]) -> None:
        done = job["count"] - job["tasks"]["queued"] - job["tasks"]["running"]
        bar.update(task, completed=done, description=in_words(job, markup=True))

    with bar:
        update(job)
        yield update


def in_words(job: dict[str, Any], markup: bool = False) -> str:
    """Return how many tasks are in each status, without statuses that no task has."""
    colours = {"succeeded": "green", "failed": "red", "running": "cyan"}
    parts = []
    for state, number in job["tasks"].items():
        if number:
            colour = colours.get(state) if markup else None
            text = f"{number} {state}"
            parts.append(f"[{colour}]{text}[/{colour}]" if colour else text)
    return ", ".join(parts)


def show_end(gateway: GatewayClient, job: dict[str, Any], as_json: bool) -> None:
    """Print the tasks of a job, or only failed ones of a large job, and then its status."""
    id = job["id"]
    failed_only = job["count"] > MAX_TASKS_SHOWN
    query = {"limit": str(MAX_TASKS_SHOWN), **({"status": "failed"} if failed_only else {})}
    tasks = gateway.ask("GET", f"/jobs/{id}/tasks", params=query)["tasks"]
    if as_json:
        print_json({**job, "listed": tasks})
        return
    if tasks:
        print_table(
            ("INDEX", "STATUS", "ATTEMPTS", "TOOK", "RESULT"),
            [
                (
                    str(task["index"]),
                    task["status"],
                    str(task["attempts"]),
                    took(task),
                    outcome_of(gateway, task),
                )
                for task in tasks
            ],
        )
    say(f"job {id} {job['status']}: {in_words(job)}", err=True)
    if job["status"] in ("failed", "cancelled"):
        say(f"  run the others again: hearth jobs retry {id}", err=True)


def took(task: dict[str, Any]) -> str:
    """Return the duration of a task's latest run, or `-` if it has not ended."""
    if not task["started"] or not task["ended"]:
        return "-"
    begin, end = (datetime.fromisoformat(task[key]) for key in ("started", "ended"))
    return human_seconds(max(0.0, (end - begin).total_seconds()))


def outcome_of(gateway: GatewayClient, task: dict[str, Any]) -> str:
    """Return the beginning of a task's result, or the cause of its failure, on one short line."""
    text = task["detail"] or task["error"] or ""
    if task["status"] == "succeeded":
        try:
            _, body = gateway.result(task["invocation"])
        except Refused as error:
            return error.detail
        text = body[: 4 * MAX_RESULT_CHARS].decode(errors="replace")
        return short_line(text, MAX_RESULT_CHARS)
    return short_line(text, MAX_FAULT_CHARS)
