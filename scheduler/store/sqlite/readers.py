"""Threads that read an SQLite file beside its writer: a long list holds up nobody who accepts calls."""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from scheduler.calls.store import StoreBusy, StoreError
from scheduler.store.sqlite.store_file import StoreFile

log = logging.getLogger("hearth.durable")

STEPS_BETWEEN_LOOKS = 20_000
"""Steps of SQLite's machine between two looks at the clock: about a millisecond."""
T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
Refusal = Literal["busy", "slow"]
REFUSALS: tuple[Refusal, ...] = get_args(Refusal)


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Bounds of what readers do at once, and of how long one read may take."""

    threads: int = 2
    """One slow read leaves a thread for the others. More would only take the interpreter from the event loop."""
    waiting: int = 256
    """Reads that wait or run, at most. Further ones are refused."""
    wait_seconds: float = 5.0
    """A read that no thread has begun by then is refused."""
    run_seconds: float = 2.0
    """A read that takes longer is ended. It would also keep the write-ahead log from being cleared."""


class _Read(NamedTuple):
    """One read that was asked for, when, and who waits for it."""

    operation: Operation[Any]
    asked: float
    done: asyncio.Future[Any]


@dataclass(slots=True)
class _Connection:
    """A reader's connection, and the time at which what it does now is ended."""

    database: sqlite3.Connection
    until: float = field(default=0.0)

    def is_late(self) -> bool:
        """Return whether the read has used up its time."""
        return time.monotonic() > self.until


class Readers:
    """A few threads with a read-only connection each. A read sees all that was committed before it was asked for.

    The file must have today's tables. Threads and connections come with the first read.
    """

    def __init__(self, file: StoreFile, limits: ReadLimits | None = None) -> None:
        self._file = file
        self._limits = limits or ReadLimits()
        self._reads: queue.SimpleQueue[_Read | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._open = 0
        self._may_begin = threading.Event()
        self._may_begin.set()
        self.refusals: Counter[Refusal] = Counter()
        """Reads that were refused or ended: `busy`, none began in time; `slow`, it took too long."""

    @property
    def waiting(self) -> int:
        """Return how many reads wait or run."""
        return self._open

    async def do(self, operation: Operation[T]) -> T:
        """Return what an operation reads, all of it as of one moment.

        Raises `StoreBusy` for a read that was refused or ended, `StoreError`, and what the operation raises.
        """
        if self._open >= self._limits.waiting:
            self.refusals["busy"] += 1
            raise StoreBusy("too many reads of the store wait already; try again later")
        loop = asyncio.get_running_loop()
        if len(self._threads) < min(self._limits.threads, self._open + 1):
            name = f"hearth-reader-{len(self._threads)}"
            thread = threading.Thread(target=self._run, args=(loop,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._open += 1
        done: asyncio.Future[T] = loop.create_future()
        self._reads.put(_Read(operation, time.monotonic(), done))
        return await done

    def pause(self) -> None:
        """Begin no further read until `go_on`, or for as long as one may run. Any thread may call it."""
        self._may_begin.clear()

    def go_on(self) -> None:
        """Begin reads again. Any thread may call it."""
        self._may_begin.set()

    async def close(self) -> None:
        """Do what was asked for, then close the connections."""
        for _ in self._threads:
            self._reads.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._threads.clear()

    def _settle(self, done: asyncio.Future[Any], result: object, error: Exception | None) -> None:
        self._open -= 1
        if isinstance(error, StoreBusy):
            self.refusals["slow" if error.begun else "busy"] += 1
        if done.done():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    # -- in the threads -------------------------------------------------------------------------------------

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        connection: _Connection | None = None
        while (read := self._reads.get()) is not None:
            result: object = None
            fault: Exception | None = None
            if not self._may_begin.wait(self._limits.run_seconds):
                self._may_begin.set()  # nobody has written since: nothing is waited for
            try:
                if time.monotonic() > read.asked + self._limits.wait_seconds:
                    raise StoreBusy("the store is busy with other reads; try again later")
                if (gone := self._file.fault()) is not None:
                    raise StoreError(gone)
                connection = connection or _open(self._file.path)
                result = self._read(connection, read.operation)
            except Exception as error:
                fault = _told(error)
            loop.call_soon_threadsafe(self._settle, read.done, result, fault)
        if connection is not None:
            connection.database.close()

    def _read(self, connection: _Connection, operation: Operation[T]) -> T:
        connection.until = time.monotonic() + self._limits.run_seconds
        connection.database.execute("BEGIN")
        try:
            return operation(connection.database)
        except sqlite3.OperationalError as error:
            if connection.is_late():
                seconds = self._limits.run_seconds
                raise StoreBusy(f"this took longer than {seconds:g} s; ask for less", begun=True) from error
            raise
        finally:
            connection.until = time.monotonic() + self._limits.run_seconds  # the end is not to be interrupted
            connection.database.execute("ROLLBACK")


def _open(file: Path) -> _Connection:
    database = sqlite3.connect(
        f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )
    database.execute("PRAGMA query_only = ON")
    connection = _Connection(database)
    database.set_progress_handler(connection.is_late, STEPS_BETWEEN_LOOKS)
    return connection


def _told(error: Exception) -> Exception:
    if isinstance(error, sqlite3.Error | OSError):
        log.error("Cannot read the store of accepted calls: %s", error)
        return StoreError(f"the store of accepted calls cannot be read: {error}")
    return error
