"""Capabilities of Linux that functions may be given, where a setting of the gateway allows them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import BeforeValidator

from scheduler.definitions.language.faults import shown

GRANTABLE = ("chown", "dac_override", "fowner", "kill", "net_bind_service", "setgid", "setuid")
"""Capabilities that concern only files and processes of the container itself. All others reach further."""


def checked_capabilities(names: Iterable[object]) -> tuple[str, ...]:
    """Return names of capabilities, each once. Raises ValueError for one that no function may have."""
    known = tuple(names)
    for name in known:
        if name not in GRANTABLE:
            raise ValueError(f"must be some of {', '.join(GRANTABLE)}, not {shown(name)}")
    return tuple(dict.fromkeys(map(str, known)))


def _listed(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a list, like [chown, setuid, setgid], not {shown(value)}")
    return checked_capabilities(value)


Capabilities = Annotated[tuple[str, ...], BeforeValidator(_listed)]
