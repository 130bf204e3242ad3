"""A running gateway, and the function that was just written into a functions.yaml."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.cli.client import ClientError
from gateway.cli.common import CommandError, Gateway

PICK_UP_SECONDS = 5.0
"""Longest wait until a gateway that watches the file has the function: it looks within a second, then sets it up."""
LOOK_SECONDS = 0.1
"""Pause between two looks."""
SETTLED = ("ready", "failed")
"""States of a function that has been set up."""


@dataclass
class RunningGateway:
    """A gateway that answers at an address, as it was before a function was written."""

    url: str
    key_file: Path | None
    names: frozenset[str]

    @classmethod
    def found(cls, url: str, key_file: Path | None) -> RunningGateway | None:
        """Return the gateway at this address, or None if none answers or it does not list its functions to us."""
        functions = listed(url, key_file)
        return None if functions is None else cls(url, key_file, frozenset(f["name"] for f in functions))

    def picked_up(self, name: str) -> dict[str, Any] | None:
        """Wait until the gateway has a new function, and return it, or None if it does not come."""
        found: dict[str, Any] | None = None
        give_up = time.monotonic() + PICK_UP_SECONDS
        while name not in self.names and time.monotonic() < give_up:
            functions = listed(self.url, self.key_file) or []
            found = next((function for function in functions if function["name"] == name), None)
            if found is not None and found["state"] in SETTLED:
                break
            time.sleep(LOOK_SECONDS)
        return found


def listed(url: str, key_file: Path | None) -> list[dict[str, Any]] | None:
    """Return the functions of the gateway at this address, or None if it does not list them."""
    try:
        with Gateway(url, key_file) as gateway:
            return gateway.functions()
    except (ClientError, CommandError):
        return None
