"""`hearth triggers`, `sources` and `emit`: what starts functions by itself, and setting it off."""

from __future__ import annotations

import base64
import json
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from gateway.cli.common import Failure, Gateway, gateway_options, json_option, print_json, print_table
from gateway.cli.terminal import say


@click.command()
@gateway_options
@json_option
def triggers(url: str, key_file: Path | None, as_json: bool) -> None:
    """List the triggers: what they start, when they fire next, what their last fire came to.

    \b
    Examples:
      hearth triggers
      hearth triggers --json | jq '.[] | select(.fault)'
    """
    with Gateway(url, key_file) as gateway:
        listed = gateway.triggers()
    if as_json:
        print_json(listed)
        return
    print_table(
        ("NAME", "CAUSE", "STARTS", "NEXT", "LAST", "FAULT"),
        [
            (
                trigger["name"],
                trigger["definition"].get("schedule") or trigger["cause"],
                " ".join(f"{kind} {name}" for kind, name in trigger["action"].items()),
                "paused" if trigger["paused"] else moment(trigger["next"]),
                last_of(trigger["last"]),
                trigger["fault"] or "",
            )
            for trigger in listed
        ],
    )


@click.command()
@gateway_options
@json_option
def sources(url: str, key_file: Path | None, as_json: bool) -> None:
    """List the sources: whether they are connected, and what became of their messages since they were started.

    \b
    Examples:
      hearth sources
      hearth sources --json | jq '.[] | select(.state != "connected")'
    """
    with Gateway(url, key_file) as gateway:
        listed = gateway.ask("GET", "/sources")
    if as_json:
        print_json(listed)
        return
    print_table(
        ("NAME", "KIND", "STATE", "STARTS", "MESSAGES", "LAG", "LAST", "ERROR"),
        [
            (
                source["name"],
                source["kind"],
                source["state"],
                f"function {source['function']}" if source["function"] else "triggers",
                ", ".join(f"{count} {outcome}" for outcome, count in source["counts"].items()) or "-",
                "-" if source["lag"] is None else str(source["lag"]),
                moment(source["last"]),
                (source["error"] or "") if source["state"] != "connected" else "",  # else it is over
            )
            for source in listed
        ],
    )


@click.command()
@gateway_options
@json_option
@click.argument("type", metavar="TYPE")
@click.option("--source", default="/hearth/cli", show_default=True, help="Where it happened.")
@click.option("--subject", help="What it happened to.")
@click.option("--id", help="Id of the event; the same once more starts nothing again. Random if not given.")
@click.option("--data", "-d", metavar="TEXT", help="Its data: JSON, or any text.")
@click.option(
    "--file",
    "-f",
    metavar="PATH",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="Its data from this file; - is stdin.",
)
@click.option("--content-type", metavar="TYPE", help="Type of the data. Without it: found out from the data.")
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
    """Publish a CloudEvent of TYPE, and print what it has started.

    \b
    Examples:
      hearth emit com.example.order.paid --source /shop --data '{"order": 42}'
      hearth emit com.example.picture.added --subject a.jpg --file a.jpg --content-type image/jpeg
    """
    if data is not None and file is not None:
        raise click.UsageError("give one of --data and --file")
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
        say("no trigger's condition is met by it; `hearth triggers` lists them", err=True)
        return
    print_table(
        ("TRIGGER", "OUTCOME", "ID"),
        [(fire["trigger"], fire["outcome"], fire["id"] or fire["detail"]) for fire in answer["started"]],
    )
    if failed := [fire["trigger"] for fire in answer["started"] if fire["outcome"] == "failed"]:
        raise Failure(f"nothing was started by {', '.join(failed)}")


def data_of(data: bytes, content_type: str | None) -> dict[str, Any]:
    """The members that hold an event's data."""
    if content_type is None or content_type.partition(";")[0].endswith("json"):
        try:
            return {"datacontenttype": content_type or "application/json", "data": json.loads(data)}
        except ValueError:
            content_type = content_type or "text/plain; charset=utf-8"
    return {"datacontenttype": content_type, "data_base64": base64.b64encode(data).decode()}


def moment(text: str | None) -> str:
    """A time of the API as this machine's people write it; `-` for none."""
    if text is None:
        return "-"
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def last_of(fire: dict[str, Any] | None) -> str:
    """The latest fire in words."""
    return "-" if fire is None else f"{moment(fire['at'])} {fire['outcome']}"
