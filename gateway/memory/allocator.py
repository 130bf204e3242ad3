"""Gives memory back to the system that the C library keeps after many bodies have come and gone.

glibc gives back only what is free at the end of its heap, and one small object there keeps hundreds of MiB below it.
`malloc_trim` also gives back the free pages in between. It needs no lock of the interpreter, but nobody can allocate
meanwhile: 480 MiB took 100 to 170 ms, 8 MiB 2 to 4 ms. So it runs often while much goes.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable

from gateway.memory.budget import BodyBudget
from pool.clock import Clock

LOOK_SECONDS = 1.0
"""Time between two looks at how much was given back."""
WORTH_TRIMMING = 8 * 2**20
"""Bytes that bodies must have given back since the last time: less does not matter to anybody."""
SOON_SECONDS = 0.02
"""Time between two looks while so much is held that it could go at once."""
MUCH = 16 * 2**20
"""Bytes given back that do not wait for the next second: about 5 ms of trimming."""


def c_library_trim() -> Callable[[int], object] | None:
    """Return glibc's `malloc_trim`, or None: other libraries need no such thing, or have none."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


async def give_back_freed(budget: BodyBudget, clock: Clock, trim: Callable[[int], object] | None) -> None:
    """Trim the C library's heap after bodies have gone, until cancelled."""
    if trim is None:
        return
    looked = clock.now()
    while True:
        await clock.sleep(SOON_SECONDS if budget.peak >= MUCH else LOOK_SECONDS)
        gone, is_due = budget.peak - budget.held, clock.now() - looked >= LOOK_SECONDS
        if gone >= MUCH or (is_due and gone >= WORTH_TRIMMING):
            budget.peak = budget.held
            await asyncio.to_thread(trim, 0)
        if is_due:
            looked = clock.now()
