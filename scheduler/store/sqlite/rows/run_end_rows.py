"""The ends of workflow runs: giving up, cancelling, resuming and forgetting, inside somebody's transaction."""

from __future__ import annotations

import sqlite3

from scheduler.calls.leases import LeaseOwner
from scheduler.store.sqlite.rows.begin_rows import begin
from scheduler.store.sqlite.rows.call_rows import as_kept
from scheduler.store.sqlite.rows.lease_rows import lease
from scheduler.store.sqlite.rows.run_rows import FAILED, OF_STEP, caller_of, definition, let_go, show
from scheduler.workflows.model import KIND, RunEnd, RunRecord, RunStatus, StepStatus, owner_of

OWNED = "owner > ? AND owner < ? AND owner != ''"
UNENDED = "status IN ('queued', 'held', 'running')"
PRUNED_AT_ONCE = 20
"""Most runs that one transaction forgets."""
FORGOTTEN_AT_ONCE = 500
"""Most calls that one transaction forgets, of all runs: the next transaction waits for it."""


def _owners(run: str) -> tuple[str, str]:
    """Return the bounds of the owners of all steps of a run, for `OWNED`."""
    return f"{KIND}:{run}/", f"{KIND}:{run}0"  # 0 is the character after /


def give_up(db: sqlite3.Connection, owner: LeaseOwner, record: RunRecord, end: RunEnd, now: float) -> bool:
    """End a run about which nothing can be decided. Return whether it was as in `record`, else change nothing.

    Its calls that were begun go on to their ends.
    """
    if not lease(db, "runs", record.seq, owner, now):
        return False
    ended = db.execute(
        "UPDATE runs SET status = ?, ended = ?, error = ?, detail = ? WHERE seq = ?"
        " AND status = 'running' AND revision = ?",
        (end.status, now, end.error, as_kept(end.detail), record.seq, record.revision),
    ).rowcount
    if ended:
        db.execute(
            "UPDATE run_steps SET status = 'cancelled', ended = ? WHERE status = 'running' AND seq = ?",
            (now, record.seq),
        )
        let_go(db, OWNED, _owners(record.id), now)
        for work in end.follow:
            begin(db, work, now, caller_of(db, record))
    return bool(ended)


def cancel(db: sqlite3.Connection, id: str, now: float) -> tuple[RunRecord | None, list[str]]:
    """End a run that goes on, with all its calls. Return the run as it was, and the ids of its calls that ran.

    Those are recorded as cancelled, and are still to be interrupted.
    """
    record = show(db, id)
    if record is None or record.status.ended:
        return record, []
    made = definition(db, record)
    bounds = _owners(id)
    running = db.execute(
        f"SELECT id FROM invocations WHERE {OWNED} AND status = 'running'", bounds
    ).fetchall()
    db.execute(
        f"UPDATE invocations SET status = 'cancelled', ended = ? WHERE {OWNED} AND {UNENDED}",
        (now, *bounds),
    )
    for step in made.steps:
        db.execute(
            "INSERT INTO run_steps (seq, step, status, total, started, ended) VALUES (?, ?, 'cancelled', 0, ?, ?)"
            " ON CONFLICT (seq, step) DO UPDATE SET status = 'cancelled', ended = excluded.ended"
            " WHERE status = 'running'",
            (record.seq, step, now, now),
        )
    db.execute(
        "UPDATE runs SET status = 'cancelled', ended = ?, revision = revision + 1 WHERE seq = ?",
        (now, record.seq),
    )
    return record, [call for (call,) in running]


def resume(db: sqlite3.Connection, id: str) -> RunRecord | None:
    """Let a run that has failed or was cancelled go on, and leave any other. Return the run as it was.

    Its calls that did not succeed are held until their step begins them again. Steps that were not begun wait again.
    """
    record = show(db, id)
    if record is None or record.status not in (RunStatus.FAILED, RunStatus.CANCELLED):
        return record
    made = definition(db, record)
    for step, status, total in db.execute(
        "SELECT step, status, total FROM run_steps WHERE seq = ?", (record.seq,)
    ).fetchall():
        stopped = status == StepStatus.CANCELLED
        if not stopped and (status != StepStatus.FAILED or made.steps[step].may_fail):
            continue
        if total == 0:
            db.execute("DELETE FROM run_steps WHERE seq = ? AND step = ?", (record.seq, step))
            continue
        failed = f"{OF_STEP} AND {FAILED}"
        owner = owner_of(id, step)
        db.execute(f"DELETE FROM results WHERE seq IN (SELECT seq FROM invocations WHERE {failed})", (owner,))
        db.execute(
            "UPDATE invocations SET status = 'held', ended = NULL, error = NULL, detail = '', blame = 'none',"
            " brought = 0"
            f" WHERE {failed}",
            (owner,),
        )
        db.execute(
            "UPDATE run_steps SET status = 'running', ended = NULL, error = NULL, detail = ''"
            " WHERE seq = ? AND step = ?",
            (record.seq, step),
        )
    db.execute(
        "UPDATE runs SET status = 'running', ended = NULL, error = NULL, detail = '', revision = revision + 1,"
        " lease_owner = '' WHERE seq = ?",
        (record.seq,),
    )
    db.execute("UPDATE run_data SET output = NULL, output_type = NULL WHERE seq = ?", (record.seq,))
    return record


def forget(db: sqlite3.Connection, id: str) -> bool:
    """Forget a part of a run, if it has ended. Return whether there is more of it to forget."""
    record = show(db, id)
    if record is None or not record.status.ended:
        return False
    some = f"SELECT seq FROM invocations WHERE {OWNED} LIMIT {FORGOTTEN_AT_ONCE}"
    forgotten = db.execute(f"DELETE FROM invocations WHERE seq IN ({some})", _owners(id)).rowcount
    if forgotten == FORGOTTEN_AT_ONCE:
        return True
    db.execute("DELETE FROM runs WHERE seq = ?", (record.seq,))
    return False


def prune(db: sqlite3.Connection, before: float) -> int:
    """Forget some runs that ended before this time. Return how many; of the last one, perhaps only a part is gone."""
    ids = db.execute(
        "SELECT id FROM runs WHERE ended < ? ORDER BY ended LIMIT ?", (before, PRUNED_AT_ONCE)
    ).fetchall()
    changed = db.total_changes
    for number, (id,) in enumerate(ids, 1):
        if forget(db, id) or db.total_changes - changed >= FORGOTTEN_AT_ONCE:
            return number
    return len(ids)
