"""The first rows of everything that is begun durably, inside somebody's transaction."""

from __future__ import annotations

import json
import sqlite3
from typing import assert_never

from scheduler.calls.callbacks import CallbackStatus
from scheduler.json_steps import dumps
from scheduler.store.sqlite.rows import call_rows
from scheduler.store.sqlite.rows.call_rows import ROW_BYTES
from scheduler.triggers.store import FIRES_KEPT
from scheduler.work import Fire, NewCall, NewCallback, NewJob, NewRun, Outcome, Work

INPUT_BYTES = 32
"""Bytes that a job's input counts with beside its own: its row."""


def begin(db: sqlite3.Connection, work: Work, now: float, caller: int) -> None:
    """Write the first rows of a work. One whose id was begun before is left as it is.

    `now` is wall time in seconds; `caller` is the number of whom its bytes count to (`Room.caller`).
    """
    match work:
        case NewCall():
            if call_rows.show(db, work.id) is None:
                call_rows.insert(db, work, now, caller)
        case NewRun():
            begin_run(db, work, now, caller)
        case NewJob():
            begin_job(db, work, now, caller)
        case Fire():
            fire(db, work, now, caller)
        case NewCallback():
            _begin_callback(db, work, now)
        case _:
            assert_never(work)


def begin_run(db: sqlite3.Connection, run: NewRun, now: float, caller: int) -> None:
    """Begin a run whose bytes count to a caller, unless its id was begun before."""
    functions = json.dumps(run.definition.functions())
    text = run.definition.model_dump_json(exclude_unset=True)  # rules look at what was set
    size = ROW_BYTES + len(text) + len(run.input.data)
    row = db.execute(
        "INSERT INTO runs (id, workflow, status, functions, started, depth, caller, bytes)"
        " VALUES (?, ?, 'running', ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        (run.id, run.workflow, functions, now, run.depth, caller, size),
    )
    if row.rowcount:
        db.execute(
            "INSERT INTO run_data (seq, definition, input, input_type) VALUES (?, ?, ?, ?)",
            (row.lastrowid, text, run.input.data, run.input.content_type),
        )


def begin_job(db: sqlite3.Connection, job: NewJob, now: float, caller: int) -> None:
    """Begin a job whose bytes count to a caller, unless its id was begun before."""
    definition = job.definition
    assert definition.tasks is not None
    kept = definition.model_dump(mode="json", exclude={"inputs", "volumes"}, exclude_unset=True)
    if definition.volumes:
        kept["volumes"] = [
            f"{mount.source}:{mount.target}:{'ro' if mount.read_only else 'rw'}"
            for mount in definition.volumes
        ]
    as_text = definition.image is not None
    inputs = [input_body(value, as_text) for value in definition.inputs or ()]
    text, context = json.dumps(kept), json.dumps(job.context)
    size = ROW_BYTES + len(text) + len(job.each or b"") + sum(len(b) + INPUT_BYTES for b in inputs)
    about = (job.id, job.name, text, definition.tasks, job.parallel, job.each, now, job.depth, context)
    row = db.execute(
        "INSERT INTO jobs (id, name, definition, count, parallel, each, created, depth, context, status, caller,"
        " bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'running', ?, ?) ON CONFLICT (id) DO NOTHING",
        (*about, caller, size),
    )
    if row.rowcount:
        db.executemany(
            "INSERT INTO job_inputs VALUES (?, ?, ?)",
            ((row.lastrowid, index, body) for index, body in enumerate(inputs)),
        )


def input_body(value: object, as_text: bool) -> bytes:
    """Return an input as the JSON body of a task's request. `as_text`: text stays text, for commands read no JSON."""
    if as_text and isinstance(value, str):
        return value.encode(errors="replace")
    return dumps(value, ensure_ascii=False, errors="backslashreplace")


def fire(db: sqlite3.Connection, fire: Fire, now: float, caller: int) -> Outcome:
    """Record a fire and begin what it starts, whose bytes count to a caller.

    A start that was made before is left as it is and not recorded again.
    """
    if fire.work is not None:
        before = db.total_changes
        begin(db, fire.work, now, caller)
        if db.total_changes == before:
            return Outcome.KNOWN
    about = (fire.cause, fire.outcome, fire.kind, fire.target, fire.id, fire.detail, fire.scheduled)
    db.execute(
        "INSERT INTO fires (trigger_name, at, cause, outcome, kind, target, id, detail, scheduled)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (fire.trigger, now, *about),
    )
    db.execute(
        "DELETE FROM fires WHERE trigger_name = ? AND seq <= (SELECT seq FROM fires WHERE trigger_name = ?"
        " ORDER BY seq DESC LIMIT 1 OFFSET ?)",
        (fire.trigger, fire.trigger, FIRES_KEPT),
    )
    return fire.outcome


def _begin_callback(db: sqlite3.Connection, work: NewCallback, now: float) -> None:
    status = CallbackStatus.PENDING if work.fault is None else CallbackStatus.GIVEN_UP
    db.execute(
        "INSERT OR REPLACE INTO callbacks (seq, message, url, host, body, status, due, fault)"
        " SELECT seq, ?, ?, ?, ?, ?, ?, ? FROM invocations WHERE id = ?",
        (work.message, work.url, work.host, work.body, status.value, now, work.fault, work.invocation),
    )
