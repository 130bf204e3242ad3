"""The interface of a way: how what runs in a container reaches the gateway.

The container always dials. Its connections for calls become protocols of asyncio, whatever they go over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol

from pool.engine.base import ContainerSpec


class WayEnds(NamedTuple):
    """The gateway's ends of a way."""

    calls: Callable[[], asyncio.Protocol]
    """Makes the protocol of a connection for calls that the container has dialled."""
    log: Callable[[bytes], None]
    """Takes what the container prints."""


class Way(Protocol):
    """The way of one container to the gateway."""

    @property
    def mending(self) -> bool:
        """Return whether connections may come although none is there: the way was cut, and is made again."""

    async def open(self, ends: WayEnds) -> None:
        """Prepare for a container that is not started yet. Raises OSError."""

    def container(self, spec: ContainerSpec) -> ContainerSpec:
        """Return a container with all that this way needs in it: its mounts, its stdin, its program's options."""

    async def started(self, container: str) -> None:
        """Connect to a container that has just started. Raises `EngineError` and OSError."""

    async def reopen(self, ends: WayEnds, container: str) -> None:
        """Open the way of a running container in place of a gateway that is gone. Raises as `started` does."""

    def drain_log(self) -> None:
        """Give the log what the container has printed until now."""

    async def close(self) -> None:
        """Close everything that the next gateway does not need. Safe to call twice, and before `open`."""
