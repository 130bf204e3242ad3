"""Many accepted calls at once: what is asked for in one commit, in a handful of statements.

While a statement runs, the event loop has the interpreter, and gives it back only when it comes to wait. So what a
commit costs is the number of its statements, and hardly the number of its rows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from scheduler.durable.call_rows import as_kept, headers_to_json, new_record, phases_to_json, request_head
from scheduler.durable.model import Ending, NewCall, Record
from scheduler.durable.terms import terms_to_json
from scheduler.durable.work import begin

SIZES = (64, 32, 16, 8, 4, 2, 1)
"""Rows of one statement. Few different ones, so that each is prepared once."""
NEW = "invocations (seq, id, function, status, depth, accepted, since, due)"
ENDED = (
    "WITH ending (seq, status, failures, due, ended, error, detail, blame, phases) AS ({rows})"
    " UPDATE invocations SET status = ending.status, failures = ending.failures, due = ending.due,"
    " ended = ending.ended, error = ending.error, detail = ending.detail, blame = ending.blame,"
    " phases = ending.phases FROM ending WHERE invocations.seq = ending.seq"
)


def insert_all(db: sqlite3.Connection, calls: Sequence[tuple[NewCall, float]]) -> list[Record]:
    """Queue calls that belong to nobody, each accepted at its wall time."""
    (latest,) = db.execute(
        "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'invocations'), 0)"
    ).fetchone()
    rows, requests, records = [], [], []
    for seq, (call, now) in enumerate(calls, latest + 1):
        rows.append((seq, call.id, call.function, "queued", call.depth, now, now, now))
        requests.append((seq, request_head(call), call.body, terms_to_json(call.terms)))
        records.append(new_record(seq, call, now))
    _run(db, f"INSERT INTO {NEW} {{rows}}", rows)
    _run(db, "INSERT INTO requests (seq, head, body, terms) {rows}", requests)
    return records


def finish_all(db: sqlite3.Connection, endings: Sequence[Ending], now: float) -> list[bool]:
    """Record what came of leased calls, at a wall time. False: it was not leased."""
    (text,) = db.execute(
        "SELECT json_group_object(id, seq) FROM invocations"
        " WHERE status = 'running' AND id IN (SELECT value FROM json_each(?))",
        (json.dumps([ending.id for ending in endings]),),
    ).fetchone()
    leased: dict[str, int] = json.loads(text)
    rows, results, was_leased = [], [], []
    for ending in endings:
        seq = leased.pop(ending.id, None)
        was_leased.append(seq is not None)
        if seq is None:
            continue
        phases = ""
        if (result := ending.result) is not None:
            phases = phases_to_json(result.phases)
            headers = headers_to_json(tuple(result.headers))
            results.append(
                (
                    seq,
                    result.status,
                    headers,
                    result.body,
                    result.problem,
                    as_kept(result.detail),
                    result.blame,
                    result.log,
                )
            )
        rows.append(
            (
                seq,
                ending.status.value,
                ending.failures,
                ending.due,
                now if ending.status.ended else None,
                ending.error,
                as_kept(ending.detail),
                ending.blame,
                phases,
            )
        )
    _run(db, ENDED, rows)
    _run(db, "INSERT OR REPLACE INTO results {rows}", results)
    for ending, leased_it in zip(endings, was_leased, strict=True):
        if leased_it:
            for work in ending.follow:
                begin(work, db, now)
    return was_leased


def _run(db: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Run a statement with `{rows}` in it for all rows, in as few executions as can be."""
    for chunk in chunks(rows):
        db.execute(_with_rows(statement, len(chunk), len(chunk[0])), [*chain.from_iterable(chunk)])


def chunks(rows: Sequence[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Pieces of one of the `SIZES` each, the large ones first."""
    at = 0
    for size in SIZES:
        while len(rows) - at >= size:
            yield rows[at : at + size]
            at += size


@lru_cache(maxsize=64)
def _with_rows(statement: str, count: int, width: int) -> str:
    row = f"({', '.join('?' * width)})"
    return statement.replace("{rows}", f"VALUES {', '.join([row] * count)}")
