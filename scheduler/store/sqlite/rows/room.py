"""The room in the file of the store: how full it is, and making room, within somebody's operation."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

from scheduler.calls import shares
from scheduler.calls.store import StoreFull, StoreUse
from scheduler.store.sqlite.rows import piece_rows
from scheduler.store.sqlite.rows.call_rows import FORGETTABLE, forget

FORGOTTEN_AT_ONCE = 50
"""Most calls that are forgotten between two looks at the room: first one, then twice as many each time."""
MOST_ROUNDS = 64
"""Rounds of forgetting in one operation: the next transaction waits for it."""
UNLOOKED = 8
"""Share of the free room, as one in so many, that is given out before the next look."""
OVERHEAD = 16 * 1024
"""Bytes that an operation may need beside its data: for indexes, and pages that are not full."""
LOG_ALLOWED = 16 * 2**20
"""Bytes of write-ahead log that do not count, since they repeat parts of the file."""


class Room:
    """The room in one store, of `size` bytes (`HEARTH_ASYNC_SIZE`)."""

    def __init__(self, file: Path, size: int) -> None:
        self._log = file.with_name(f"{file.name}-wal")
        self.size = size
        self._unlooked = 0
        """Bytes that may be kept before the next look."""
        self.forgetters: list[Callable[[sqlite3.Connection], int]] = []
        """Forget the oldest ended things beside calls, and return how many."""

    def usage(self, db: sqlite3.Connection) -> StoreUse:
        """Return how full the store is."""
        unfinished, largest = db.execute(
            "SELECT coalesce(sum(bytes), 0), coalesce(max(bytes), 0) FROM callers"
        ).fetchone()
        return StoreUse(self.used(db), unfinished, largest, self.size)

    def used(self, db: sqlite3.Connection) -> int:
        """Return the bytes that are in use. Free pages of the file do not count."""
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
        """Return whether more can be kept, after forgetting as much as needed."""
        try:
            self.make(db)
        except StoreFull:
            return False
        return True

    def caller(self, db: sqlite3.Connection, name: str) -> int:
        """Return the number of a caller. A new one gets the next number."""
        row = db.execute("SELECT id FROM callers WHERE name = ?", (name,)).fetchone()
        if row is not None:
            return int(row[0])
        number = db.execute("INSERT INTO callers (name) VALUES (?)", (name,)).lastrowid
        assert number is not None
        return number

    def admit(self, db: sqlite3.Connection, caller: int, wanted: int, direct: bool = False) -> None:
        """Make room for bytes of a caller. Raises `StoreFull` if there is none, or the caller's share is full."""
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
