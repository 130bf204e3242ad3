"""`hearth workflows`, `start`, `runs`, `resume` and `graph`: show and run workflows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from gateway.cli.client import GatewayClient, Refused
from gateway.cli.commands.calling.call_request import STDIN, body_of, opened, type_of
from gateway.cli.common import (
    CallerError,
    Gateway,
    gateway_options,
    json_option,
    limit_option,
    name_nearest,
    print_json,
    print_listing,
    raw_option,
    say_if_more,
)
from gateway.cli.human import human_time
from gateway.cli.names import WORKFLOW
from gateway.cli.terminal import say, write_body
from gateway.cli.watch.run_watch import detail_of, follow, say_end, show_end, took


@click.command()
@gateway_options
@json_option
def workflows(url: str, key_file: Path | None, as_json: bool) -> None:
    """List the workflows that functions.yaml declares.

    \b
    Examples:
      hearth workflows
      hearth workflows --json | jq '.[].name'
    """
    with Gateway(url, key_file) as gateway:
        listed = gateway.ask("GET", "/workflows")
    print_listing(
        listed,
        as_json,
        {
            "NAME": lambda workflow: workflow["name"],
            "STEPS": lambda workflow: ", ".join(step["name"] for step in workflow["steps"]),
        },
        "No workflow yet. Declare one in functions.yaml: docs/workflows.md",
    )


@click.command()
@gateway_options
@json_option
@click.argument("workflow", type=WORKFLOW)
@click.option(
    "--input",
    "-i",
    "given",
    metavar="JSON|@FILE|-",
    help="Input of the run: text, a file, or stdin.",
)
@click.option(
    "--content-type", metavar="TYPE", help="Content type. Default: guessed from the text or the file's name."
)
@click.option("--detach", is_flag=True, help="Print the run's id, and do not wait for its end.")
@raw_option
def start(
    url: str,
    key_file: Path | None,
    as_json: bool,
    workflow: str,
    given: str | None,
    content_type: str | None,
    detach: bool,
    raw: bool,
) -> None:
    """Start a run of WORKFLOW and print its output.

    The output is printed byte for byte, but see --raw. The gateway stores the run and continues it without this
    command: Ctrl-C ends only this command. The exit status is 0 if the run succeeded, 1 if it failed or was
    cancelled, and 2 if you have to change something.

    \b
    Examples:
      hearth start gallery --input '{"title":"Landscapes"}' > gallery.html
      hearth start resize --input @photo.jpg > small.jpg
      hearth start shop --input @order.json --detach
    """
    content, found = input_of(given)
    kind = content_type or found
    with Gateway(url, key_file) as gateway:
        place = f"/workflows/{quote(workflow, safe='')}"
        try:
            run = gateway.start(place, content, {"content-type": kind} if kind else {})
        except Refused as error:
            if error.status == 404:
                name_nearest(error, "workflow", workflow, lambda: names_of(gateway))
            raise
        if detach:
            if as_json:
                print_json(run)
            else:
                say(run["id"])
            return
        run = follow(gateway, run["id"])
        if as_json:
            print_json(run)
        elif run["status"] == "succeeded":
            write_body(gateway.fetch(f"{place_of(run['id'])}/output"), raw)
    say_end(run)
    end_with(run)


@click.command()
@gateway_options
@json_option
@click.argument("id", required=False, metavar="[ID]")
@click.option("--workflow", metavar="NAME", type=WORKFLOW, help="Only runs of this workflow.")
@click.option(
    "--status", metavar="STATUS", help="Only runs with this status: running, succeeded, failed or cancelled."
)
@limit_option
@click.option("--follow", "wait", is_flag=True, help="With ID: show its progress until it ends.")
@click.option("--cancel", is_flag=True, help="With ID: cancel this run.")
def runs(
    url: str,
    key_file: Path | None,
    as_json: bool,
    id: str | None,
    workflow: str | None,
    status: str | None,
    limit: int,
    wait: bool,
    cancel: bool,
) -> None:
    """List the latest runs of workflows, or show the steps of one.

    \b
    Examples:
      hearth runs --workflow gallery --status failed
      hearth runs 6f1d2c9ab04e4f7c8a3e5d7b90c1f2e4
      hearth runs --follow 6f1d2c9ab04e4f7c8a3e5d7b90c1f2e4
      hearth runs --cancel 6f1d2c9ab04e4f7c8a3e5d7b90c1f2e4
    """
    if id is None and (wait or cancel):
        raise click.UsageError("--follow and --cancel need the id of a run; list the runs: hearth runs")
    with Gateway(url, key_file) as gateway:
        if id is None:
            given = {"workflow": workflow, "status": status, "limit": str(limit)}
            query = {key: value for key, value in given.items() if value}
            listed = gateway.ask("GET", "/runs", params=query)
            list_runs(listed, as_json)
            return
        run = gateway.ask("GET", place_of(id))
        if cancel:
            if run["status"] != "running":  # DELETE would forget an ended run
                raise CallerError(f"cannot cancel run {id}: its status is {run['status']}")
            gateway.ask("DELETE", place_of(id))
        run = follow(gateway, id) if wait else gateway.ask("GET", place_of(id))
    show(run, as_json)
    if wait:
        end_with(run)


@click.command()
@gateway_options
@json_option
@click.argument("id", metavar="ID")
@click.option("--detach", is_flag=True, help="Do not wait for its end.")
def resume(url: str, key_file: Path | None, as_json: bool, id: str, detach: bool) -> None:
    """Continue a run that failed or was cancelled.

    Steps that have not succeeded run again with all their attempts. Steps that have succeeded do not.

    \b
    Examples:
      hearth resume 6f1d2c9ab04e4f7c8a3e5d7b90c1f2e4
    """
    with Gateway(url, key_file) as gateway:
        gateway.ask("POST", f"{place_of(id)}/resume")
        run = gateway.ask("GET", place_of(id)) if detach else follow(gateway, id)
    show(run, as_json)
    if not detach:
        end_with(run)


@click.command()
@gateway_options
@click.argument("workflow", required=False, metavar="[WORKFLOW]", type=WORKFLOW)
@click.option("--run", "run_id", metavar="ID", help="Draw this run with the states of its steps.")
@click.option(
    "--output",
    "-o",
    metavar="FILE.svg",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write. Default: stdout.",
)
def graph(
    url: str, key_file: Path | None, workflow: str | None, run_id: str | None, output: Path | None
) -> None:
    """Draw a workflow or a run as SVG.

    \b
    Examples:
      hearth graph gallery -o gallery.svg
      hearth graph --run 6f1d2c9ab04e4f7c8a3e5d7b90c1f2e4 > run.svg
    """
    if workflow is None and run_id is None:
        raise click.UsageError("give the name of a workflow, or --run with the id of a run")
    with Gateway(url, key_file) as gateway:
        drawn = place_of(run_id) if run_id else f"/workflows/{quote(workflow or '', safe='')}"
        picture = gateway.fetch(f"{drawn}/graph.svg")
    if output is None:
        write_body(picture)
        return
    try:
        output.write_bytes(picture)
    except OSError as error:
        raise CallerError(f"cannot write {output}: {error.strerror}") from error


def names_of(gateway: GatewayClient) -> list[str]:
    """Return the names of the workflows."""
    return [workflow["name"] for workflow in gateway.ask("GET", "/workflows")]


def place_of(run: str) -> str:
    """Return the path of a run in the API."""
    return f"/runs/{quote(run, safe='')}"


def input_of(given: str | None) -> tuple[bytes, str | None]:
    """Return the input of a run, and its content type or None if that is unknown. Raises `CallerError`."""
    body = STDIN if given == "-" else body_of(given, None)
    if body == STDIN:
        return sys.stdin.buffer.read(), None
    if isinstance(body, Path):
        with opened(body) as file:
            return file.read(), type_of(body)
    return body or b"", type_of(body)


def list_runs(listed: dict[str, Any], as_json: bool) -> None:
    """Print a page of runs, newest first."""
    if as_json:
        print_json(listed)
        return
    print_listing(
        listed["runs"],
        False,
        {
            "ID": lambda run: run["id"],
            "WORKFLOW": lambda run: run["workflow"],
            "STATUS": lambda run: run["status"],
            "STARTED": lambda run: human_time(run["started"]),
            "TOOK": took,
            "DETAIL": detail_of,
        },
        "No run to list. Start one: hearth start WORKFLOW",
    )
    say_if_more(listed)


def show(run: dict[str, Any], as_json: bool) -> None:
    """Print one run."""
    if as_json:
        print_json(run)
    else:
        show_end(run)


def end_with(run: dict[str, Any]) -> None:
    """End the command with status 1 unless the run has succeeded."""
    if run["status"] != "succeeded":
        click.get_current_context().exit(1)
