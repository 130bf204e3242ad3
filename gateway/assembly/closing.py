"""Closes the parts of a gateway when it ends: the last made first, and every one whatever another raises."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

log = logging.getLogger("hearth")


class Closing:
    """The ways in which the parts of one gateway are closed, in the order in which they were made."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._names: list[str] = []

    def push(self, name: str, close: Callable[[], object]) -> None:
        """Have a part closed before all parts that were pushed earlier. `close` may be a coroutine function."""
        self._names.insert(0, name)
        self._stack.push_async_callback(partial(_close, name, close))

    def names(self) -> list[str]:
        """Return the names of all parts in the order in which they are closed."""
        return self._names.copy()

    async def close(self) -> None:
        """Close every part, once. A part that fails is logged with its name."""
        await self._stack.aclose()


async def _close(name: str, close: Callable[[], object]) -> None:
    try:
        closed = close()
        if inspect.isawaitable(closed):
            await closed
    except Exception:
        log.exception("Could not close the gateway's %s; closing its other parts", name)
