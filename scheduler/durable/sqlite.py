"""The store in one SQLite file (write-ahead log, fsync at each commit). The verbs are those of `Store`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
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
from scheduler.durable.store import Choose, KeyReused, StoreFull
from scheduler.durable.writer import Writer

COLUMNS = "seq, id, function, status, attempts, accepted, due, started, ended, error, detail, blame"
ENOUGH_DUE = 256
"""Calls of one function that are counted as due, at most: more are never leased at once."""
PRUNED_AT_ONCE = 500
"""Calls that one transaction forgets: those who wait for the next one wait for it."""
DEAD = "status IN ('dead', 'expired')"
AGAIN = "status = 'queued', failures = 0, due = ?, since = ?, ended = NULL, error = NULL, detail = '', blame = 'none'"


class SqliteStore:
    """Accepted calls in a file of their own. `max_bytes` is how large it may grow with what has not ended."""

    def __init__(self, file: Path, max_bytes: int) -> None:
        self._file = file
        self._writer = Writer(file)
        self._max_bytes = max_bytes

    @property
    def exists(self) -> bool:
        return self._file.exists()

    @property
    def commits(self) -> int:
        """Transactions so far."""
        return self._writer.commits

    async def accept(self, call: NewCall, now: float, idempotency: Idempotency | None = None) -> Record:
        return await self._writer.do(lambda db: self._accept(db, call, now, idempotency))

    async def claim(self, now: float, choose: Choose) -> Claimed:
        return await self._writer.do(partial(_claim, now=now, choose=choose))

    async def hand_back(self, ids: Sequence[str]) -> None:
        await self._writer.do(
            lambda db: db.executemany(
                "UPDATE invocations SET status = 'queued', attempts = attempts - 1"
                " WHERE id = ? AND status = 'running'",
                [(id,) for id in ids],
            )
        )

    async def finish(self, ending: Ending, now: float) -> bool:
        return await self._writer.do(partial(_finish, ending=ending, now=now))

    async def cancel(self, id: str, now: float) -> Record | None:
        def operation(db: sqlite3.Connection) -> Record | None:
            record = _show(db, id)
            if record is not None and record.status is Status.QUEUED:
                db.execute(
                    "UPDATE invocations SET status = 'cancelled', ended = ? WHERE seq = ?", (now, record.seq)
                )
            return record

        return await self._writer.do(operation)

    async def again(self, id: str, now: float) -> Record | None:
        def operation(db: sqlite3.Connection) -> Record | None:
            record = _show(db, id)
            if record is not None and record.status.ended:
                db.execute("DELETE FROM results WHERE seq = ?", (record.seq,))
                db.execute(f"UPDATE invocations SET {AGAIN} WHERE seq = ?", (now, now, record.seq))
            return record

        return await self._writer.do(operation)

    async def redrive(self, now: float, function: str | None = None) -> int:
        which, values = _dead_letters(function)

        def operation(db: sqlite3.Connection) -> int:
            db.execute(
                f"DELETE FROM results WHERE seq IN (SELECT seq FROM invocations WHERE {which})",
                values,
            )
            statement = f"UPDATE invocations SET {AGAIN} WHERE {which}"
            return db.execute(statement, (now, now, *values)).rowcount

        return await self._writer.do(operation)

    async def purge(self, function: str | None = None) -> int:
        which, values = _dead_letters(function)
        statement = f"DELETE FROM invocations WHERE {which}"
        return await self._writer.do(lambda db: db.execute(statement, values).rowcount)

    async def void(self, now: float) -> int:
        statement = "UPDATE invocations SET status = 'queued', due = ? WHERE status = 'running'"
        return await self._writer.do(lambda db: db.execute(statement, (now,)).rowcount)

    async def prune(self, before: float, now: float) -> int:
        def operation(db: sqlite3.Connection) -> int:
            db.execute("DELETE FROM idempotency WHERE expires < ?", (now,))
            return _forget(db, "ended IS NOT NULL") if self._is_full(db) else _forget(db, "ended < ?", before)

        return await self._writer.do(operation)

    async def show(self, id: str) -> Record | None:
        return await self._writer.do(lambda db: _show(db, id))

    async def result(self, id: str) -> Result | None:
        return await self._writer.do(partial(_result, id=id))

    async def list(self, query: Query) -> Sequence[Record]:
        return await self._writer.do(partial(_list, query=query))

    async def counts(self) -> Mapping[tuple[str, Status], int]:
        def operation(db: sqlite3.Connection) -> dict[tuple[str, Status], int]:
            return {
                (function, status): count
                for status in (Status.QUEUED, Status.RUNNING)
                for function, count in db.execute(
                    f"SELECT function, count(*) FROM invocations WHERE status = '{status}' GROUP BY function"
                )
            }

        return await self._writer.do(operation)

    async def close(self) -> None:
        await self._writer.close()

    def _accept(
        self, db: sqlite3.Connection, call: NewCall, now: float, idempotency: Idempotency | None
    ) -> Record:
        if idempotency is not None and (known := _known(db, call, now, idempotency)) is not None:
            return known
        if self._is_full(db) and not (_forget(db, "ended IS NOT NULL") and not self._is_full(db)):
            raise StoreFull(
                f"the store holds its {self._max_bytes} bytes, and what can be forgotten is not enough"
            )
        record = _insert(db, call, now)
        if idempotency is not None:
            db.execute(
                "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?, ?, ?)",
                (
                    idempotency.caller,
                    call.function,
                    idempotency.key,
                    idempotency.digest,
                    record.seq,
                    now + idempotency.seconds,
                ),
            )
        return record

    def _is_full(self, db: sqlite3.Connection) -> bool:
        """Pages that are free again do not count: what was forgotten makes room without shrinking the file."""
        pages, free, size = (
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return bool((pages - free) * size > self._max_bytes)


def _forget(db: sqlite3.Connection, which: str, *values: float) -> int:
    """Forget the oldest of these calls, all of which have ended; how many they were."""
    oldest = f"SELECT seq FROM invocations WHERE {which} ORDER BY ended LIMIT {PRUNED_AT_ONCE}"
    return db.execute(f"DELETE FROM invocations WHERE seq IN ({oldest})", values).rowcount


def _insert(db: sqlite3.Connection, call: NewCall, now: float) -> Record:
    seq = db.execute(
        "INSERT INTO invocations (id, function, status, depth, accepted, since, due)"
        " VALUES (?, ?, 'queued', ?, ?, ?, ?)",
        (call.id, call.function, call.depth, now, now, now),
    ).lastrowid
    assert seq is not None
    head = [
        call.method,
        call.sub_path.decode("latin-1"),
        call.query.decode("latin-1"),
        call.client,
        _as_text(call.headers),
    ]
    db.execute("INSERT INTO requests VALUES (?, ?, ?)", (seq, json.dumps(head), call.body))
    return Record(seq, call.id, call.function, Status.QUEUED, 0, now, now, None, None, None, "", "none")


def _known(db: sqlite3.Connection, call: NewCall, now: float, idempotency: Idempotency) -> Record | None:
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
    return _show(db, row[1])


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


def _claim(db: sqlite3.Connection, now: float, choose: Choose) -> Claimed:
    claimed = Claimed()
    for function, count in choose(backlogs := _backlogs(db, now)).items():
        rows = db.execute(
            "SELECT seq, id, attempts, failures, since, depth, head, body FROM invocations JOIN requests USING (seq)"
            " WHERE status = 'queued' AND function = ? AND due <= ? ORDER BY due, seq LIMIT ?",
            (function, now, count),
        ).fetchall()
        db.executemany(
            "UPDATE invocations SET status = 'running', attempts = attempts + 1, started = ? WHERE seq = ?",
            [(now, row[0]) for row in rows],
        )
        for _, id, attempts, failures, since, depth, head, body in rows:
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
            )
            claimed.claims.append(Claim(call, attempts + 1, failures, since))
    later = [backlog.next_due for backlog in backlogs.values() if backlog.next_due > now]
    claimed.next_due = min(later, default=None)
    return claimed


def _finish(db: sqlite3.Connection, ending: Ending, now: float) -> bool:
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
    if ending.follow is not None:
        _insert(db, ending.follow, now)
    return True


def _show(db: sqlite3.Connection, id: str) -> Record | None:
    row = db.execute(f"SELECT {COLUMNS} FROM invocations WHERE id = ?", (id,)).fetchone()
    return None if row is None else _record(row)


def _result(db: sqlite3.Connection, id: str) -> Result | None:
    row = db.execute(
        "SELECT results.status, headers, body, problem, results.detail, results.blame, log"
        " FROM results JOIN invocations USING (seq) WHERE id = ?",
        (id,),
    ).fetchone()
    return None if row is None else Result(row[0], _as_headers(json.loads(row[1])), *row[2:])


def _list(db: sqlite3.Connection, query: Query) -> list[Record]:
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
    if query.before is not None:
        conditions.append("seq < ?")
        values.append(query.before)
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = db.execute(
        f"SELECT {COLUMNS} FROM invocations {where} ORDER BY seq DESC LIMIT ?",
        (*values, query.limit),
    )
    return [_record(row) for row in rows]


def _dead_letters(function: str | None) -> tuple[str, tuple[str, ...]]:
    """A condition for the dead letters of a function, or all, and its values."""
    return (DEAD, ()) if function is None else (f"{DEAD} AND function = ?", (function,))


def _record(row: Sequence[Any]) -> Record:
    return Record(row[0], row[1], row[2], Status(row[3]), *row[4:])


def _as_text(headers: HeaderList) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def _as_headers(pairs: Iterable[tuple[str, str]]) -> HeaderList:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
