"""Shares of callers in the store of accepted calls. Pure functions of byte counts.

The store has one size. Direct accepts leave an eighth of it free for schedules, events and runs under way. One
caller may hold as much as it leaves free for all others: alone it gets half, and two that fill the store get a third
each. So there is always room for the next caller, without a setting.
"""

from __future__ import annotations

RESERVE_DIVISOR = 8
"""Direct accepts leave one part in so many of the store free: 128 MiB of 1 GiB, some twenty of the largest events."""


def usable_bytes(size: int, direct: bool) -> int:
    """Return the bytes that the store may hold once the new work is stored.

    `direct` work was sent by a caller; other work comes from a schedule, an event or a run under way.
    """
    return size - size // RESERVE_DIVISOR if direct else size


def may_hold(size: int, held: int, held_by_all: int, wanted: int) -> bool:
    """Return whether a caller may hold `wanted` bytes more: in all no more than it leaves free for all others.

    `held` counts its work that cannot be forgotten yet; `held_by_all` counts that of all callers, its own included.
    """
    return held + wanted <= size - held_by_all - wanted


def describe_caller(caller: str) -> str:
    """Return a caller's name for a message: a key by its id, a trigger, or all callers without a key."""
    kind, colon, name = caller.partition(":")
    if colon:
        return f"the {kind} {name}"
    key, _, part = caller.partition("/")
    whose = f"the key {key}" if key else "all callers without a key"
    return f"{whose}, for {part}" if part else whose


def share_fault(caller: str, size: int, held: int, held_by_all: int) -> str:
    """Return the message for a caller that has used up its share."""
    left = max(0, size - held_by_all)
    return (
        f"the store keeps no more of {describe_caller(caller)}: its unfinished work has {held} bytes already, and "
        f"{left} bytes are left for all others; wait until some of it has ended, cancel some, or raise "
        "HEARTH_ASYNC_SIZE"
    )


def size_fault(size: int, used: int, direct: bool) -> str:
    """Return the message for a caller when the whole store is full."""
    reserve = (
        f", of which {size // RESERVE_DIVISOR} are for schedules, events and runs under way" if direct else ""
    )
    return (
        f"the store holds {used} of its {size} bytes{reserve}, and too little of it has ended and can be "
        "forgotten; wait until calls have ended, or raise HEARTH_ASYNC_SIZE"
    )
