"""Creating a container so that it is known in any case."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from pool.engine.base import ContainerSpec, Engine, EngineError


async def create_surely(engine: Engine, spec: ContainerSpec, created: Callable[[str], None]) -> str:
    """Create a container and tell `created` its id, also if we are cancelled meanwhile. Raises `EngineError`.

    The engine creates it all the same, and it has to be removed.
    """
    creating = asyncio.ensure_future(engine.create(spec))
    try:
        container = await asyncio.shield(creating)
    except asyncio.CancelledError:
        with contextlib.suppress(EngineError):
            created(await creating)
        raise
    created(container)
    return container
