"""`hearth triggers`, `sources` and `emit`: show triggers and sources of events, and publish an event."""

from __future__ import annotations

import base64
import json
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from gateway.cli.common import (
    CommandError,
    Gateway,
    gateway_options,
    json_option,
    print_json,
    print_listing,
)
from gateway.cli.human import human_time
from gateway.cli.tables import glued, print_table
from gateway.cli.terminal import say


@click.command()
@gateway_options
@json_option
def triggers(url: str, key_file: Path | None, as_json: bool) -> None:
    """List the triggers, their next and their last fires.

    \b
    Examples:
      hearth triggers
      hearth triggers --json | jq '.[] | select(.fault)'
    """
    with Gateway(url, key_file) as gateway:
        listed = gateway.triggers()
    print_listing(
        listed,
        as_json,
        {
            "NAME": lambda trigger: trigger["name"],
            "CAUSE": lambda trigger: glued(trigger["definition"].get("schedule") or trigger["cause"]),
            "STARTS": lambda trigger: " ".join(f"{kind} {name}" for kind, name in trigger["action"].items()),
            "NEXT": lambda trigger: "paused" if trigger["paused"] else human_time(trigger["next"]),
            "LAST": lambda trigger: last_fire(trigger["last"]),
            "FAULT": lambda trigger: trigger["fault"] or "",
        },
        "No trigger yet. Declare one in functions.yaml: docs/triggers.md",
    )


@click.command()
@gateway_options
@json_option
def sources(url: str, key_file: Path | None, as_json: bool) -> None:
    """List the sources of events and counts of their messages.

    A source is a queue of a message broker. Its messages are counted since it was started.

    \b
    Examples:
      hearth sources
      hearth sources --json | jq '.[] | select(.state != "connected")'
    """
    with Gateway(url, key_file) as gateway:
        listed = gateway.ask("GET", "/sources")
    print_listing(
        listed,
        as_json,
        {
            "NAME": lambda source: source["name"],
            "KIND": lambda source: source["kind"],
            "STATE": lambda source: source["state"],
            "STARTS": lambda source: f"function {source['function']}" if source["function"] else "triggers",
            "MESSAGES": lambda source: (
                ", ".join(f"{count} {outcome}" for outcome, count in source["counts"].items()) or "-"
            ),
            "LAG": lambda source: "-" if source["lag"] is None else str(source["lag"]),
            "LAST": lambda source: human_time(source["last"]),
            # A connected source has recovered from its last error.
            "ERROR": lambda source: (source["error"] or "") if source["state"] != "connected" else "",
        },
        "No source of events yet. Declare one in functions.yaml: docs/sources.md",
    )


@click.command()
@gateway_options
@json_option
@click.argument("type", metavar="TYPE")
@click.option("--source", default="/hearth/cli", show_default=True, help="Source of the event.")
@click.option("--subject", help="Subject of the event, like the name of a file.")
@click.option(
    "--id", help="Id of the event. A second event with the same id starts nothing. Default: random."
)
@click.option("--data", "-d", metavar="TEXT", help="Data of the event: JSON, or any text.")
@click.option(
    "--file",
    "-f",
    metavar="PATH",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="Read the data from this file; - is stdin.",
)
@click.option("--content-type", metavar="TYPE", help="Content type. Default: guessed from the data.")
def emit(
    url: str,
    key_file: Path | None,
    as_json: bool,
    type: str,
    source: str,
    subject: str | None,
    id: str | None,
    data: str | None,
    file: Path | None,
    content_type: str | None,
) -> None:
    """Publish a CloudEvent and print what it started.

    TYPE is the event's type. Triggers match it.

    \b
    Examples:
      hearth emit com.example.order.paid --source /shop --data '{"order": 42}'
      hearth emit com.example.picture.added --subject a.jpg --file a.jpg
    """
    if data is not None and file is not None:
        raise click.UsageError("give only one of --data and --file")
    event = {"specversion": "1.0", "id": id or secrets.token_hex(16), "source": source, "type": type}
    event |= {"time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")}
    if subject is not None:
        event["subject"] = subject
    if data is not None:
        event |= data_of(data.encode(), content_type)
    elif file is not None:
        event |= data_of(sys.stdin.buffer.read() if file == Path("-") else file.read_bytes(), content_type)
    with Gateway(url, key_file) as gateway:
        answer = gateway.publish(event)
    if as_json:
        print_json(answer)
        return
    if not answer["started"]:
        say("No trigger matched this event. List the triggers: hearth triggers", err=True)
        return
    print_table(
        ("TRIGGER", "OUTCOME", "ID"),
        [(fire["trigger"], fire["outcome"], fire["id"] or fire["detail"]) for fire in answer["started"]],
    )
    if failed := [fire["trigger"] for fire in answer["started"] if fire["outcome"] == "failed"]:
        raise CommandError(f"triggers that matched but failed to start anything: {', '.join(failed)}")


def data_of(data: bytes, content_type: str | None) -> dict[str, Any]:
    """Return the members of an event that hold its data."""
    if content_type is None or content_type.partition(";")[0].endswith("json"):
        try:
            return {"datacontenttype": content_type or "application/json", "data": json.loads(data)}
        except ValueError:
            content_type = content_type or "text/plain; charset=utf-8"
    return {"datacontenttype": content_type, "data_base64": base64.b64encode(data).decode()}


def last_fire(fire: dict[str, Any] | None) -> str:
    """Return time and outcome of a fire, or `-` for None."""
    return "-" if fire is None else f"{human_time(fire['at'])} {fire['outcome']}"
