"""How accepted calls and their ends lie in the store: heads of requests, and many ends in few statements."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.calls.model import Ending, Phases, Result, Status
from scheduler.store.sqlite.calls import SqliteCallStore
from scheduler.store.sqlite.rows.batch_rows import SIZES, filled_sizes
from scheduler.store.sqlite.rows.call_rows import read_head, request_head
from scheduler.store.sqlite.writer import Writer
from scheduler.work import NewCall, Request
from tests.support.lease_owners import ME

PART = st.binary(max_size=20).map(lambda part: part.replace(b"\n", b""))
REQUESTS = st.builds(
    Request,
    method=st.sampled_from(["POST", "GET", "DELETE"]),
    sub_path=PART,
    query=PART,
    headers=st.lists(st.tuples(PART, PART), max_size=6),
    client=st.sampled_from(["", "127.0.0.1", "::1"]),
)
ANSWER = Result(
    200, [(b"content-type", b"text/plain")], b"\0hello", log=b"said", phases=Phases("warm", 0.5, 0, 2)
)
PROBLEM = Result(504, [], b"{}", "timeout", "too long \ud800", "function")


@given(REQUESTS)
def test_a_head_is_read_as_it_was_written(request: Request) -> None:
    assert read_head(bytes(request_head(request))) == request


@given(st.integers(0, 3), st.sampled_from([b"\n", b"a\nb", b"x\r\n"]))
def test_a_head_whose_parts_would_not_be_told_apart_is_not_kept(where: int, part: bytes) -> None:
    parts = [b"a", b"b", b"c", b"d"]
    parts[where] = part
    with pytest.raises(ValueError, match="holds a line feed"):
        request_head(Request("POST", parts[0], parts[1], [(parts[2], parts[3])]))


@given(st.integers(0, 5000))
def test_few_statements_take_all_rows_and_hardly_more(rows: int) -> None:
    sizes = filled_sizes(rows)
    assert set(sizes) <= set(SIZES)
    assert rows <= sum(sizes) <= 1.5 * rows
    assert len(sizes) <= 2 + rows // SIZES[0]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteCallStore]:
    made = SqliteCallStore(Writer(tmp_path / "calls.db"), 2**30)
    yield made
    await made.close()


async def leased(store: SqliteCallStore, count: int) -> list[str]:
    ids = [f"{number:032x}" for number in range(count)]
    for id in ids:
        await store.accept(NewCall(id, "f", Request(headers=[(b"x", id.encode())]), b"{}"), 0.0)
    claims = await store.claim(ME, {"f": count}, 1.0)
    assert [claim.call.request.headers for claim in claims] == [[(b"x", id.encode())] for id in ids]
    return ids


@pytest.mark.parametrize("count", [1, 3, 100])
async def test_ends_of_all_kinds_in_one_commit(store: SqliteCallStore, count: int) -> None:
    ids = await leased(store, 3 * count)
    well, badly, again = ids[::3], ids[1::3], ids[2::3]
    endings = [
        *(Ending(id, Status.SUCCEEDED, 0, ANSWER) for id in well),
        *(
            Ending(id, Status.DEAD, 1, PROBLEM, error="timeout", detail="why", blame="function")
            for id in badly
        ),
        *(
            Ending(id, Status.QUEUED, 1, None, due=9.0, error="crash", detail="gone", blame="function")
            for id in again
        ),
    ]
    assert await store.finish(ME, endings, 5.0) == [True] * len(ids)
    for id in well:
        record = await store.show(id)
        assert record is not None and (record.status, record.ended, record.phases) == (
            "succeeded",
            5.0,
            ANSWER.phases,
        )
        assert await store.result(id) == ANSWER._replace(phases=None)
    for id in badly:
        record, result = await store.show(id), await store.result(id)
        assert record is not None and (record.status, record.ended) == ("dead", 5.0)
        assert (record.error, record.detail, record.blame) == ("timeout", "why", "function")
        assert result is not None and (result.problem, result.detail) == ("timeout", "too long \\ud800")
    for id in again:
        record = await store.show(id)
        assert record is not None and (record.status, record.ended, record.due) == ("queued", None, 9.0)
        assert record.error == "crash" and await store.result(id) is None


async def test_a_success_clears_what_an_earlier_run_has_failed_of(store: SqliteCallStore) -> None:
    [id] = await leased(store, 1)
    await store.finish(ME, [Ending(id, Status.QUEUED, 1, PROBLEM, 2.0, "timeout", "why", "function")], 2.0)
    await store.claim(ME, {"f": 1}, 3.0)
    await store.finish(ME, [Ending(id, Status.SUCCEEDED, 1, ANSWER)], 4.0)
    record = await store.show(id)
    assert record is not None and (record.error, record.detail, record.blame) == (None, "", "none")
    assert await store.result(id) == ANSWER._replace(phases=None)


async def test_what_is_not_leased_is_not_recorded_and_the_others_are(store: SqliteCallStore) -> None:
    ids = await leased(store, 3)
    await store.hand_back(ME, [ids[1]])
    endings = [Ending(id, Status.SUCCEEDED, 0, ANSWER) for id in [*ids, "0" * 31 + "9"]]
    assert await store.finish(ME, endings, 5.0) == [True, False, True, False]
    assert await store.result(ids[1]) is None
    record = await store.show(ids[1])
    assert record is not None and record.status is Status.QUEUED


async def test_heads_of_an_earlier_version_are_read(store: SqliteCallStore, tmp_path: Path) -> None:
    await store.accept(NewCall("0" * 32, "f", Request(), b"{}"), 0.0)
    with sqlite3.connect(tmp_path / "calls.db") as db:
        head = json.dumps(["PUT", "a/b", "c=d", "127.0.0.1", [["x", "\xff"]]])
        db.execute("UPDATE requests SET head = ?", (head,))
    db.close()
    [claim] = await store.claim(ME, {"f": 1}, 1.0)
    assert claim.call.request == Request("PUT", b"a/b", b"c=d", [(b"x", b"\xff")], "127.0.0.1")
