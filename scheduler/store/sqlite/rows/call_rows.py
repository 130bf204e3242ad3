"""The rows of accepted calls, inside somebody's transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from scheduler.calls.model import CallRecord, Idempotency, Phases, Result, Status
from scheduler.calls.store import KeyReused
from scheduler.definitions.language.call_overrides import overrides_to_json
from scheduler.store.sqlite.rows import piece_rows
from scheduler.work import HeaderList, NewCall, Payload, Request

COLUMNS = (
    "seq, id, function, status, attempts, accepted, due, started, ended, error, detail, blame, owner, part,"
    " phases"
)
PRUNED_AT_ONCE = 500
"""Calls that one transaction forgets: the next transaction waits for it."""
FREE = "owner = ''"
"""Holds for calls without an owner. An owner decides itself when its calls are forgotten."""
FORGETTABLE = f"ended IS NOT NULL AND {FREE}"
AGAIN = (
    "status = 'queued', failures = 0, due = ?, since = ?, ended = NULL, error = NULL, detail = '', blame = 'none',"
    " brought = 0"
)
ROW_BYTES = 1024
"""Bytes that a call counts with beside its request: its rows, and the index entries for them."""


def forget(db: sqlite3.Connection, which: str, *values: float, most: int = PRUNED_AT_ONCE) -> int:
    """Forget the oldest of these ended calls, `most` at most. Return how many.

    Calls whose callback is still to be delivered are kept.
    """
    told = "NOT EXISTS (SELECT 1 FROM callbacks WHERE callbacks.seq = invocations.seq AND status = 'pending')"
    oldest = f"SELECT seq FROM invocations WHERE {which} AND {told} ORDER BY ended LIMIT {most}"
    return db.execute(f"DELETE FROM invocations WHERE seq IN ({oldest})", values).rowcount


def insert(db: sqlite3.Connection, call: NewCall, now: float, caller: int) -> CallRecord:
    """Queue a call whose bytes count to a caller. The same part of the same owner is queued once, whatever its id."""
    if call.owner and (known := part_of(db, call.owner, call.part)) is not None:
        return known
    head, overrides = request_head(call.request), overrides_to_json(call.overrides)
    payload = None if call.payload is None else call.payload.id
    size = ROW_BYTES + len(head) + len(call.body) + len(overrides)
    if call.payload is not None:
        piece_rows.keep(db, call.payload.id)
        size += call.payload.size
    seq = db.execute(
        "INSERT INTO invocations (id, function, status, depth, accepted, since, due, owner, part, caller, bytes)"
        " VALUES (?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(call.id, call.function, call.depth, now, now, now, call.owner, call.part, caller),
            size,
        ),
    ).lastrowid
    assert seq is not None
    count_in(db, call.owner, caller, size)
    db.execute(
        "INSERT INTO requests (seq, head, body, terms, payload) VALUES (?, ?, ?, ?, ?)",
        (seq, head, call.body, overrides, payload),
    )
    return new_record(seq, call, now)


def count_in(db: sqlite3.Connection, owner: str, caller: int, size: int) -> None:
    """Count the bytes of a new call to its run or job, if it is a part of one, else to its caller."""
    kind, _, id = owner.partition(":")
    if kind == "run":
        db.execute("UPDATE runs SET bytes = bytes + ? WHERE id = ?", (size, id.partition("/")[0]))
    elif kind == "job":
        db.execute("UPDATE jobs SET bytes = bytes + ? WHERE id = ?", (size, id))
    else:
        db.execute("UPDATE callers SET bytes = bytes + ? WHERE id = ?", (size, caller))


def cancel(db: sqlite3.Connection, id: str, now: float) -> CallRecord | None:
    """End a call that waits, and leave one that runs or has ended. Return the call as it was, or None."""
    record = show(db, id)
    if record is not None and record.status in (Status.QUEUED, Status.HELD):
        db.execute(
            "UPDATE callers SET bytes = bytes - (SELECT (bytes + brought) * (owner = '' AND NOT untold)"
            " FROM invocations WHERE seq = ?1) WHERE id = (SELECT caller FROM invocations WHERE seq = ?1)",
            (record.seq,),
        )
        db.execute("UPDATE invocations SET status = 'cancelled', ended = ? WHERE seq = ?", (now, record.seq))
    return record


def as_kept(text: str) -> str:
    """Return text of functions or callers in a form that the file can hold.

    JSON can name half of a surrogate pair, which UTF-8 cannot hold: it is escaped.
    """
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def request_head(request: Request) -> bytearray:
    """Return a request without its body as bytes: one line for each part, since no part holds a line feed.

    Lines are fast to read, which counts since no two requests of events are the same. Raises ValueError for a part
    with a line feed.
    """
    head = b"\n".join(
        [
            request.method.encode(),
            request.sub_path,
            request.query,
            request.client.encode(),
            *chain.from_iterable(request.headers),
        ]
    )
    if head.count(b"\n") != 3 + 2 * len(request.headers):
        raise ValueError("a header field, or the path or query, holds a line feed")
    return bytearray(head)


def read_head(head: bytes) -> Request:
    """Read the bytes of `request_head`, or the JSON of an earlier version."""
    if head.startswith(b"["):
        method, sub_path, query, client, headers = json.loads(head)
        return Request(
            method, sub_path.encode("latin-1"), query.encode("latin-1"), headers_of(headers), client
        )
    parts = head.split(b"\n")
    return Request(
        parts[0].decode(),
        parts[1],
        parts[2],
        list(zip(parts[4::2], parts[5::2], strict=True)),
        parts[3].decode(),
    )


def new_record(seq: int, call: NewCall, now: float) -> CallRecord:
    """Return the record of a call that was accepted just now."""
    return CallRecord(
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


def part_of(db: sqlite3.Connection, owner: str, part: str) -> CallRecord | None:
    """Return the call that is this part of its owner, or None if there is none."""
    row = db.execute(
        f"SELECT {COLUMNS} FROM invocations WHERE owner = ? AND part = ? AND owner != ''", (owner, part)
    ).fetchone()
    return None if row is None else record(row)


def known(db: sqlite3.Connection, call: NewCall, now: float, idempotency: Idempotency) -> CallRecord | None:
    """Return the call that an idempotency key was used for, or None if it is new. Raises `KeyReused`."""
    row = db.execute(
        "SELECT digest, id FROM idempotency JOIN invocations USING (seq)"
        " WHERE idempotency.caller = ? AND idempotency.function = ? AND key = ? AND expires > ?",
        (idempotency.caller, call.function, idempotency.key, now),
    ).fetchone()
    if row is None:
        return None
    if row[0] != idempotency.digest:
        raise KeyReused
    return show(db, row[1])


def show(db: sqlite3.Connection, id: str) -> CallRecord | None:
    """Return one call, or None if there is none."""
    row = db.execute(f"SELECT {COLUMNS} FROM invocations WHERE id = ?", (id,)).fetchone()
    return None if row is None else record(row)


def result(db: sqlite3.Connection, id: str) -> Result | None:
    """Return the result of a call's latest run, or None if there is none."""
    row = db.execute(
        "SELECT results.status, headers, body, problem, results.detail, results.blame, log, payload,"
        " (SELECT bytes FROM payloads WHERE payloads.id = results.payload)"
        " FROM results JOIN invocations USING (seq) WHERE invocations.id = ?",
        (id,),
    ).fetchone()
    if row is None:
        return None
    status, headers, body, problem, detail, blame, log, payload, size = row
    where = None if size is None else Payload(payload, size)
    return Result(status, headers_of(json.loads(headers)), body, problem, detail, blame, log, payload=where)


