"""The rows of lease owners, and taking leases away, inside somebody's transaction.

A lease is a column beside what is leased. The time of it is `started` of a call, and `leased` of anything else.
"""

from __future__ import annotations

import sqlite3

from scheduler.calls.leases import LeaseOwner
from scheduler.calls.store import LeaseLost

LEASABLE = ("runs", "jobs", "triggers", "callbacks")
"""Tables of what is leased beside calls and payloads."""
REMEMBERED_SECONDS = 86_400.0
"""Time for which an owner is remembered from when it was found gone, so that it learns of that when it comes back."""
ABANDONED = "lease_owner NOT IN (SELECT id FROM lease_owners WHERE NOT gone) AND lease_owner != :me"
OF_CANCELLED_JOB = (
    "owner GLOB 'job:*' AND owner != '' AND"
    " EXISTS (SELECT 1 FROM jobs WHERE id = substr(invocations.owner, 5) AND jobs.status = 'cancelling')"
)
TO_RUN_AGAIN = (
    "status = 'queued' AND owner != ''"
    " AND owner IN (SELECT 'job:' || id FROM jobs WHERE status = 'cancelling')"
)
"""Tasks that failed while their job was being cancelled, and wait to be run again."""


def touch(db: sqlite3.Connection, owner: LeaseOwner, now: float) -> bool:
    """Record that an owner is alive, who may be new. Return False if its leases were taken away."""
    row = db.execute(
        "INSERT INTO lease_owners (id, node, seen) VALUES (?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET seen = excluded.seen WHERE NOT gone",
        (owner.id, owner.node, now),
    )
    return row.rowcount > 0


def check(db: sqlite3.Connection, owner: LeaseOwner, now: float) -> None:
    """Record that an owner is alive. Raise `LeaseLost` if its leases were taken away."""
    if not touch(db, owner, now):
        raise LeaseLost(f"the leases of {owner.id} were taken away, as it was silent for too long")


def lease(db: sqlite3.Connection, table: str, seq: int, owner: LeaseOwner, now: float) -> bool:
    """Lease a row of a table to an owner, if nobody has it. Return whether it is leased to that owner now.

    Raises `LeaseLost`.
    """
    (holder,) = db.execute(f"SELECT lease_owner FROM {table} WHERE seq = ?", (seq,)).fetchone()
    if not holder:
        check(db, owner, now)
        db.execute(f"UPDATE {table} SET lease_owner = ?, leased = ? WHERE seq = ?", (owner.id, now, seq))
    return holder in ("", owner.id)


def is_leased(db: sqlite3.Connection, table: str, seq: int, owner: LeaseOwner) -> bool:
    """Return whether a row of a table is leased to an owner."""
    (holder,) = db.execute(f"SELECT lease_owner FROM {table} WHERE seq = ?", (seq,)).fetchone()
    return bool(holder == owner.id)


def give_up_silent(db: sqlite3.Connection, owner: LeaseOwner, now: float, silent_seconds: float) -> None:
    """Mark the earlier epochs of a node as gone, and the owners that have been silent for so long."""
    db.execute(
        "UPDATE lease_owners SET gone = 1, seen = ? WHERE NOT gone AND id != ? AND (node = ? OR seen < ?)",
        (now, owner.id, owner.node, now - silent_seconds),
    )
    db.execute("DELETE FROM lease_owners WHERE gone AND seen < ?", (now - REMEMBERED_SECONDS,))


def free_abandoned(db: sqlite3.Connection, owner: LeaseOwner, now: float) -> int:
    """Free all leases whose owner is gone or unknown. Return how many calls are queued again by that.

    Calls that an earlier version of this program has left as running have no owner, and are queued again too. No task
    of a job that is being cancelled is run again.
    """
    which = {"me": owner.id, "now": now}
    db.execute(f"UPDATE payloads SET state = 'gone' WHERE state = 'filling' AND {ABANDONED}", which)
    running = f"status = 'running' AND {ABANDONED}"
    db.execute(
        f"UPDATE invocations SET status = 'cancelled', ended = :now, lease_owner = ''"
        f" WHERE {running} AND {OF_CANCELLED_JOB}",
        which,
    )
    db.execute(f"UPDATE invocations SET status = 'cancelled', ended = :now WHERE {TO_RUN_AGAIN}", which)
    for table in LEASABLE:
        db.execute(f"UPDATE {table} SET lease_owner = '' WHERE lease_owner != '' AND {ABANDONED}", which)
    return db.execute(
        f"UPDATE invocations SET status = 'queued', due = :now, lease_owner = '' WHERE {running}", which
    ).rowcount
