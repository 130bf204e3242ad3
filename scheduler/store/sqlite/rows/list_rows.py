"""Pages of accepted calls. Every page is found by an index, and looks at a bounded number of rows.

The newest calls that may fit are found first, by an index that has them in order; then their rows are read and
filtered. A page may have fewer calls than asked for, or none, and still a cursor: that many rows were looked at.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from scheduler.calls.model import CallRecord, Page, Query, Status
from scheduler.store.sqlite.rows.call_rows import COLUMNS, record

MOST_LOOKED_AT = 5000
"""Rows that one page looks at: about ten milliseconds."""
ROWS_AT_ONCE = 1000
CLOCK_MARGIN = 3600.0
"""Seconds that the wall clock may have been set back by. Older calls than that are not searched for `since`."""
NEWEST = 2**63 - 1
RARE = frozenset(
    {Status.HELD, Status.FAILED, Status.TIMED_OUT, Status.CANCELLED, Status.EXPIRED, Status.DEAD}
)
"""Statuses with an index in the order of acceptance. Most calls never have one, and so cost nothing more."""
IS_RARE = "status IN ('held', 'failed', 'timed_out', 'cancelled', 'expired', 'dead')"
"""As the indexes say it: SQLite uses them only for a query with the same words."""
PASSING = frozenset({Status.QUEUED, Status.RUNNING})
"""Statuses that a call leaves again: mostly few calls have one."""
_Values = tuple[Any, ...]


def page(db: sqlite3.Connection, query: Query) -> Page[CallRecord]:
    """Return calls, newest first."""
    filtered = query.since is not None or query.visible is not None
    most = MOST_LOOKED_AT if filtered else query.limit + 1
    candidates = _by_status(db, query, most)
    if candidates is None:
        most = MOST_LOOKED_AT if filtered or query.statuses else query.limit + 1
        candidates = _latest(db, query, most)
    found: list[CallRecord] = []
    for row in _rows(db, query, candidates):
        if query.visible is None or query.visible(row[2]):
            found.append(record(row))
            if len(found) == query.limit:
                return Page(found, found[-1].seq if found[-1].seq != candidates[-1] else None)
    is_cut = len(candidates) == most and not _is_before(db, candidates[-1], query.since)
    return Page(found, candidates[-1] if is_cut else None)


def _by_status(db: sqlite3.Connection, query: Query, most: int) -> list[int] | None:
    """Return the newest of the calls with the owner or the statuses of a query, or None if no index has them."""
    statuses = query.statuses
    if query.owner is not None:
        where = "owner = ? AND owner != '' AND status = ?"
        return _newest(
            db, ((where, (query.owner, status.value)) for status in statuses or Status), query, most
        )
    if not statuses:
        return None
    where, values = ("", ()) if query.function is None else (" AND function = ?", (query.function,))
    if RARE.issuperset(statuses):
        sources = ((f"{IS_RARE} AND status = ?{where}", (status.value, *values)) for status in statuses)
        return _newest(db, sources, query, most)
    if PASSING.issuperset(statuses):
        return _few(db, query, most)
    return None


def _newest(
    db: sqlite3.Connection, sources: Iterable[tuple[str, _Values]], query: Query, most: int
) -> list[int]:
    """Return the newest `seq` of several conditions, each of which has an index in their order."""
    found: list[int] = []
    for where, values in sources:
        found += _seqs(
            db,
            f"SELECT seq FROM invocations WHERE {where} AND seq < ? ORDER BY seq DESC LIMIT ?",
            (*values, _before(query), most),
        )
    return sorted(found, reverse=True)[:most]


def _latest(db: sqlite3.Connection, query: Query, most: int) -> list[int]:
    """Return the newest calls of a function or of all, whatever their status."""
    where, values = ("", ()) if query.function is None else ("function = ? AND ", (query.function,))
    statement = f"SELECT seq FROM invocations WHERE {where}seq < ? ORDER BY seq DESC LIMIT ?"
    return sorted(_seqs(db, statement, (*values, _before(query), most)), reverse=True)


def _few(db: sqlite3.Connection, query: Query, most: int) -> list[int] | None:
    """Return all calls with statuses that few calls have, newest first, or None if many have them."""
    which, values = ("function > ''", ()) if query.function is None else ("function = ?", (query.function,))
    found: list[int] = []
    for status in query.statuses:
        found += _seqs(
            db,
            f"SELECT seq FROM invocations WHERE status = '{status.value}' AND {which} LIMIT ?",
            (*values, MOST_LOOKED_AT + 1),
        )
    if len(found) > MOST_LOOKED_AT:
        return None
    before = _before(query)
    return sorted((seq for seq in found if seq < before), reverse=True)[:most]


def _seqs(db: sqlite3.Connection, statement: str, values: _Values) -> list[int]:
    (text,) = db.execute(f"SELECT json_group_array(seq) FROM ({statement})", values).fetchone()
    found: list[int] = json.loads(text)
    return found


def _rows(db: sqlite3.Connection, query: Query, candidates: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of these calls that fit, in their order."""
    conditions, values = ["seq IN (SELECT value FROM json_each(?))"], list[Any]()
    if query.function is not None:
        conditions.append("+function = ?")
        values.append(query.function)
    if query.statuses:
        conditions.append(f"+status IN ({', '.join('?' * len(query.statuses))})")
        values += query.statuses
    if query.since is not None:
        conditions.append("accepted >= ?")
        values.append(query.since)
    statement = f"SELECT {COLUMNS} FROM invocations WHERE {' AND '.join(conditions)}"
    at, size = 0, query.limit
    while at < len(candidates):
        yield from sorted(
            db.execute(statement, (json.dumps(candidates[at : at + size]), *values)), reverse=True
        )
        at, size = at + size, ROWS_AT_ONCE


def _is_before(db: sqlite3.Connection, seq: int, since: float | None) -> bool:
    """Return whether no call accepted before this one can be of `since` or later."""
    if since is None:
        return False
    (accepted,) = db.execute("SELECT accepted FROM invocations WHERE seq = ?", (seq,)).fetchone()
    return bool(accepted < since - CLOCK_MARGIN)


def _before(query: Query) -> int:
    return NEWEST if query.before is None else query.before