def callers_of(db: sqlite3.Connection, which: str, values: Sequence[Any]) -> list[int]:
    """Return the numbers of the callers whom these calls count to."""
    rows = db.execute(f"SELECT caller FROM invocations WHERE {which}", values)
    return list({caller for (caller,) in rows})


def owning(db: sqlite3.Connection, ids: Sequence[str]) -> list[int]:
    """Return the callers of those of these calls that have an owner, and whose results are kept as long as that."""
    return callers_of(db, "owner != '' AND id IN (SELECT value FROM json_each(?))", (json.dumps(ids),))


def record(row: Sequence[Any]) -> CallRecord:
    """Return the record in a row of `COLUMNS`."""
    values: list[Any] = [*row[:3], Status(row[3]), *row[4:-1], phases_of_json(row[-1])]
    return CallRecord(*values)


def phases_to_json(phases: Phases | None) -> str:
    """Return phases as text, empty for None."""
    if phases is None:
        return ""
    return f'["{phases.kind}", {phases.queue:.4f}, {phases.start:.4f}, {phases.exec:.4f}]'


def phases_of_json(text: str) -> Phases | None:
    """Read the text of `phases_to_json`."""
    return Phases(*json.loads(text)) if text else None


@lru_cache(maxsize=256)
def headers_to_json(headers: tuple[tuple[bytes, bytes], ...]) -> str:
    """Return header fields as text. Cached, since most functions answer with the same fields each time."""
    return json.dumps(_as_text(headers))


def _as_text(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def headers_of(pairs: Iterable[tuple[str, str]]) -> HeaderList:
    """Return the header fields in the pairs of `headers_to_json`."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
