"""Rows of many accepted calls at once: all that one commit accepts or records, in a handful of statements.

While a statement runs, the event loop has the interpreter, and gives it back only when it waits. So the cost of a
commit grows with the number of its statements, and hardly with the number of its rows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any

from scheduler.calls.leases import LeaseOwner
from scheduler.calls.model import CallRecord, Ending, Status
from scheduler.definitions.language.call_overrides import overrides_to_json
from scheduler.store.sqlite.rows import piece_rows
from scheduler.store.sqlite.rows.begin_rows import begin
from scheduler.store.sqlite.rows.call_rows import (
    ROW_BYTES,
    as_kept,
    headers_to_json,
    new_record,
    phases_to_json,
    request_head,
)
from scheduler.work import NewCall, Payload

SUCCESS = Status.SUCCEEDED
SIZES = (256, 128, 64, 32, 16, 8, 4, 2, 1)
"""Numbers of rows in one statement. Few different ones, so that each statement is prepared once."""
FILLER = ""
"""Fills the unused rows of a statement: an id that no call has."""
NEW = "invocations (seq, id, function, status, depth, accepted, since, due, caller, bytes)"
ENDED = (
    "WITH ending (id, status, failures, due, ended, error, detail, blame, phases) AS ({rows})"
    " UPDATE invocations SET status = ending.status, failures = ending.failures, due = ending.due,"
    " ended = ending.ended, error = ending.error, detail = ending.detail, blame = ending.blame,"
    " phases = ending.phases FROM ending WHERE invocations.id = ending.id"
)
BROUGHT = (
    "WITH result (id, status, headers, body, problem, detail, blame, log) AS ({rows})"
    " INSERT OR REPLACE INTO results (seq, status, headers, body, problem, detail, blame, log)"
    " SELECT seq, result.status, headers, body, problem, result.detail, result.blame, log"
    " FROM result CROSS JOIN invocations ON invocations.id = result.id"
)
SUCCEEDED = (
    "WITH ending (id, ended, phases) AS ({rows})"
    " UPDATE invocations SET status = 'succeeded', ended = ending.ended, error = NULL, detail = '', blame = 'none',"
    " phases = ending.phases FROM ending WHERE invocations.id = ending.id"
)
ANSWERED = (
    "WITH answer (id, status, headers, body, log) AS ({rows})"
    " INSERT OR REPLACE INTO results (seq, status, headers, body, problem, detail, blame, log)"
    " SELECT seq, answer.status, headers, body, NULL, '', 'none', log"
    " FROM answer CROSS JOIN invocations ON invocations.id = answer.id"
)
"""`SUCCEEDED` and `ANSWERED` are shorter forms of `ENDED` and `BROUGHT` for most runs, which bring an answer."""
CHEAP_TO_COPY = 16 * 1024
NOBODY: Mapping[str, int] = {"": 1}
"""Name and number of all callers without a key."""
LEASED = "status = 'running' AND lease_owner = ? AND id IN (SELECT value FROM json_each(?))"
FOLLOW = itemgetter(Ending._fields.index("follow"))
"""Returns the follow-ups of an end. Fast, since every end is asked and most have none."""
COUNTS = "(bytes + brought) * (owner = '' AND NOT untold)"
"""Bytes that a call counts with to its caller until it has ended."""
SUMS = f"count(*), sum(owner != ''), sum({COUNTS}), min(caller), max(caller)"
COUNTED = f"SELECT {SUMS} FROM invocations WHERE {LEASED}"
COUNTED_BY_CALLER = f"SELECT caller, sum({COUNTS}) FROM invocations WHERE {LEASED} GROUP BY caller"
COUNT_LESS = "UPDATE callers SET bytes = bytes - ? WHERE id = ?"
COUNT_BROUGHT = (
    "UPDATE invocations SET brought = coalesce((SELECT length(headers) + length(body) + length(log)"
    " + coalesce((SELECT bytes FROM payloads WHERE payloads.id = results.payload), 0)"
    " FROM results WHERE results.seq = invocations.seq), 0) WHERE id IN (SELECT value FROM json_each(?))"
)
"""For calls that count on after their run. The results of others can be forgotten as soon as they are recorded."""


def insert_all(
    db: sqlite3.Connection, calls: Sequence[tuple[NewCall, float]], callers: Mapping[str, int] = NOBODY
) -> list[CallRecord]:
    """Queue calls without an owner, each accepted at its wall time. `callers` are the numbers of their callers."""
    (latest,) = db.execute(
        "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'invocations'), 0)"
    ).fetchone()
    rows, requests, records = [], [], []
    for seq, (call, now) in enumerate(calls, latest + 1):
        head, body, overrides = request_head(call.request), blob(call.body), overrides_to_json(call.overrides)
        counted = (callers[call.caller], ROW_BYTES + len(head) + len(body) + len(overrides))
        rows.append((seq, call.id, call.function, "queued", call.depth, now, now, now, *counted))
        requests.append((seq, head, body, overrides))
        records.append(new_record(seq, call, now))
    _run(db, f"INSERT INTO {NEW} {{rows}}", rows)
    _run(db, "INSERT INTO requests (seq, head, body, terms) {rows}", requests)
    for name, number in callers.items():
        size = sum([row[-1] for row, (call, _) in zip(rows, calls, strict=True) if call.caller == name])
        db.execute("UPDATE callers SET bytes = bytes + ? WHERE id = ?", (size, number))
    return records


def finish_all(
    db: sqlite3.Connection, owner: LeaseOwner, endings: Sequence[Ending], now: float
) -> list[bool]:
    """Record the ends of calls at a wall time. Return which of them were leased to this owner; others are left."""
    leased_ids = (owner.id, _ids(endings))
    count, owned, size, first, last = db.execute(COUNTED, leased_ids).fetchone()
    if count < len(endings):
        (text,) = db.execute(
            f"SELECT json_group_array(id) FROM invocations WHERE {LEASED}", leased_ids
        ).fetchone()
        leased = set(json.loads(text))
        recorded = [ending.id in leased for ending in endings]
        for ending in endings:
            if ending.id not in leased and ending.result is not None and ending.result.payload is not None:
                piece_rows.discard(db, ending.result.payload.id)
        endings = [ending for ending in endings if ending.id in leased]
    else:
        recorded = [True] * count
    stay = [e for e in endings if e.status is not SUCCESS and not e.status.ended]
    if first == last and not stay:
        db.execute(COUNT_LESS, (size, first))
    else:
        ended = _ids([ending for ending in endings if ending.status.ended])
        for caller, size in db.execute(COUNTED_BY_CALLER, (owner.id, ended)).fetchall():
            db.execute(COUNT_LESS, (size, caller))
    following = [*filter(FOLLOW, endings)]
    _finish(db, endings, now)
    if owned or stay or following:  # what these have brought cannot be forgotten yet
        db.execute(COUNT_BROUGHT, (_ids(endings if owned else [*stay, *following]),))
    for ending in following:
        (caller,) = db.execute("SELECT caller FROM invocations WHERE id = ?", (ending.id,)).fetchone()
        for work in ending.follow:
            begin(db, work, now, caller)
    return recorded


def _ids(endings: Sequence[Ending]) -> str:
    return json.dumps([ending.id for ending in endings])


def _finish(db: sqlite3.Connection, endings: Sequence[Ending], now: float) -> None:
    succeeded: list[Any] = []
    answered: list[Any] = []
    ended: list[Any] = []
    brought: list[Any] = []
    large: list[tuple[Ending, Payload]] = []
    for ending in endings:
        id, status, result = ending.id, ending.status, ending.result
        if result is not None and result.payload is not None:
            large.append((ending, result.payload))
        if status is SUCCESS and result is not None and result.problem is None:
            headers = headers_to_json(tuple(result.headers))
            succeeded += (id, now, phases_to_json(result.phases))
            answered += (id, result.status, headers, blob(result.body), blob(result.log))
            continue
        phases = "" if result is None else phases_to_json(result.phases)
        how = (ending.error, as_kept(ending.detail), ending.blame, phases)
        ended += (id, status.value, ending.failures, ending.due, now if status.ended else None, *how)
        if result is not None:
            headers, detail = headers_to_json(tuple(result.headers)), as_kept(result.detail)
            why = (result.problem, detail, result.blame, blob(result.log))
            brought += (id, result.status, headers, blob(result.body), *why)
    _run_filled(db, SUCCEEDED, succeeded, 3)
    _run_filled(db, ANSWERED, answered, 5)
    _run_filled(db, ENDED, ended, 9)
    _run_filled(db, BROUGHT, brought, 8)
    for ending, payload in large:
        _attach(db, ending, payload.id)


def _attach(db: sqlite3.Connection, ending: Ending, payload: int) -> None:
    """Keep a payload with the result just written, or discard it if the call is run again."""
    if not ending.status.ended:
        piece_rows.discard(db, payload)
        return
    db.execute(
        "UPDATE results SET payload = ? WHERE seq = (SELECT seq FROM invocations WHERE id = ?)",
        (payload, ending.id),
    )
    piece_rows.keep(db, payload)


def blob(data: bytes) -> bytes | bytearray:
    """Return bytes in the form that sqlite3 binds fastest.

    For a value of type `bytes` it first looks for an adapter, which takes longer than to copy a few bytes.
    """
    return bytearray(data) if len(data) <= CHEAP_TO_COPY else data


def _run(db: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Run a statement with `{rows}` in it for all rows, in as few executions as possible."""
    for chunk in chunks(rows):
        db.execute(_with_rows(statement, len(chunk), len(chunk[0])), [*chain.from_iterable(chunk)])


