"""Who may keep how much in the store of accepted calls. Pure functions of byte counts.

The store has one size. Direct accepts leave an eighth of it to what follows from them and to schedules and events.
One caller may hold as much as is then still free: alone it gets half, of two that fill it each gets a third. So
there is always room left for who comes next, without a setting that somebody has to get right."""

from __future__ import annotations

RESERVE = 8
"""Part of the store that direct accepts leave free, as one in so many: with 1 GiB it is 128 MiB, some twenty of the
largest events."""


def most_of(size: int, direct: bool) -> int:
    """Return the bytes that the store may hold after this is kept. `direct`: somebody sent it to be kept, and no
    schedule, event or run under way did."""
    return size - size // RESERVE if direct else size


def may_hold(size: int, held: int, held_by_all: int, wanted: int) -> bool:
    """Return whether a caller may hold `wanted` bytes more: not more than is left free for all others.

    `held` is what it holds with what cannot be forgotten yet, `held_by_all` the same of all callers, it included.
    """
    return held + wanted <= size - held_by_all - wanted


def name_of(caller: str) -> str:
    """Return how a message calls a caller: a key's id, what starts things by itself, or nobody in particular."""
    kind, colon, name = caller.partition(":")
    if colon:
        return f"the {kind} {name}"
    key, _, part = caller.partition("/")
    whose = f"the key {key}" if key else "all callers without a key"
    return f"{whose}, for {part}" if part else whose


def share_fault(caller: str, size: int, held: int, held_by_all: int) -> str:
    """Return what a caller is told whose share is full."""
    left = max(0, size - held_by_all)
    return (
        f"the store keeps no more of {name_of(caller)}: what has not ended of it has {held} bytes already, and "
        f"{left} bytes are left for all others. Wait until some of it has ended, cancel some, or enlarge "
        "HEARTH_ASYNC_SIZE"
    )


def size_fault(size: int, used: int, direct: bool) -> str:
    """Return what is told when the whole store is full."""
    reserve = f", of which {size // RESERVE} are for schedules, events and runs under way" if direct else ""
    return (
        f"the store holds {used} of its {size} bytes{reserve}, and what has ended and can be forgotten is not "
        "enough: wait until calls have ended, or enlarge HEARTH_ASYNC_SIZE"
    )
