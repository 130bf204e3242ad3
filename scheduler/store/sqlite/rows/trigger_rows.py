"""The rows of triggers and their fires, inside somebody's transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from scheduler.calls.store import LeaseRefused
from scheduler.store.sqlite.rows.lease_rows import check
from scheduler.triggers.due import ScheduleState
from scheduler.triggers.model import Course, FireRecord, KeptTrigger, ScheduleWatch
from scheduler.work import Outcome


def fires(db: sqlite3.Connection, trigger: str, most: int) -> list[FireRecord]:
    """Return the latest fires of a trigger, newest first."""
    rows = db.execute(
        "SELECT at, cause, outcome, kind, target, id, detail, scheduled FROM fires WHERE trigger_name = ?"
        " ORDER BY seq DESC LIMIT ?",
        (trigger, most),
    )
    return [FireRecord(row[0], row[1], Outcome(row[2]), *row[3:]) for row in rows]


def latest_fires(db: sqlite3.Connection, triggers: Sequence[str]) -> dict[str, FireRecord]:
    """Return the latest fire of each of these triggers that has fired."""
    latest = "(SELECT seq FROM fires WHERE trigger_name = value ORDER BY seq DESC LIMIT 1)"
    rows = db.execute(
        "SELECT trigger_name, at, cause, outcome, kind, target, fires.id, detail, scheduled"
        f" FROM json_each(?) CROSS JOIN fires ON seq = {latest}",
        (json.dumps(triggers),),
    )
    return {row[0]: FireRecord(row[1], row[2], Outcome(row[3]), *row[4:]) for row in rows}


def keep_course(db: sqlite3.Connection, course: Course) -> None:
    """Record the progress of a schedule."""
    latest = json.dumps(course.latest) if course.latest else ""
    values = (course.timetable, course.state.considered, json.dumps(course.state.waiting), latest)
    db.execute(
        "INSERT INTO triggers (name, timetable, considered, waiting, latest) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET timetable = ?, considered = ?, waiting = ?, latest = ?",
        (course.trigger, *values, *values),
    )


def keep_watched(db: sqlite3.Connection, watch: ScheduleWatch, now: float) -> None:
    """Record the course of a schedule for its watcher, who leases it by that.

    Raises `LeaseRefused` if another watches it, and `LeaseLost`.
    """
    name, owner = watch.course.trigger, watch.owner
    check(db, owner, now)
    row = db.execute("SELECT lease_owner FROM triggers WHERE name = ?", (name,)).fetchone()
    if row is not None and row[0] not in ("", owner.id):
        raise LeaseRefused(f"another process watches the schedule {name}")
    keep_course(db, watch.course)
    db.execute("UPDATE triggers SET lease_owner = ?, leased = ? WHERE name = ?", (owner.id, now, name))


def keep_paused(db: sqlite3.Connection, trigger: str, paused: bool) -> None:
    """Record whether a trigger is paused."""
    db.execute(
        "INSERT INTO triggers (name, paused) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET paused = ?",
        (trigger, paused, paused),
    )


def keep_definition(db: sqlite3.Connection, trigger: str, definition: str) -> None:
    """Record a trigger that is made over the API."""
    db.execute(
        "INSERT INTO triggers (name, definition) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET definition = ?",
        (trigger, definition, definition),
    )


def forget(db: sqlite3.Connection, trigger: str) -> None:
    """Forget a trigger and its fires. What it has started goes on."""
    db.execute("DELETE FROM triggers WHERE name = ?", (trigger,))
    db.execute("DELETE FROM fires WHERE trigger_name = ?", (trigger,))


def all_kept(db: sqlite3.Connection) -> list[KeptTrigger]:
    """Return every trigger of which anything is kept."""
    rows = db.execute(
        "SELECT name, definition, paused, timetable, considered, waiting, latest FROM triggers"
    ).fetchall()
    return [
        KeptTrigger(
            name,
            definition,
            bool(paused),
            Course(
                name,
                timetable,
                ScheduleState(considered, tuple(json.loads(waiting))),
                tuple(json.loads(latest)) if latest else None,
            ),
        )
        for name, definition, paused, timetable, considered, waiting, latest in rows
    ]
