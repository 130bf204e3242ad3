"""One thread that writes an SQLite file. Operations that are asked for during a commit share the next one.

So a thousand callers that wait for the disk share one fsync.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from scheduler.calls.store import StoreError
from scheduler.store.sqlite.readers import REFUSALS, Readers, ReadLimits
from scheduler.store.sqlite.schema import migrate, version_of
from scheduler.store.sqlite.store_file import StoreFile

log = logging.getLogger("hearth.durable")

LARGEST_BATCH = 512
"""Most operations in one transaction: the caller of the first waits for the last."""
LOOKS = ReadLimits(threads=1, waiting=1024)
"""Limits of reads of one thing by its id, which take microseconds. Lists do not delay them."""
LISTS = ReadLimits(threads=2, waiting=64)
"""Limits of reads of many rows, which take milliseconds."""
PIECES = ReadLimits(threads=1, waiting=100_000, wait_seconds=60.0)
"""Limits of reads of a large body or answer, piece by piece. Each of its readers waits for one piece at a time, so as
many wait as there are connections and running calls. None is refused that has begun, and lists do not delay them."""
COMMIT_GAP_SECONDS = 0.003
"""Shortest time between two commits. Operations that come meanwhile share the next one, and the event loop has the
interpreter to itself: commits of two or three operations, back to back, would take more of it than the calls."""
LOG_KEPT_BYTES = 8 * 2**20
"""Size of the write-ahead log's file when all of it is in the database."""
LARGEST_LOG_BYTES = 16 * 2**20
"""Size of the write-ahead log from which readers are paused, so that it can begin anew: a long read lets it grow."""
T = TypeVar("T")
U = TypeVar("U")
Operation = Callable[[sqlite3.Connection], T]
Joint = Callable[[sqlite3.Connection, Sequence[T]], Sequence[U]]
"""An operation on many things, with a result for each. It must do the same as if they came one by one."""
_Job = tuple[Joint[Any, Any], Any, "asyncio.Future[Any]"]
_Outcome = tuple["asyncio.Future[Any]", Any, Exception | None]


