"""`hearth jobs`: lists, shows and changes jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gateway.cli.common import (
    Gateway,
    gateway_options,
    json_option,
    limit_option,
    print_json,
    print_listing,
    say_if_more,
)
from gateway.cli.groups import ListByDefault
from gateway.cli.human import human_time
from gateway.cli.terminal import say
from gateway.cli.watch.job_watch import follow, in_words, show_end


@click.group(cls=ListByDefault)
def jobs() -> None:
    """List, show and cancel jobs.

    `hearth run` and POST /jobs start them.

    \b
    Examples:
      hearth jobs
      hearth jobs show 0f3a1c5b7d9e4f60a1b2c3d4e5f60718 --follow
      hearth jobs cancel 0f3a1c5b7d9e4f60a1b2c3d4e5f60718
    """


@jobs.command("list")
@gateway_options
@json_option
@click.option("--status", help="Only jobs with this status: running, succeeded, failed or cancelled.")
@limit_option
def list_jobs(url: str, key_file: Path | None, as_json: bool, status: str | None, limit: int) -> None:
    """List the latest jobs, and the jobs that functions.yaml declares.

    \b
    Examples:
      hearth jobs list
      hearth jobs list --status failed --json
    """
    with Gateway(url, key_file) as gateway:
        listed = gateway.ask(
            "GET", "/jobs", params={"limit": str(limit), **({"status": status} if status else {})}
        )
    if as_json:
        print_json(listed)
        return
    print_listing(
        listed["jobs"],
        False,
        {
            "ID": lambda job: job["id"],
            "WHAT": lambda job: job["name"] or job["function"] or job["image"],
            "STATUS": lambda job: job["status"],
            "TASKS": tasks_of,
            "CREATED": lambda job: human_time(job["created"]),
        },
        "No job to list. Start one: hearth run IMAGE|FUNCTION|JOB",
    )
    say_if_more(listed)
    if listed["declared"]:
        say(f"\nDeclared: {', '.join(listed['declared'])}. Start one: hearth run NAME")


@jobs.command("show")
@gateway_options
@json_option
@click.argument("id", metavar="ID")
@click.option("--follow", "wait", is_flag=True, help="Show its progress until it ends.")
def show_job(url: str, key_file: Path | None, as_json: bool, id: str, wait: bool) -> None:
    """Show a job and its tasks.

    A job with over 50 tasks is shown with its failed tasks only. With --follow the exit status is 0 only if every
    task has succeeded.

    \b
    Examples:
      hearth jobs show 0f3a1c5b7d9e4f60a1b2c3d4e5f60718
      hearth jobs show --follow 0f3a1c5b7d9e4f60a1b2c3d4e5f60718
    """
    with Gateway(url, key_file) as gateway:
        job = gateway.ask("GET", f"/jobs/{id}")
        if wait:
            job = follow(gateway, job)
        show_end(gateway, job, as_json)
    if wait and job["status"] != "succeeded":
        click.get_current_context().exit(1)


@jobs.command("cancel")
@gateway_options
@json_option
@click.argument("id", metavar="ID")
def cancel_job(url: str, key_file: Path | None, as_json: bool, id: str) -> None:
    """Cancel a job.

    Waiting tasks never run, and running tasks are interrupted.

    \b
    Examples:
      hearth jobs cancel 0f3a1c5b7d9e4f60a1b2c3d4e5f60718
    """
    change(url, key_file, as_json, "POST", f"/jobs/{id}/cancel")


@jobs.command("retry")
@gateway_options
@json_option
@click.argument("id", metavar="ID")
def retry_job(url: str, key_file: Path | None, as_json: bool, id: str) -> None:
    """Run the tasks of an ended job again that have not succeeded.

    \b
    Examples:
      hearth jobs retry 0f3a1c5b7d9e4f60a1b2c3d4e5f60718
      hearth jobs show --follow 0f3a1c5b7d9e4f60a1b2c3d4e5f60718
    """
    change(url, key_file, as_json, "POST", f"/jobs/{id}/retry")


@jobs.command("forget")
@gateway_options
@json_option
@click.argument("id", metavar="ID")
def forget_job(url: str, key_file: Path | None, as_json: bool, id: str) -> None:
    """Delete an ended job, its results and its kept containers.

    \b
    Examples:
      hearth jobs forget 0f3a1c5b7d9e4f60a1b2c3d4e5f60718
    """
    change(url, key_file, as_json, "DELETE", f"/jobs/{id}")


def tasks_of(job: dict[str, Any]) -> str:
    """Return how many tasks of a job have ended, and how many have failed, as `7/10, 2 failed`."""
    tasks = job["tasks"]
    ended = job["count"] - tasks["queued"] - tasks["running"]
    return f"{ended}/{job['count']}" + (f", {tasks['failed']} failed" if tasks["failed"] else "")


def change(url: str, key_file: Path | None, as_json: bool, method: str, path: str) -> None:
    """Send a request about a job, and print its status afterwards."""
    with Gateway(url, key_file) as gateway:
        job = gateway.ask(method, path)
    if job is None:
        say("The job, its results and its kept containers were deleted.", err=True)
    elif as_json:
        print_json(job)
    else:
        say(f"job {job['id']} {job['status']}: {in_words(job)}")
