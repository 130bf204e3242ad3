"""Dead letters, some at a time, inside somebody's transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from scheduler.calls.model import Status
from scheduler.store.sqlite.rows.call_rows import AGAIN, FREE, callers_of
from scheduler.store.sqlite.rows.list_rows import IS_RARE
from scheduler.store.sqlite.rows.room import Room

DEAD = (Status.DEAD, Status.EXPIRED)
LOOKED_AT_ONCE = 500
"""Dead letters that one transaction looks at: the next transaction waits for it."""


class DeadLetterProgress(NamedTuple):
    """The progress of a verb on dead letters: how many it changed, and `seq` to go on after, or None at the end."""

    done: int
    after: int | None


class DeadLetterVerb(Protocol):
    """A verb that changes some dead letters of a status: the next ones with a `seq` above `after`."""

    def __call__(self, db: sqlite3.Connection, *, status: Status, after: int) -> DeadLetterProgress:
        """Change the next dead letters."""


def redrive(
    db: sqlite3.Connection, *, status: Status, after: int, function: str | None, now: float, room: Room
) -> DeadLetterProgress:
    """Queue the next dead letters that ended by `now`, as if they were new. Raises `StoreFull`."""
    seqs, goes_on = _next(db, status, after, function, now)
    which = f"seq IN (SELECT value FROM json_each(?)) AND {FREE}"
    db.execute(
        f"DELETE FROM results WHERE seq IN (SELECT seq FROM invocations WHERE {which})", (json.dumps(seqs),)
    )
    statement = f"UPDATE invocations SET {AGAIN} WHERE {which}"
    done = db.execute(statement, (now, now, json.dumps(seqs))).rowcount
    room.check_share(db, callers_of(db, which, (json.dumps(seqs),)))
    return DeadLetterProgress(done, goes_on)


def purge(
    db: sqlite3.Connection, *, status: Status, after: int, function: str | None, now: float
) -> DeadLetterProgress:
    """Forget the next dead letters that ended by `now`."""
    seqs, goes_on = _next(db, status, after, function, now)
    statement = f"DELETE FROM invocations WHERE seq IN (SELECT value FROM json_each(?)) AND {FREE}"
    return DeadLetterProgress(db.execute(statement, (json.dumps(seqs),)).rowcount, goes_on)


def _next(
    db: sqlite3.Connection, status: Status, after: int, function: str | None, now: float
) -> tuple[Sequence[int], int | None]:
    """Return the next dead letters, also those with owners, and the last one looked at, or None at the end.

    One that ends after `now` is left: its call was run again meanwhile, and would be run again without end.
    """
    which, values = ("", ()) if function is None else ("AND function = ?", (function,))
    rows = db.execute(
        f"SELECT seq, ended FROM invocations WHERE {IS_RARE} AND status = ? {which} AND seq > ?"
        " ORDER BY seq LIMIT ?",
        (status.value, *values, after, LOOKED_AT_ONCE),
    ).fetchall()
    last = rows[-1][0] if len(rows) == LOOKED_AT_ONCE else None
    return [seq for seq, ended in rows if ended <= now], last