class Writer:
    """Runs operations on a database, each atomic, many in one transaction. Thread and file come with the first.

    An operation that fails is undone and raises for its caller alone; those beside it are not touched. Between the
    operations of one commit there is no order: who needs one waits for the first before asking for the second.
    """

    def __init__(self, path: Path, folder_fault: Callable[[], str | None] | None = None) -> None:
        """`folder_fault` tells what is wrong with the file's folder, or None if it is the one that was opened."""
        self.file = StoreFile(path, folder_fault)
        self._log = path.with_name(f"{path.name}-wal")
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._opened = False
        self._waiting = 0
        self._closed = False
        self.looks = Readers(self.file, LOOKS)
        self.lists = Readers(self.file, LISTS)
        self.pieces = Readers(self.file, PIECES)
        self.commits = 0
        """Transactions so far."""

    async def do(self, operation: Operation[T]) -> T:
        """Run one operation; it is on disk when this returns. Raises `StoreError`, and what the operation raises."""
        return await self.do_jointly(_each, operation)

    async def do_jointly(self, joint: Joint[T, U], thing: T) -> U:
        """`do` for an operation that costs less for many things at once: all that are asked for in one commit are
        given to it together."""
        if self._closed:
            raise StoreError("the store is closed")
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(loop,), name="hearth-store", daemon=True)
            self._thread.start()
        done: asyncio.Future[U] = loop.create_future()
        self._jobs.put((joint, thing, done))
        self._waiting += 1
        try:
            return await done  # whether its caller still waits or not, it is carried out
        finally:
            self._waiting -= 1

    async def read(self, operation: Operation[T]) -> T:
        """Return what one thing is, beside the commits. It sees all that was on disk when it was asked for.

        Raises `StoreError`, and what the operation raises.
        """
        return await self._read(self.looks, operation)

    async def read_many(self, operation: Operation[T]) -> T:
        """`read` for lists and sums of many rows."""
        return await self._read(self.lists, operation)

    async def read_piece(self, operation: Operation[T]) -> T:
        """`read` for the next piece of a large body or answer."""
        return await self._read(self.pieces, operation)

    async def _read(self, readers: Readers, operation: Operation[T]) -> T:
        if self._closed:
            raise StoreError("the store is closed")
        if not self._opened:  # the file may have an earlier version's tables
            await self.do(_nothing)
        return await readers.do(operation)

    @property
    def waiting(self) -> Mapping[str, int]:
        """Return how many wait for a commit, and for a read."""
        return {"commit": self._waiting, "read": sum(each.waiting for each in self._readers)}

    @property
    def refusals(self) -> Mapping[str, int]:
        """Return how many reads were refused so far, by reason."""
        return {reason: sum(each.refusals[reason] for each in self._readers) for reason in REFUSALS}

    @property
    def _readers(self) -> tuple[Readers, ...]:
        return self.looks, self.lists, self.pieces

    async def close(self) -> None:
        """Do what was asked for, then close the file."""
        self._closed = True
        for readers in self._readers:
            await readers.close()
        if self._thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    # -- in the thread --------------------------------------------------------------------------------------

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        connection: sqlite3.Connection | None = None
        last, ended = False, 0.0
        while not last:
            batch, last = self._batch(ended + COMMIT_GAP_SECONDS)
            outcomes: list[_Outcome]
            try:
                self.file.check()
                connection = connection or self._open()
                outcomes = self._together(connection, batch)
                self._bound_log(connection)
                self.file.check()  # else it was written to a file that nobody finds again
            except (sqlite3.Error, OSError, StoreError) as error:
                outcomes = [(done, None, _told(error)) for _, _, done in batch]
            if batch:
                loop.call_soon_threadsafe(_settle, outcomes)
            ended = time.monotonic()
        if connection is not None:
            connection.close()

    def _bound_log(self, connection: sqlite3.Connection) -> None:
        """Write the log into the database when it has grown large. Where a reader stands in the way it is tried again
        after the next commit, and no further read begins until then: one after another they would let it grow."""
        try:
            large = self._log.stat().st_size > LARGEST_LOG_BYTES
        except FileNotFoundError:
            return
        if large:
            connection.execute("PRAGMA busy_timeout = 100")
            (is_in_use, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            for readers in self._readers:
                if is_in_use:
                    readers.pause()
                else:
                    readers.go_on()

    def _open(self) -> sqlite3.Connection:
        connection = open_database(self.file.path, self.file.had_one)
        self.file.note_opened()
        self._opened = True
        return connection

    def _batch(self, not_before: float) -> tuple[list[_Job], bool]:
        """Return the waiting operations, at least one, and whether this is the last batch."""
        batch: list[_Job] = []
        job = self._jobs.get()
        if job is not None and (early := not_before - time.monotonic()) > 0:
            time.sleep(early)
        while job is not None:
            batch.append(job)
            if len(batch) == LARGEST_BATCH:
                break
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
        return batch, job is None

    def _together(self, connection: sqlite3.Connection, batch: list[_Job]) -> list[_Outcome]:
        """All in one transaction; where one of them fails, each in one of its own."""
        by_operation: dict[Joint[Any, Any], list[_Job]] = {}
        for job in batch:
            by_operation.setdefault(job[0], []).append(job)
        outcomes: list[_Outcome] = []
        try:
            with transaction(connection):
                for joint, jobs in by_operation.items():
                    results = joint(connection, [thing for _, thing, _ in jobs])
                    outcomes += [(job[2], result, None) for job, result in zip(jobs, results, strict=True)]
            self.commits += 1
            return outcomes
        except Exception as error:
            if len(batch) == 1:
                return [(batch[0][2], None, _told(error))]
        return [self._together(connection, [job])[0] for job in batch]


def _nothing(_: sqlite3.Connection) -> None:
    """Change nothing: the file is opened, and has today's tables."""


def _each(connection: sqlite3.Connection, operations: Sequence[Operation[T]]) -> list[T]:
    return [operation(connection) for operation in operations]


class transaction:  # noqa: N801 - reads as a verb: with transaction(connection)
    """Commits at the end of the block, or undoes all of it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self._connection.execute("COMMIT" if kind is None else "ROLLBACK")
        except sqlite3.Error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if kind is None:
                raise


def open_database(file: Path, had_one: bool = False) -> sqlite3.Connection:
    """A connection whose commits are on disk, with today's tables. Raises sqlite3.Error and `StoreError`.

    `had_one`: a file without tables is refused, for there were some.
    """
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    try:
        file.chmod(0o600)  # it holds what callers have sent
        if had_one and not version_of(connection):
            raise StoreError(
                f"{file.name} in the data folder has no tables, and had some; put a sound copy back"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -16384")
        # Some systems build SQLite so that it overwrites what is freed: then freeing writes as much log as keeping.
        connection.execute("PRAGMA secure_delete = FAST")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_KEPT_BYTES}")
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _told(error: Exception) -> Exception:
    if isinstance(error, sqlite3.Error | OSError):
        log.error("Cannot write to the store of accepted calls: %s", error)
        return StoreError(f"the store of accepted calls has failed: {error}")
    return error


def _settle(outcomes: list[_Outcome]) -> None:
    for done, result, error in outcomes:
        if done.done():
            continue
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)
            done.exception()  # its caller may have gone
