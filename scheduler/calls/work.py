"""What can be begun durably: an accepted call, and whatever else registers itself here. Who starts it, such as a
trigger, need not know what it is."""

from __future__ import annotations

import sqlite3
from functools import singledispatch


@singledispatch
def begin(work: object, db: sqlite3.Connection, now: float, caller: int) -> None:
    """Write its first rows, inside the caller's transaction. `now` is wall time in seconds;
    `caller` is the number of whom its bytes count to (`Room.caller`)."""
    raise TypeError(f"{type(work).__name__} is nothing that can be begun")
