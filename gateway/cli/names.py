"""Names that a shell completes: of functions, jobs and workflows, from the gateway, else from functions.yaml."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import click
from click.shell_completion import CompletionItem
from click.types import StringParamType

from gateway.cli.client import DEFAULT_URL, ClientError, GatewayClient
from gateway.cli.common import CommandError, given_key

Section = Literal["functions", "jobs", "workflows"]

ANSWER_SECONDS = 0.5
"""Bounds the wait for a gateway: somebody has pressed Tab and waits."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._-]*")
"""Whatever answers at the address: only this reaches the shell."""


class DeclaredName(StringParamType):
    """A name from some sections of functions.yaml. A shell completes it; any other text is accepted too."""

    def __init__(self, *sections: Section) -> None:
        self.sections = sections

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the names that begin like this, in the order of the file. A fault gives none, and no message."""
        found = from_gateway(self.sections, ctx.params.get("url"), ctx.params.get("key_file"))
        if found is None:
            found = from_file(self.sections, Path(os.environ.get("HEARTH_FUNCTIONS", "functions.yaml")))
        names = dict.fromkeys(name for name in found if NAME.fullmatch(name) and name.startswith(incomplete))
        return [CompletionItem(name) for name in names]


FUNCTION = DeclaredName("functions")
WORKFLOW = DeclaredName("workflows")
TARGET = DeclaredName("jobs", "functions")


def from_gateway(sections: Iterable[Section], url: str | None, key_file: Path | None) -> list[str] | None:
    """Return the names that a gateway has, or None if none answers in time."""
    try:
        with GatewayClient(url or DEFAULT_URL, key=given_key(key_file), timeout=ANSWER_SECONDS) as gateway:
            return [name for section in sections for name in names_in(gateway, section)]
    except (ClientError, CommandError, ValueError, KeyError, TypeError):
        return None


def names_in(gateway: GatewayClient, section: Section) -> list[str]:
    """Return the names of one section. Raises `ClientError`, ValueError, KeyError and TypeError."""
    answer = json.loads(gateway.fetch(f"/{section}"))
    return list(answer["declared"]) if section == "jobs" else [entry["name"] for entry in answer]


def from_file(sections: Iterable[Section], file: Path) -> list[str]:
    """Return the names that a functions.yaml declares. A fault gives none: `hearth serve` tells of it."""
    import yaml  # only here: a gateway answers faster

    try:
        read = yaml.safe_load(file.read_bytes())
        return [str(name) for section in sections for name in read.get(section) or ()]
    except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError):
        return []
