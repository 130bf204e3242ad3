"""A store whose file is deleted, moved, replaced or emptied: nothing is accepted that is not kept."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pool.data_folder import DataFolder
from scheduler.calls.model import Query
from scheduler.calls.store import StoreError
from scheduler.store.sqlite.calls import SqliteCallStore
from scheduler.store.sqlite.writer import Writer
from scheduler.work import NewCall, Request


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def store(folder: Path) -> AsyncIterator[SqliteCallStore]:
    data = DataFolder(folder)
    made = store_in(folder, data)
    yield made
    await made.close()
    data.close()


def store_in(folder: Path, data: DataFolder | None = None) -> SqliteCallStore:
    return store_of(Writer(folder / "calls.db", data.fault if data else None))


def store_of(writer: Writer) -> SqliteCallStore:
    return SqliteCallStore(writer, 2**30)


def call(number: int) -> NewCall:
    return NewCall(f"{number:032x}", "f", Request(), b"{}")


def swap_folder(folder: Path) -> None:
    folder.rename(folder.with_name("away"))
    DataFolder(folder).close()


def swap_file(folder: Path) -> None:
    copy = folder / "copy"
    shutil.copy(folder / "calls.db", copy)
    copy.replace(folder / "calls.db")


@pytest.mark.parametrize(
    ("lose", "told"),
    [
        (shutil.rmtree, "the data folder, or the lock in it, was deleted or moved"),
        (lambda folder: folder.rename(folder.with_name("away")), "was deleted or moved"),
        (swap_folder, "the data folder was replaced"),
        (lambda folder: (folder / "lock").unlink(), "the lock in it, was deleted or moved"),
        (lambda folder: (folder / "calls.db").unlink(), "calls.db in the data folder was deleted or moved"),
        (lambda folder: (folder / "calls.db-wal").unlink(), "calls.db-wal in the data folder was deleted"),
        (swap_file, "calls.db in the data folder was replaced"),
        (lambda folder: os.truncate(folder / "calls.db", 0), "calls.db in the data folder was emptied"),
    ],
)
async def test_nothing_is_accepted_when_the_file_is_gone(
    store: SqliteCallStore,
    folder: Path,
    lose: Callable[[Path], object],
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await store.accept(call(1), 0.0)
    assert await store.show(call(1).id) is not None
    assert store.fault is None
    lose(folder)
    with caplog.at_level(logging.ERROR):
        for number in (2, 3):
            with pytest.raises(StoreError, match=told):
                await store.accept(call(number), 0.0)
    with pytest.raises(StoreError, match=told):
        await store.page(Query())
    assert store.fault is not None
    assert told in store.fault
    assert "restart the gateway" in store.fault
    assert store.exists, "who asks is told, and does not find an empty list"
    assert len(caplog.records) == 1, "it is logged once"


async def test_a_commit_to_a_file_that_was_deleted_meanwhile_is_not_acknowledged(folder: Path) -> None:
    folder.mkdir()
    writer = Writer(folder / "calls.db")
    store = store_of(writer)
    await store.accept(call(1), 0.0)
    with pytest.raises(StoreError, match=r"calls\.db in the data folder was deleted"):
        await writer.do(lambda db: (folder / "calls.db").unlink())
    await store.close()


async def test_a_store_that_is_moved_back_goes_on(
    store: SqliteCallStore, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await store.accept(call(1), 0.0)
    away = folder.rename(folder.with_name("away"))
    with pytest.raises(StoreError, match="move it back"):
        await store.accept(call(2), 0.0)
    away.rename(folder)
    await store.accept(call(3), 0.0)
    assert [record.id for record in (await store.page(Query())).records] == [call(3).id, call(1).id]
    assert store.fault is None
    assert "is back" in caplog.text


@pytest.mark.parametrize(
    "lose",
    [lambda file: file.unlink(), lambda file: file.write_bytes(b"")],
    ids=["missing", "empty"],
)
async def test_a_store_is_not_begun_anew_where_there_was_one(
    folder: Path, lose: Callable[[Path], object]
) -> None:
    folder.mkdir()
    file = folder / "calls.db"
    store = store_in(folder)
    await store.accept(call(1), 0.0)
    await store.close()
    shutil.copy(file, folder / "copy")
    lose(file)

    store = store_in(folder)
    assert store.exists
    for verb in (store.accept(call(2), 0.0), store.show(call(1).id)):
        with pytest.raises(StoreError, match=r"missing or empty.*put it back, or remove calls\.made"):
            await verb
    assert not file.exists() or file.stat().st_size == 0, "nothing was written"
    shutil.copy(folder / "copy", file)
    assert await store.show(call(1).id) is not None, "no restart is needed"
    await store.close()

    lose(file)
    (folder / "calls.made").unlink()
    store = store_in(folder)
    await store.accept(call(2), 0.0)
    assert await store.show(call(1).id) is None
    await store.close()


async def test_a_store_without_tables_where_there_were_some_is_left_as_it_is(folder: Path) -> None:
    folder.mkdir()
    file = folder / "calls.db"
    store = store_in(folder)
    await store.accept(call(1), 0.0)
    await store.close()
    file.write_bytes(b"")
    writer = Writer(folder / ".." / "calls.db")
    other = store_of(writer)
    await other.accept(call(1), 0.0)
    await writer.do(lambda db: db.execute("PRAGMA user_version = 0"))
    await other.close()
    shutil.copy(folder.parent / "calls.db", file)
    before = file.read_bytes()
    store = store_in(folder)
    with pytest.raises(StoreError, match=r"calls\.db in the data folder has no tables, and had some"):
        await store.accept(call(2), 0.0)
    await store.close()
    assert file.read_bytes() == before


async def test_a_folder_of_an_earlier_version_is_marked_when_it_is_opened(folder: Path) -> None:
    folder.mkdir()
    store = store_in(folder)
    await store.accept(call(1), 0.0)
    await store.close()
    (folder / "calls.made").unlink()
    store = store_in(folder)
    assert await store.show(call(1).id) is not None
    await store.close()
    assert (folder / "calls.made").read_text().startswith("This data folder has a store")


async def test_a_full_disk_is_told_and_what_was_kept_stays(folder: Path) -> None:
    folder.mkdir()
    writer = Writer(folder / "calls.db")
    store = store_of(writer)
    await store.accept(call(1), 0.0)
    await writer.do(lambda db: db.execute("PRAGMA max_page_count = 1"))
    with pytest.raises(StoreError, match="database or disk is full"):
        await store.accept(call(2)._replace(body=b"x" * 2**20), 0.0)
    await writer.do(lambda db: db.execute("PRAGMA max_page_count = 1000000"))
    await store.accept(call(3), 0.0)
    assert [record.id for record in (await store.page(Query())).records] == [call(3).id, call(1).id]
    await store.close()
