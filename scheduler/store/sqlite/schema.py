"""The tables of a store, and the migrations from each earlier version."""

from __future__ import annotations

import sqlite3

from scheduler.calls.store import StoreError

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
    """
    -- Who each call, run and job counts to, and with how many bytes. Triggers keep the sums, but for what is done to
    -- many calls at once: `batch_rows` adds what is accepted and takes away what has ended, in one statement each.
    -- A call of nobody's counts while it has not ended, or its callback is pending. One with an owner counts to its
    -- run or job, from its first row to its last; and that to its caller, until it has ended.
    CREATE TABLE callers (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        bytes INTEGER NOT NULL DEFAULT 0
    );
    INSERT INTO callers (id, name) VALUES (1, '');
    ALTER TABLE invocations ADD COLUMN caller INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE invocations ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE invocations ADD COLUMN brought INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE invocations ADD COLUMN untold INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE runs ADD COLUMN caller INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE runs ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN caller INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE jobs ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE requests ADD COLUMN payload INTEGER;
    ALTER TABLE results ADD COLUMN payload INTEGER;
    CREATE TABLE payloads (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        caller INTEGER NOT NULL,
        expected INTEGER NOT NULL,
        bytes INTEGER NOT NULL DEFAULT 0,
        state TEXT NOT NULL DEFAULT 'filling'
    );
    CREATE INDEX payloads_filling ON payloads (id) WHERE state = 'filling';
    CREATE INDEX payloads_gone ON payloads (id) WHERE state = 'gone';
    CREATE TABLE pieces (
        payload INTEGER NOT NULL,
        number INTEGER NOT NULL,
        data BLOB NOT NULL,
        PRIMARY KEY (payload, number)
    );
    UPDATE invocations SET untold = 1 WHERE seq IN (SELECT seq FROM callbacks WHERE status = 'pending');
    UPDATE invocations SET bytes = 1024 + coalesce((SELECT length(CAST(head AS BLOB)) + length(body) + length(terms)
            FROM requests WHERE requests.seq = invocations.seq), 0),
        brought = coalesce((SELECT length(headers) + length(body) + length(log)
            FROM results WHERE results.seq = invocations.seq), 0)
        WHERE owner = '' AND (ended IS NULL OR untold)
        OR owner != '' AND (CASE WHEN owner GLOB 'run:*' THEN substr(owner, 1, instr(owner, '/') - 1) ELSE owner END)
        IN (SELECT 'run:' || id FROM runs WHERE ended IS NULL
            UNION ALL SELECT 'job:' || id FROM jobs WHERE ended IS NULL);
    UPDATE runs SET bytes = 1024 + coalesce((SELECT length(definition) + length(input) FROM run_data
            WHERE run_data.seq = runs.seq), 0)
        + coalesce((SELECT sum(length(body) + 64) FROM run_items WHERE run_items.seq = runs.seq), 0)
        + coalesce((SELECT sum(bytes + brought) FROM invocations
            WHERE owner > 'run:' || runs.id || '/' AND owner < 'run:' || runs.id || '0' AND owner != ''), 0)
        WHERE ended IS NULL;
    UPDATE jobs SET bytes = 1024 + length(definition) + coalesce(length(each), 0)
        + coalesce((SELECT sum(length(body) + 32) FROM job_inputs WHERE job = jobs.seq), 0)
        + coalesce((SELECT sum(bytes + brought) FROM invocations WHERE owner = 'job:' || jobs.id AND owner != ''), 0)
        WHERE ended IS NULL;
    UPDATE callers SET bytes =
        coalesce((SELECT sum(bytes + brought) FROM invocations WHERE owner = '' AND (ended IS NULL OR untold)), 0)
        + coalesce((SELECT sum(bytes) FROM runs WHERE ended IS NULL), 0)
        + coalesce((SELECT sum(bytes) FROM jobs WHERE ended IS NULL), 0);

    CREATE TRIGGER call_changed AFTER UPDATE OF brought, untold, since ON invocations WHEN NEW.owner = '' BEGIN
        UPDATE callers SET bytes = bytes
            + (NEW.bytes + NEW.brought) * (NEW.ended IS NULL OR NEW.untold)
            - (OLD.bytes + OLD.brought) * (OLD.ended IS NULL OR OLD.untold) WHERE id = NEW.caller;
    END;
    CREATE TRIGGER call_forgotten AFTER DELETE ON invocations
    WHEN OLD.owner = '' AND (OLD.ended IS NULL OR OLD.untold) BEGIN
        UPDATE callers SET bytes = bytes - OLD.bytes - OLD.brought WHERE id = OLD.caller;
    END;
    CREATE TRIGGER part_changed AFTER UPDATE OF brought ON invocations WHEN NEW.owner != '' BEGIN
        UPDATE runs SET bytes = bytes + NEW.brought - OLD.brought
            WHERE NEW.owner GLOB 'run:*' AND id = substr(NEW.owner, 5, instr(NEW.owner, '/') - 5);
        UPDATE jobs SET bytes = bytes + NEW.brought - OLD.brought
            WHERE NEW.owner GLOB 'job:*' AND id = substr(NEW.owner, 5);
    END;
    CREATE TRIGGER part_forgotten AFTER DELETE ON invocations WHEN OLD.owner != '' BEGIN
        UPDATE runs SET bytes = bytes - OLD.bytes - OLD.brought
            WHERE OLD.owner GLOB 'run:*' AND id = substr(OLD.owner, 5, instr(OLD.owner, '/') - 5);
        UPDATE jobs SET bytes = bytes - OLD.bytes - OLD.brought
            WHERE OLD.owner GLOB 'job:*' AND id = substr(OLD.owner, 5);
    END;
    CREATE TRIGGER run_kept AFTER INSERT ON runs BEGIN
        UPDATE callers SET bytes = bytes + NEW.bytes WHERE id = NEW.caller;
    END;
    CREATE TRIGGER run_changed AFTER UPDATE OF ended, bytes ON runs BEGIN
        UPDATE callers SET bytes = bytes + NEW.bytes * (NEW.ended IS NULL) - OLD.bytes * (OLD.ended IS NULL)
            WHERE id = NEW.caller;
    END;
    CREATE TRIGGER run_forgotten AFTER DELETE ON runs WHEN OLD.ended IS NULL BEGIN
        UPDATE callers SET bytes = bytes - OLD.bytes WHERE id = OLD.caller;
    END;
    CREATE TRIGGER run_answered AFTER UPDATE OF output ON run_data BEGIN
        UPDATE runs SET bytes = bytes + coalesce(length(NEW.output), 0) - coalesce(length(OLD.output), 0)
            WHERE seq = NEW.seq;
    END;
    CREATE TRIGGER item_kept AFTER INSERT ON run_items BEGIN
        UPDATE runs SET bytes = bytes + length(NEW.body) + 64 WHERE seq = NEW.seq;
    END;
    CREATE TRIGGER item_begun AFTER DELETE ON run_items BEGIN
        UPDATE runs SET bytes = bytes - length(OLD.body) - 64 WHERE seq = OLD.seq;
    END;
    CREATE TRIGGER job_kept AFTER INSERT ON jobs BEGIN
        UPDATE callers SET bytes = bytes + NEW.bytes WHERE id = NEW.caller;
    END;
    CREATE TRIGGER job_changed AFTER UPDATE OF ended, bytes ON jobs BEGIN
        UPDATE callers SET bytes = bytes + NEW.bytes * (NEW.ended IS NULL) - OLD.bytes * (OLD.ended IS NULL)
            WHERE id = NEW.caller;
    END;
    CREATE TRIGGER job_forgotten AFTER DELETE ON jobs WHEN OLD.ended IS NULL BEGIN
        UPDATE callers SET bytes = bytes - OLD.bytes WHERE id = OLD.caller;
    END;
    CREATE TRIGGER callback_kept AFTER INSERT ON callbacks BEGIN
        UPDATE invocations SET untold = NEW.status = 'pending' WHERE seq = NEW.seq;
    END;
    CREATE TRIGGER callback_changed AFTER UPDATE OF status ON callbacks BEGIN
        UPDATE invocations SET untold = NEW.status = 'pending' WHERE seq = NEW.seq;
    END;
    CREATE TRIGGER request_forgotten AFTER DELETE ON requests WHEN OLD.payload IS NOT NULL BEGIN
        UPDATE payloads SET state = 'gone' WHERE id = OLD.payload;
    END;
    CREATE TRIGGER result_forgotten AFTER DELETE ON results WHEN OLD.payload IS NOT NULL BEGIN
        UPDATE payloads SET state = 'gone' WHERE id = OLD.payload;
    END;
    CREATE TRIGGER payload_begun AFTER INSERT ON payloads BEGIN
        UPDATE callers SET bytes = bytes + max(NEW.expected, NEW.bytes) WHERE id = NEW.caller;
    END;
    CREATE TRIGGER payload_changed AFTER UPDATE OF bytes, state ON payloads BEGIN
        UPDATE callers SET bytes = bytes + max(NEW.expected, NEW.bytes) * (NEW.state = 'filling')
            - max(OLD.expected, OLD.bytes) * (OLD.state = 'filling') WHERE id = NEW.caller;
    END;
    CREATE TRIGGER payload_forgotten AFTER DELETE ON payloads WHEN OLD.state = 'filling' BEGIN
        UPDATE callers SET bytes = bytes - max(OLD.expected, OLD.bytes) WHERE id = OLD.caller;
    END;
    """,
    """
    -- A lease names its owner: a node and one epoch of it. Owners that were silent for too long are marked as gone,
    -- and not forgotten at once: a process that was only slow must learn that its leases are lost. The time of a
    -- call's lease is `started`. What ran under an earlier version of the program has an empty owner.
    CREATE TABLE lease_owners (
        id TEXT PRIMARY KEY,
        node TEXT NOT NULL,
        seen REAL NOT NULL,
        gone INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    ALTER TABLE invocations ADD COLUMN lease_owner TEXT NOT NULL DEFAULT '';
    ALTER TABLE payloads ADD COLUMN lease_owner TEXT NOT NULL DEFAULT '';
    ALTER TABLE runs ADD COLUMN lease_owner TEXT NOT NULL DEFAULT '';
    ALTER TABLE runs ADD COLUMN leased REAL;
    ALTER TABLE jobs ADD COLUMN lease_owner TEXT NOT NULL DEFAULT '';
    ALTER TABLE jobs ADD COLUMN leased REAL;
    ALTER TABLE triggers ADD COLUMN lease_owner TEXT NOT NULL DEFAULT '';
    ALTER TABLE triggers ADD COLUMN leased REAL;
    ALTER TABLE callbacks ADD COLUMN lease_owner TEXT NOT NULL DEFAULT '';
    ALTER TABLE callbacks ADD COLUMN leased REAL;
    """,
)
"""Each migration brings a file from the version that is its index to the next. They are only added to.

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
