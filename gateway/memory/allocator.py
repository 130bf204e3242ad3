"""Returns memory to the system that the C library keeps after many bodies have come and gone.

glibc returns only the free end of its heap, and one small object there keeps hundreds of MiB below it. `malloc_trim`
also returns the free pages in between. It runs without the interpreter's lock, but nobody can allocate meanwhile:
480 MiB took 100 to 170 ms, 8 MiB took 2 to 4 ms. So it runs often while many bytes are freed.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable

from gateway.memory.budget import BodyBudget
from pool.clock import Clock

CHECK_SECONDS = 1.0
"""Time between two checks of how many bytes were freed."""
WORTH_TRIMMING_BYTES = 8 * 2**20
"""Least bytes freed since the last time that are worth a trim: fewer do not matter on any machine."""
FAST_CHECK_SECONDS = 0.02
"""Time between two checks while at least `LARGE_BYTES` are in use and could be freed at once."""
LARGE_BYTES = 16 * 2**20
"""Bytes freed that are trimmed without waiting for the next second. A trim of these takes about 5 ms."""


def c_library_trim() -> Callable[[int], object] | None:
    """Return glibc's `malloc_trim`, or None for another C library, which has or needs no such function."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


async def give_back_freed(budget: BodyBudget, clock: Clock, trim: Callable[[int], object] | None) -> None:
    """Trim the C library's heap after bodies have gone, until cancelled."""
    if trim is None:
        return
    looked = clock.now()
    while True:
        await clock.sleep(FAST_CHECK_SECONDS if budget.peak >= LARGE_BYTES else CHECK_SECONDS)
        gone, is_due = budget.peak - budget.held, clock.now() - looked >= CHECK_SECONDS
        if gone >= LARGE_BYTES or (is_due and gone >= WORTH_TRIMMING_BYTES):
            budget.peak = budget.held
            await asyncio.to_thread(trim, 0)
        if is_due:
            looked = clock.now()
