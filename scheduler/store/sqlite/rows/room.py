"""How full the file of the store is, and making room in it, within somebody's operation."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

from scheduler.calls import shares
from scheduler.calls.store import StoreFull, StoreUse
from scheduler.store.sqlite.rows import piece_rows
from scheduler.store.sqlite.rows.call_rows import FORGETTABLE, forget

FORGOTTEN_AT_ONCE = 50
"""Calls that are forgotten at most before it is looked again whether there is room: first one, then twice as many
each time, as long as they are small."""
MOST_ROUNDS = 64
"""How often one operation forgets some: those who wait for the next one wait for it."""
UNLOOKED = 8
"""Part of the room that was left at the last look, as one in so many, that is not looked at again."""
OVERHEAD = 16 * 1024
"""Bytes that an operation may need beside what it keeps: pages that are not full, and indexes."""
LOG_ALLOWED = 16 * 2**20
"""Bytes of write-ahead log that do not count: what it repeats of the file. More than that counts."""


class Room:
    """The room in one store. `size` is how many bytes it may keep: `HEARTH_ASYNC_SIZE`."""

    def __init__(self, file: Path, size: int) -> None:
        self._log = file.with_name(f"{file.name}-wal")
        self.size = size
        self._unlooked = 0
        """Bytes that may be kept until it is looked again how much room there is."""
        self.forgetters: list[Callable[[sqlite3.Connection], int]] = []
        """Forget the oldest of what else has ended, beside calls; each returns how many it has forgotten."""

    def kept(self, db: sqlite3.Connection) -> StoreUse:
        """Return how full the store is."""
        unfinished, largest = db.execute(
            "SELECT coalesce(sum(bytes), 0), coalesce(max(bytes), 0) FROM callers"
        ).fetchone()
        return StoreUse(self.used(db), unfinished, largest, self.size)

    def used(self, db: sqlite3.Connection) -> int:
        """Return the bytes that are in use. Pages that are free again do not count: what was forgotten makes room
        without shrinking the file."""
        pages, free, page_size = (
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        try:
            log = self._log.stat().st_size
        except FileNotFoundError:
            log = 0
        return int((pages - free) * page_size) + max(0, log - LOG_ALLOWED) + piece_rows.announced(db)

    def make(self, db: sqlite3.Connection, wanted: int = 0, direct: bool = False) -> bool:
        """Forget the oldest of what has ended until so many bytes more fit.

        Raises `StoreFull` where that is not enough. `direct` is that of `shares.usable_bytes`. Returns whether it has
        looked: where there was much room, the next that want a little of it are not looked at.
        """
        if 0 < wanted < self._unlooked - OVERHEAD:
            self._unlooked -= 2 * wanted + OVERHEAD
            return False
        most = shares.usable_bytes(self.size, direct)
        calls = 1
        for _ in range(MOST_ROUNDS):
            used = self.used(db)
            if used + wanted <= most:
                break
            if piece_rows.free(db):
                calls = 1
            elif self._forget(db, calls):
                calls = min(2 * calls, FORGOTTEN_AT_ONCE)
            else:
                raise StoreFull(shares.size_fault(self.size, used, direct))
        else:
            raise StoreFull(shares.size_fault(self.size, used, direct))
        self._unlooked = (shares.usable_bytes(self.size, direct=True) - used - wanted) // UNLOOKED
        return True

    def has_room(self, db: sqlite3.Connection) -> bool:
        """Return whether more can be kept, now that what could be forgotten is."""
        try:
            self.make(db)
        except StoreFull:
            return False
        return True

    def caller(self, db: sqlite3.Connection, name: str) -> int:
        """Return the number of a caller, who may be new."""
        row = db.execute("SELECT id FROM callers WHERE name = ?", (name,)).fetchone()
        if row is not None:
            return int(row[0])
        number = db.execute("INSERT INTO callers (name) VALUES (?)", (name,)).lastrowid
        assert number is not None
        return number

    def admit(self, db: sqlite3.Connection, caller: int, wanted: int, direct: bool = False) -> None:
        """Make room for what a caller wants to keep. Raises `StoreFull` where there is none, or its share is full."""
        self.make(db, wanted, direct)
        self.check_share(db, (caller,), wanted)

    def check_share(self, db: sqlite3.Connection, callers: Iterable[int], wanted: int = 0) -> None:
        """Raise `StoreFull` if one of these callers holds more than its share, with so many bytes more."""
        for caller in set(callers):
            name, held, by_all = db.execute(
                "SELECT name, bytes, (SELECT sum(bytes) FROM callers) FROM callers WHERE id = ?", (caller,)
            ).fetchone()
            if not shares.may_hold(self.size, held, by_all, wanted):
                raise StoreFull(shares.share_fault(name, self.size, held, by_all))

    def _forget(self, db: sqlite3.Connection, most: int) -> bool:
        return bool(forget(db, FORGETTABLE, most=most) or any(forgetter(db) for forgetter in self.forgetters))
