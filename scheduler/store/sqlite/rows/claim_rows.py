"""Leasing accepted calls: counting those that wait, and taking the oldest, in few statements (see `batch_rows`)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from functools import lru_cache

from scheduler.calls.leases import LeaseOwner
from scheduler.calls.model import Backlog, Claim
from scheduler.calls.store import MOST_BYTES
from scheduler.definitions.language.call_overrides import overrides_from_json
from scheduler.store.sqlite.rows import lease_rows, piece_rows
from scheduler.store.sqlite.rows.call_rows import read_head
from scheduler.work import NewCall, Payload, Request

ENOUGH_DUE = 512
"""Most calls of one function that are counted as due: more are never leased at once."""
SMALL = 16 * 1024
"""Bytes of the largest body that is read together with others, as hexadecimal text: it needs no unescaping."""
SMALL_HEAD = 4 * 1024
"""Bytes of the largest head that is read together with others. Its parsed form is cached."""
OLDEST = (
    "SELECT seq, id, attempts, failures, since, depth, owner, part, due FROM invocations"
    " WHERE status = 'queued' AND function = ? AND due <= ? ORDER BY due, seq LIMIT ?"
)
LEASED = (
    "SELECT json_group_array(json_array(due, seq, id, attempts, failures, printf('%!.17g', since), depth, owner,"
    f" part, CASE WHEN length(head) <= {SMALL_HEAD} THEN hex(head) END,"
    f" CASE WHEN length(body) <= {SMALL} THEN hex(body) END, terms, payload))"
    f" FROM ({OLDEST}) JOIN requests USING (seq)"
)
LEASE = (
    "UPDATE invocations SET status = 'running', attempts = attempts + 1, started = ?, lease_owner = ?"
    " WHERE seq IN (SELECT value FROM json_each(?))"
)


def backlogs_of(db: sqlite3.Connection, now: float) -> dict[str, Backlog]:
    """Return the waiting calls by function. Three looks into the index for each, however many wait."""
    backlogs: dict[str, Backlog] = {}
    after = ""
    while True:
        row = db.execute(
            "SELECT function, due FROM invocations WHERE status = 'queued' AND function > ?"
            " ORDER BY function, due LIMIT 1",
            (after,),
        ).fetchone()
        if row is None:
            return backlogs
        after, next_due = row
        due = 0
        if next_due <= now:
            row = db.execute(
                "SELECT due FROM invocations WHERE status = 'queued' AND function = ? AND due > ?"
                " ORDER BY due LIMIT 1",
                (after, now),
            ).fetchone()
            next_due = None if row is None else row[0]
            (due,) = db.execute(
                "SELECT count(*) FROM (SELECT 1 FROM invocations WHERE status = 'queued' AND function = ?"
                f" AND due <= ? LIMIT {ENOUGH_DUE})",
                (after, now),
            ).fetchone()
        backlogs[after] = Backlog(due, next_due)


def claim(db: sqlite3.Connection, owner: LeaseOwner, wanted: Mapping[str, int], now: float) -> list[Claim]:
    """Lease so many calls of each function that are due to an owner, the oldest first. Raises `LeaseLost`."""
    lease_rows.check(db, owner, now)
    claims: list[Claim] = []
    for function, count in wanted.items():
        claims += _lease(db, owner, function, count, now)
    return claims


def _lease(db: sqlite3.Connection, owner: LeaseOwner, function: str, count: int, now: float) -> list[Claim]:
    (text,) = db.execute(LEASED, (function, now, count)).fetchone()
    leased: list[int] = []
    claims: list[Claim] = []
    size = 0
    for _, seq, id, attempts, failures, since, depth, part_of, part, head, body, overrides, payload in sorted(
        json.loads(text)
    ):
        if head is None:
            large = _alone(db, "head", seq)
            size += len(large)
            request = read_head(large)
        else:
            request = _read_head(head)
        data = _alone(db, "body", seq) if body is None else bytes.fromhex(body)
        where = None if payload is None else Payload(payload, piece_rows.size_of(db, payload))
        call = NewCall(
            id, function, request, data, depth, part_of, part, overrides_from_json(overrides), where
        )
        claims.append(Claim(call, attempts + 1, failures, float(since), owner))
        leased.append(seq)
        size += len(data)
        if size >= MOST_BYTES:
            break
    db.execute(LEASE, (now, owner.id, json.dumps(leased)))
    return claims


def _alone(db: sqlite3.Connection, column: str, seq: int) -> bytes:
    """Return a column of a request that is too large to be read together with others."""
    data: bytes
    (data,) = db.execute(f"SELECT CAST({column} AS BLOB) FROM requests WHERE seq = ?", (seq,)).fetchone()
    return data


@lru_cache(maxsize=256)
def _read_head(text: str) -> Request:
    """Return the request in the hexadecimal text of its head. Calls with the same head share it."""
    return read_head(bytes.fromhex(text))