def chunks(rows: Sequence[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Yield all rows in chunks of one of the `SIZES` each, the large ones first."""
    at = 0
    for size in SIZES:
        while len(rows) - at >= size:
            yield rows[at : at + size]
            at += size


def _run_filled(db: sqlite3.Connection, statement: str, values: list[Any], width: int) -> None:
    """Run a statement for rows that begin with an id and lie one behind the other in `values`.

    The rest after the largest size goes into one more execution, filled up.
    """
    at, rows = 0, len(values) // width
    for count in filled_sizes(rows):
        chunk = values[at : at + count * width]
        chunk += [FILLER] * (count * width - len(chunk))
        db.execute(_with_rows(statement, count, width), chunk)
        at += count * width


def filled_sizes(rows: int) -> list[int]:
    """Return the `SIZES` of the executions for so many rows: the largest full one, repeated, and one for the rest."""
    full = next((size for size in SIZES if size <= rows), 1)
    left = rows % full
    return [full] * (rows // full) + ([min(size for size in SIZES if size >= left)] if left else [])


@lru_cache(maxsize=64)
def _with_rows(statement: str, count: int, width: int) -> str:
    row = f"({', '.join('?' * width)})"
    return statement.replace("{rows}", f"VALUES {', '.join([row] * count)}")
