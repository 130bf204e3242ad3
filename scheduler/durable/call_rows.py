"""The rows of accepted calls: what each verb of the store does to them, inside somebody's transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from scheduler.durable.model import (
    Backlog,
    Claim,
    Claimed,
    Ending,
    HeaderList,
    Idempotency,
    NewCall,
    Query,
    Record,
    Result,
    Status,
)
from scheduler.durable.store import Choose, KeyReused
from scheduler.durable.terms import terms_of_json, terms_to_json
from scheduler.durable.work import begin

COLUMNS = (
    "seq, id, function, status, attempts, accepted, due, started, ended, error, detail, blame, owner, part"
)
ENOUGH_DUE = 256
"""Calls of one function that are counted as due, at most: more are never leased at once."""
PRUNED_AT_ONCE = 500
"""Calls that one transaction forgets: those who wait for the next one wait for it."""
FREE = "owner = ''"
"""Of calls that belong to nobody, who decides what becomes of them."""
DEAD = f"status IN ('dead', 'expired') AND {FREE}"
FORGETTABLE = f"ended IS NOT NULL AND {FREE}"
AGAIN = "status = 'queued', failures = 0, due = ?, since = ?, ended = NULL, error = NULL, detail = '', blame = 'none'"


def forget(db: sqlite3.Connection, which: str, *values: float) -> int:
    """Forget the oldest of these calls, all of which have ended; how many they were."""
    oldest = f"SELECT seq FROM invocations WHERE {which} ORDER BY ended LIMIT {PRUNED_AT_ONCE}"
    return db.execute(f"DELETE FROM invocations WHERE seq IN ({oldest})", values).rowcount


def insert(db: sqlite3.Connection, call: NewCall, now: float) -> Record:
    """Queue a call. The same part of the same owner is queued once, whatever its id."""
    if call.owner and (known := part_of(db, call.owner, call.part)) is not None:
        return known
    seq = db.execute(
        "INSERT INTO invocations (id, function, status, depth, accepted, since, due, owner, part)"
        " VALUES (?, ?, 'queued', ?, ?, ?, ?, ?, ?)",
        (call.id, call.function, call.depth, now, now, now, call.owner, call.part),
    ).lastrowid
    assert seq is not None
    head = [
        call.method,
        call.sub_path.decode("latin-1"),
        call.query.decode("latin-1"),
        call.client,
        _as_text(call.headers),
    ]
    db.execute(
        "INSERT INTO requests (seq, head, body, terms) VALUES (?, ?, ?, ?)",
        (seq, json.dumps(head), call.body, terms_to_json(call.terms)),
    )
    return Record(
        seq,
        call.id,
        call.function,
        Status.QUEUED,
        attempts=0,
        accepted=now,
        due=now,
        started=None,
        ended=None,
        error=None,
        detail="",
        blame="none",
        owner=call.owner,
        part=call.part,
    )


@begin.register
def _begin_call(work: NewCall, db: sqlite3.Connection, now: float) -> None:
    if show(db, work.id) is None:  # else it was begun before
        insert(db, work, now)


def part_of(db: sqlite3.Connection, owner: str, part: str) -> Record | None:
    """The call that is this part of its owner."""
    row = db.execute(
        f"SELECT {COLUMNS} FROM invocations WHERE owner = ? AND part = ? AND owner != ''", (owner, part)
    ).fetchone()
    return None if row is None else record(row)


def known(db: sqlite3.Connection, call: NewCall, now: float, idempotency: Idempotency) -> Record | None:
    """The call that an idempotency key was used for before. Raises `KeyReused`."""
    row = db.execute(
        "SELECT digest, id FROM idempotency JOIN invocations USING (seq)"
        " WHERE caller = ? AND idempotency.function = ? AND key = ? AND expires > ?",
        (idempotency.caller, call.function, idempotency.key, now),
    ).fetchone()
    if row is None:
        return None
    if row[0] != idempotency.digest:
        raise KeyReused
    return show(db, row[1])


def _backlogs(db: sqlite3.Connection, now: float) -> dict[str, Backlog]:
    """What waits, by function: a look into the index for each function, however long its backlog is."""
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
            (due,) = db.execute(
                "SELECT count(*) FROM (SELECT 1 FROM invocations WHERE status = 'queued' AND function = ?"
                f" AND due <= ? LIMIT {ENOUGH_DUE})",
                (after, now),
            ).fetchone()
        backlogs[after] = Backlog(due, next_due)


def claim(db: sqlite3.Connection, now: float, choose: Choose) -> Claimed:
    """Lease those that `choose` wants of the due ones."""
    claimed = Claimed()
    for function, count in choose(backlogs := _backlogs(db, now)).items():
        rows = db.execute(
            "SELECT seq, id, attempts, failures, since, depth, head, body, owner, part, terms"
            " FROM invocations JOIN requests USING (seq)"
            " WHERE status = 'queued' AND function = ? AND due <= ? ORDER BY due, seq LIMIT ?",
            (function, now, count),
        ).fetchall()
        db.executemany(
            "UPDATE invocations SET status = 'running', attempts = attempts + 1, started = ? WHERE seq = ?",
            [(now, row[0]) for row in rows],
        )
        for _, id, attempts, failures, since, depth, head, body, owner, part, terms in rows:
            method, sub_path, query, client, headers = json.loads(head)
            call = NewCall(
                id,
                function,
                method,
                sub_path.encode("latin-1"),
                query.encode("latin-1"),
                _as_headers(headers),
                body,
                client,
                depth,
                owner,
                part,
                terms_of_json(terms),
            )
            claimed.claims.append(Claim(call, attempts + 1, failures, since))
    later = [backlog.next_due for backlog in backlogs.values() if backlog.next_due > now]
    claimed.next_due = min(later, default=None)
    return claimed


def finish(db: sqlite3.Connection, ending: Ending, now: float) -> bool:
    """Record what came of a leased call; False: it was not leased."""
    row = db.execute(
        "SELECT seq FROM invocations WHERE id = ? AND status = 'running'", (ending.id,)
    ).fetchone()
    if row is None:
        return False
    db.execute(
        "UPDATE invocations SET status = ?, failures = ?, due = ?, ended = ?, error = ?, detail = ?, blame = ?"
        " WHERE seq = ?",
        (
            ending.status,
            ending.failures,
            ending.due,
            now if ending.status.ended else None,
            ending.error,
            ending.detail,
            ending.blame,
            row[0],
        ),
    )
    if (result := ending.result) is not None:
        db.execute(
            "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row[0],
                result.status,
                json.dumps(_as_text(result.headers)),
                result.body,
                result.problem,
                result.detail,
                result.blame,
                result.log,
            ),
        )
    for work in ending.follow:
        begin(work, db, now)
    return True


def show(db: sqlite3.Connection, id: str) -> Record | None:
    """One call."""
    row = db.execute(f"SELECT {COLUMNS} FROM invocations WHERE id = ?", (id,)).fetchone()
    return None if row is None else record(row)


def result(db: sqlite3.Connection, id: str) -> Result | None:
    """What its latest run brought."""
    row = db.execute(
        "SELECT results.status, headers, body, problem, results.detail, results.blame, log"
        " FROM results JOIN invocations USING (seq) WHERE id = ?",
        (id,),
    ).fetchone()
    return None if row is None else Result(row[0], _as_headers(json.loads(row[1])), *row[2:])


def list_calls(db: sqlite3.Connection, query: Query) -> list[Record]:
    """Calls, newest first."""
    conditions: list[str] = []
    values: list[Any] = []
    if query.function is not None:
        conditions.append("function = ?")
        values.append(query.function)
    if query.statuses:
        conditions.append(f"status IN ({', '.join('?' * len(query.statuses))})")
        values += query.statuses
    if query.since is not None:
        conditions.append("accepted >= ?")
        values.append(query.since)
    if query.owner is not None:
        conditions.append("owner = ? AND owner != ''")
        values.append(query.owner)
    if query.before is not None:
        conditions.append("seq < ?")
        values.append(query.before)
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = db.execute(
        f"SELECT {COLUMNS} FROM invocations {where} ORDER BY seq DESC LIMIT ?",
        (*values, query.limit),
    )
    return [record(row) for row in rows]


def dead_letters(function: str | None) -> tuple[str, tuple[str, ...]]:
    """A condition for the dead letters of a function, or all, and its values."""
    return (DEAD, ()) if function is None else (f"{DEAD} AND function = ?", (function,))


def record(row: Sequence[Any]) -> Record:
    """A row of `COLUMNS`."""
    return Record(row[0], row[1], row[2], Status(row[3]), *row[4:])


def _as_text(headers: HeaderList) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def _as_headers(pairs: Iterable[tuple[str, str]]) -> HeaderList:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
