"""The tables, and how a file of an earlier version becomes one of today."""

from __future__ import annotations

import sqlite3

from scheduler.durable.store import StoreError

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE invocations (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        function TEXT NOT NULL,
        status TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        failures INTEGER NOT NULL DEFAULT 0,
        depth INTEGER NOT NULL DEFAULT 0,
        accepted REAL NOT NULL,
        since REAL NOT NULL,
        due REAL NOT NULL,
        started REAL,
        ended REAL,
        error TEXT,
        detail TEXT NOT NULL DEFAULT '',
        blame TEXT NOT NULL DEFAULT 'none'
    );
    CREATE INDEX invocations_function ON invocations (function, seq);
    CREATE INDEX invocations_due ON invocations (function, due, seq) WHERE status = 'queued';
    CREATE INDEX invocations_running ON invocations (function) WHERE status = 'running';
    CREATE INDEX invocations_dead ON invocations (function) WHERE status IN ('dead', 'expired');
    CREATE INDEX invocations_ended ON invocations (ended) WHERE ended IS NOT NULL;
    CREATE TABLE requests (
        seq INTEGER PRIMARY KEY REFERENCES invocations ON DELETE CASCADE,
        head TEXT NOT NULL,
        body BLOB NOT NULL
    );
    CREATE TABLE results (
        seq INTEGER PRIMARY KEY REFERENCES invocations ON DELETE CASCADE,
        status INTEGER NOT NULL,
        headers TEXT NOT NULL,
        body BLOB NOT NULL,
        problem TEXT,
        detail TEXT NOT NULL,
        blame TEXT NOT NULL,
        log BLOB NOT NULL
    );
    CREATE TABLE idempotency (
        caller TEXT NOT NULL,
        function TEXT NOT NULL,
        key TEXT NOT NULL,
        digest BLOB NOT NULL,
        seq INTEGER NOT NULL REFERENCES invocations ON DELETE CASCADE,
        expires REAL NOT NULL,
        PRIMARY KEY (caller, function, key)
    ) WITHOUT ROWID;
    CREATE INDEX idempotency_seq ON idempotency (seq);
    CREATE INDEX idempotency_expires ON idempotency (expires);
    """,
    """
    ALTER TABLE invocations ADD COLUMN owner TEXT NOT NULL DEFAULT '';
    ALTER TABLE invocations ADD COLUMN part TEXT NOT NULL DEFAULT '';
    ALTER TABLE requests ADD COLUMN terms TEXT NOT NULL DEFAULT '';
    CREATE UNIQUE INDEX invocations_part ON invocations (owner, part) WHERE owner != '';
    """,
    """
    CREATE TABLE runs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        workflow TEXT NOT NULL,
        status TEXT NOT NULL,
        functions TEXT NOT NULL,
        started REAL NOT NULL,
        ended REAL,
        error TEXT,
        detail TEXT NOT NULL DEFAULT '',
        depth INTEGER NOT NULL,
        revision INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX runs_workflow ON runs (workflow, seq);
    CREATE INDEX runs_running ON runs (seq) WHERE status = 'running';
    CREATE INDEX runs_ended ON runs (ended) WHERE ended IS NOT NULL;
    CREATE TABLE run_data (
        seq INTEGER PRIMARY KEY REFERENCES runs ON DELETE CASCADE,
        definition TEXT NOT NULL,
        input BLOB NOT NULL,
        input_type TEXT NOT NULL,
        output BLOB,
        output_type TEXT
    );
    CREATE TABLE run_steps (
        seq INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
        step TEXT NOT NULL,
        status TEXT NOT NULL,
        total INTEGER NOT NULL,
        started REAL NOT NULL,
        ended REAL,
        error TEXT,
        detail TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (seq, step)
    ) WITHOUT ROWID;
    CREATE TABLE run_items (
        seq INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
        step TEXT NOT NULL,
        number INTEGER NOT NULL,
        body BLOB NOT NULL,
        type TEXT NOT NULL,
        PRIMARY KEY (seq, step, number)
    );
    CREATE INDEX IF NOT EXISTS invocations_owner ON invocations (owner, status) WHERE owner != '';
    """,
    """
    CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        definition TEXT NOT NULL,
        status TEXT NOT NULL,
        count INTEGER NOT NULL,
        parallel INTEGER NOT NULL,
        begun INTEGER NOT NULL DEFAULT 0,
        each BLOB,
        created REAL NOT NULL,
        ended REAL,
        depth INTEGER NOT NULL,
        context TEXT NOT NULL,
        counts TEXT
    );
    CREATE INDEX jobs_unfinished ON jobs (seq) WHERE ended IS NULL;
    CREATE INDEX jobs_ended ON jobs (ended) WHERE ended IS NOT NULL;
    CREATE TABLE job_inputs (
        job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
        number INTEGER NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (job, number)
    ) WITHOUT ROWID;
    CREATE TABLE job_again (
        job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
        part TEXT NOT NULL,
        PRIMARY KEY (job, part)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE invocations ADD COLUMN phases TEXT NOT NULL DEFAULT '';
    """,
    """
    CREATE TABLE triggers (
        name TEXT PRIMARY KEY,
        definition TEXT,
        paused INTEGER NOT NULL DEFAULT 0,
        timetable TEXT NOT NULL DEFAULT '',
        considered REAL NOT NULL DEFAULT 0,
        waiting TEXT NOT NULL DEFAULT '[]',
        latest TEXT NOT NULL DEFAULT ''
    );
    CREATE TABLE fires (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        trigger_name TEXT NOT NULL,
        at REAL NOT NULL,
        cause TEXT NOT NULL,
        outcome TEXT NOT NULL,
        kind TEXT NOT NULL,
        target TEXT NOT NULL,
        id TEXT NOT NULL,
        detail TEXT NOT NULL,
        scheduled REAL
    );
    CREATE INDEX fires_trigger ON fires (trigger_name, seq);
    """,
    """
    CREATE TABLE callbacks (
        seq INTEGER PRIMARY KEY REFERENCES invocations ON DELETE CASCADE,
        message TEXT NOT NULL UNIQUE,
        url TEXT NOT NULL,
        host TEXT NOT NULL,
        body BLOB NOT NULL,
        status TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        due REAL NOT NULL,
        fault TEXT
    );
    CREATE INDEX callbacks_due ON callbacks (host, due) WHERE status = 'pending';
    """,
    """
    CREATE TABLE start_keys (
        caller TEXT NOT NULL,
        scope TEXT NOT NULL,
        key TEXT NOT NULL,
        digest BLOB NOT NULL,
        id TEXT NOT NULL,
        expires REAL NOT NULL,
        PRIMARY KEY (caller, scope, key)
    ) WITHOUT ROWID;
    CREATE INDEX start_keys_expires ON start_keys (expires);
    """,
    """
    -- No table changes. Heads of requests are kept as lines from here on, which an earlier program cannot read;
    -- those that lie here are JSON, and are read as such.
    """,
    """
    -- Every list has an index in its order. Those of calls hold what few calls ever are: a call that succeeds at
    -- once is written into none of them.
    CREATE INDEX invocations_rare ON invocations (status, seq)
        WHERE status IN ('held', 'failed', 'timed_out', 'cancelled', 'expired', 'dead');
    CREATE INDEX invocations_rare_function ON invocations (function, status, seq)
        WHERE status IN ('held', 'failed', 'timed_out', 'cancelled', 'expired', 'dead');
    DROP INDEX invocations_dead;
    CREATE INDEX invocations_forgettable ON invocations (ended) WHERE ended IS NOT NULL AND owner = '';
    DROP INDEX invocations_ended;
    CREATE INDEX runs_status ON runs (status, seq);
    CREATE INDEX runs_workflow_status ON runs (workflow, status, seq);
    CREATE INDEX jobs_status ON jobs (status, seq);
    """,
)
"""Each brings a file from the version that is its index to the next. They are only ever added to.

Requests and results lie beside the small rows that change: a change of status does not write a body again.
"""


def version_of(connection: sqlite3.Connection) -> int:
    """Return the version of a file's tables; 0 if it has none."""
    version: int
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return version


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a file to today's version, each step whole or not at all.

    Raises `StoreError` for one of a newer program.
    """
    version = version_of(connection)
    if version > len(MIGRATIONS):
        raise StoreError(
            f"the store of accepted calls is of version {version}, and this program knows {len(MIGRATIONS)}; "
            "use the newer program, or another data folder"
        )
    for number in range(version, len(MIGRATIONS)):
        connection.executescript(
            f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;"
        )
