"""Gives memory back to the system that the C library keeps after many bodies have come and gone.

glibc gives back only what is free at the end of its heap, and one small object there keeps hundreds of MiB below it.
`malloc_trim` also gives back the free pages in between.
"""

from __future__ import annotations

import asyncio
import ctypes

from gateway.memory.budget import BodyBudget
from pool.clock import Clock

LOOK_SECONDS = 1.0
"""Time between two looks at how much was given back."""
WORTH_TRIMMING = 8 * 2**20
"""Bytes that bodies must have given back since the last time: less does not matter to anybody."""


async def give_back_freed(budget: BodyBudget, clock: Clock) -> None:
    """Trim the C library's heap after bodies have gone, until cancelled. Other libraries than glibc need no such
    thing, or have none."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return
    most = 0
    while True:
        await clock.sleep(LOOK_SECONDS)
        most = max(most, budget.held)
        if most - budget.held >= WORTH_TRIMMING:
            most = budget.held
            await asyncio.to_thread(trim, 0)  # without the interpreter's lock
