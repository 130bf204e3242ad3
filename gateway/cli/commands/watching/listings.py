"""`hearth functions` and `hearth ps`: show functions and instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from gateway.cli.common import (
    Gateway,
    check_function,
    gateway_options,
    json_option,
    print_json,
    print_listing,
)
from gateway.cli.human import human_seconds, human_size
from gateway.cli.names import FUNCTION
from gateway.cli.terminal import say

LINES_SHOWN = 30
"""Last lines of a faulty function's output that are shown: a traceback through a few modules."""
DIGEST_SHOWN = 12
"""Characters of a digest in tables. They are enough to tell versions apart."""


@click.command()
@gateway_options
@json_option
def functions(url: str, key_file: Path | None, as_json: bool) -> None:
    """List the deployed functions, their states and faults.

    Below the list is what each faulty one printed last, such as a traceback.

    \b
    Examples:
      hearth functions
      hearth functions --json | jq '.[] | select(.state == "failed")'
    """
    with Gateway(url, key_file) as gateway:
        listed = gateway.functions()
    print_listing(
        listed,
        as_json,
        {
            "NAME": lambda f: f["name"],
            "KIND": lambda f: f["kind"],
            "STATE": lambda f: f["state"],
            "INPUT": lambda f: f.get("input", "any"),
            "VERSION": lambda f: (f["version"] or "-")[:DIGEST_SHOWN],
            "FAULT": lambda f: " ".join((f["fault"] or "").split()),
        },
        "No function yet. Write one: hearth init NAME",
    )
    if not as_json:
        say_printed(listed)


def say_printed(listed: Sequence[Mapping[str, Any]]) -> None:
    """Print what instances of faulty functions printed last, as a traceback."""
    for function in listed:
        lines = (function.get("printed") or "").rstrip().splitlines()
        if not lines:
            continue
        say()
        say(f"{function['name']} printed before its fault:")
        if len(lines) > LINES_SHOWN:
            say(f"  | ({len(lines) - LINES_SHOWN} earlier lines: hearth functions --json)")
        for line in lines[-LINES_SHOWN:]:
            say(f"  | {line}")


@click.command()
@gateway_options
@json_option
@click.option("--function", type=FUNCTION, help="Only instances of this function.")
def ps(url: str, key_file: Path | None, as_json: bool, function: str | None) -> None:
    """List the instances, prewarm pools, spares and memory in use. With --function, also say why each was started.

    \b
    Examples:
      hearth ps
      hearth ps --function hello
      watch -n1 hearth ps
    """
    with Gateway(url, key_file) as gateway:
        instances, pool = gateway.instances(function), gateway.pool()
        if not instances:
            check_function(gateway, function)
    if as_json:
        print_json({"instances": instances, "pool": pool})
        return
    why = {"WHY": lambda i: i.get("started_because") or ""} if function else {}
    print_listing(
        instances,
        False,
        {
            "ID": lambda i: i["id"],
            "FUNCTION": lambda i: i["function"] or "-",
            "STATE": lambda i: i["state"],
            "IN USE": lambda i: str(i["in_use"]),
            "SERVED": lambda i: str(i["served"]),
            "MEMORY": lambda i: human_size(i["memory"]),
            "AGE": lambda i: human_seconds(i["age"]),
            "IDLE": lambda i: human_seconds(i["idle"]),
            **why,
        },
        f"No instance{' of ' + function if function else ''} yet. A call starts one: "
        f"hearth invoke {function or 'FUNCTION'}",
    )
    say()
    for target in pool["prewarm"]:
        starting = f", {target['starting']} starting" if target["starting"] else ""
        image = target["image"].removeprefix("sha256:")[:DIGEST_SHOWN]
        say(f"Prewarmed on image {image}: {target['ready']} of {target['wanted']}{starting}")
    spares = pool.get("spares") or {}
    if spares.get("ready") or spares.get("starting"):
        starting = f", {spares['starting']} starting" if spares["starting"] else ""
        share = f"{human_size(spares['memory'])} of {human_size(spares['memory_share'])}"
        say(f"Spares, ready ahead of calls: {spares['ready']}{starting}, {share}")
    declared, budget = pool["memory_declared"], pool["memory_budget"]
    say(f"Memory declared: {human_size(declared)} of {human_size(budget)}")
