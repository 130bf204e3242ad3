"""The write-ahead log of a store stays small, whoever reads beside it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scheduler.store.sqlite import writer as writers
from scheduler.store.sqlite.readers import Readers, ReadLimits
from scheduler.store.sqlite.store_file import StoreFile
from scheduler.store.sqlite.writer import Writer

MIB = 2**20
COMMIT = 200 * 1024
READ_SECONDS = 0.15
"""Longer than a commit waits for the log."""


@pytest.fixture
async def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Writer]:
    monkeypatch.setattr(writers, "LARGEST_LOG_BYTES", MIB)
    made = Writer(tmp_path / "calls.db")
    await made.do(lambda db: db.execute("CREATE TABLE things (body BLOB)"))
    yield made
    await made.close()


def write(db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO things VALUES (?)", (os.urandom(COMMIT),))


def read_slowly(db: sqlite3.Connection) -> int:
    (count,) = db.execute("SELECT count(*) FROM things").fetchone()
    time.sleep(READ_SECONDS)  # all of it in one transaction
    return int(count)


async def test_reads_one_after_another_do_not_let_the_log_grow(writer: Writer) -> None:
    """There is always one that uses it: no moment would come to begin it anew."""
    log = writer.file.path.with_name("calls.db-wal")
    stopped, counts = False, list[int]()

    async def keep_reading() -> None:
        while not stopped:
            counts.append(await writer.read_many(read_slowly))

    reading = [asyncio.ensure_future(keep_reading()) for _ in range(6)]
    largest = 0
    for _ in range(40):
        await writer.do(write)
        largest = max(largest, log.stat().st_size)
    stopped = True
    await asyncio.gather(*reading)
    assert largest < 4 * MIB
    assert len(counts) > len(reading), "reads go on between"
    assert await writer.read_many(read_slowly) == 40


async def test_a_pause_that_nobody_ends_ends_by_itself(tmp_path: Path) -> None:
    """The next commit would end it, and there may be none for hours."""
    file = tmp_path / "calls.db"
    sqlite3.connect(file).close()
    readers = Readers(StoreFile(file), ReadLimits(run_seconds=0.05))
    readers.pause()
    assert await asyncio.wait_for(readers.do(lambda db: 7), 10) == 7
    await readers.close()
