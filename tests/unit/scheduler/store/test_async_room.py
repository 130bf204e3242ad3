"""Who may keep how much in the store: the decisions, and that what is counted is what is there."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.calls.callback_store import CallbackAttempt
from scheduler.calls.callbacks import CallbackStatus
from scheduler.calls.model import Claim, Ending, Idempotency, Query, Result, Status
from scheduler.calls.shares import RESERVE_DIVISOR, describe_caller, may_hold, share_fault, usable_bytes
from scheduler.calls.store import StoreError, StoreFull
from scheduler.store.sqlite.callbacks import SqliteCallbackStore
from scheduler.store.sqlite.calls import SqliteCallStore
from scheduler.store.sqlite.leases import SqliteLeaseStore
from scheduler.store.sqlite.rows import piece_rows
from scheduler.store.sqlite.triggers import SqliteTriggerStore
from scheduler.store.sqlite.writer import Writer
from scheduler.work import Fire, NewCall, NewCallback, Outcome, Payload, Request
from tests.support.lease_owners import ME, MY_NEXT_EPOCH
from tests.support.store_recount import counted, recounted

MIB = 2**20
SIZE = 8 * MIB
BODY = b"x" * 200_000
SOME = st.integers(1, MIB)


@given(st.lists(st.tuples(st.integers(0, 5), SOME), max_size=200), SOME)
def test_whoever_fills_its_share_there_is_room_for_who_comes_next(
    wishes: list[tuple[int, int]], small: int
) -> None:
    held = dict.fromkeys(range(7), 0)
    for caller, wanted in wishes:
        if may_hold(SIZE, held[caller], sum(held.values()), wanted):
            held[caller] += wanted
    left = SIZE - sum(held.values())
    assert left >= SIZE // 7, "six who take all they can leave a seventh"
    assert may_hold(SIZE, 0, sum(held.values()), min(small, left // 2))


@given(SOME)
def test_one_alone_may_hold_half_and_no_more(wanted: int) -> None:
    held = 0
    while may_hold(SIZE, held, held, wanted):
        held += wanted
    assert SIZE // 2 - wanted < held <= SIZE // 2


def test_direct_accepts_leave_a_reserve_to_what_starts_by_itself() -> None:
    assert usable_bytes(SIZE, direct=True) == SIZE - SIZE // RESERVE_DIVISOR
    assert usable_bytes(SIZE, direct=False) == SIZE


@pytest.mark.parametrize(
    ("caller", "name"),
    [
        ("", "all callers without a key"),
        ("k1", "the key k1"),
        ("k1/runs", "the key k1, for runs"),
        ("/events", "all callers without a key, for events"),
        ("trigger:nightly", "the trigger nightly"),
    ],
)
def test_who_is_refused_learns_whose_share_it_is_and_what_to_do(caller: str, name: str) -> None:
    assert describe_caller(caller) == name
    told = share_fault(caller, SIZE, 5, 7)
    assert f"no more of {name}: its unfinished work has 5 bytes" in told
    assert f"{SIZE - 7} bytes are left" in told and "HEARTH_ASYNC_SIZE" in told


class FullStore:
    """A store, and what is asked of it here."""

    def __init__(self, file: Path, size: int = SIZE) -> None:
        self.writer = Writer(file)
        self.store = SqliteCallStore(self.writer, size)
        self.triggers = SqliteTriggerStore(self.writer, self.store.room)
        self.number = 0

    def call(self, caller: str = "", body: bytes = BODY) -> NewCall:
        self.number += 1
        return NewCall(f"{self.number:032x}", "f", Request(), body, caller=caller)

    async def fill(self, caller: str, body: bytes = BODY) -> StoreFull:
        """Accept calls of a caller until they are refused."""
        while True:
            try:
                await self.store.accept(self.call(caller, body), 0.0)
            except StoreFull as full:
                return full

    async def lease(self) -> list[Claim]:
        return await self.store.claim(ME, {"f": 1000}, 1e9)

    async def in_file(self) -> tuple[int, int]:
        """What is counted for all callers, and what a recount comes to."""

        def both(db: sqlite3.Connection) -> tuple[int, int]:
            return counted(db), recounted(db)

        return await self.writer.do(both)


@pytest.fixture
async def full(tmp_path: Path) -> AsyncIterator[FullStore]:
    world = FullStore(tmp_path / "calls.db")
    yield world
    await world.store.close()


async def test_one_key_that_fills_its_share_stops_no_other_and_no_event(full: FullStore) -> None:
    refused = await full.fill("greedy")
    assert "no more of the key greedy" in str(refused)
    kept = await full.store.usage()
    assert SIZE // 2 - 2 * len(BODY) < kept.largest <= SIZE // 2
    await full.store.accept(full.call("other"), 0.0)
    await full.store.accept(full.call("other"), 0.0, Idempotency("other", "k", b"1", 60.0))
    assert "no more of the key other" in str(await full.fill("other"))
    await full.store.begin([full.call()], 0.0, "source:orders")
    started = Fire("nightly", "schedule", Outcome.STARTED, "function", "f", "1", work=full.call())
    assert await full.triggers.fire([started], 0.0) == [Outcome.STARTED]


async def test_events_of_a_key_take_its_share_for_events_and_no_trigger_s(full: FullStore) -> None:
    async def fire(sender: str | None) -> list[Outcome]:
        work = full.call()
        return await full.triggers.fire(
            [Fire("t", "event", Outcome.STARTED, "function", "f", work.id, work=work, sender=sender)], 0.0
        )

    with pytest.raises(StoreFull, match="the key greedy, for events"):
        for _ in range(100):
            await fire("greedy")
    assert await fire("other") == await fire(None) == [Outcome.STARTED]


async def test_the_reserve_is_left_however_many_keys_fill_their_shares(full: FullStore) -> None:
    for number in range(30):
        await full.fill(f"key{number}", b"x" * 50_000)
    kept = await full.store.usage()
    assert kept.used <= SIZE - SIZE // RESERVE_DIVISOR + 100_000
    await full.store.begin([full.call(body=b"x" * 10_000)], 0.0, "trigger:nightly")


async def test_room_returns_when_calls_have_ended(full: FullStore) -> None:
    await full.fill("a")
    for claim in await full.lease():
        await full.store.finish(ME, [Ending(claim.call.id, Status.SUCCEEDED, 0, Result(200, [], b"ok"))], 1.0)
    assert (await full.store.usage()).unfinished == 0
    before = len((await full.store.page(Query(limit=1000))).records)
    await full.fill("a")
    assert before > 10
    assert (await full.store.usage()).used <= SIZE


async def test_a_result_that_does_not_fit_is_refused_and_nothing_grows_beyond_the_size(
    full: FullStore,
) -> None:
    await full.fill("a")
    claims = await full.lease()
    answer = Result(200, [], b"y" * (5 * MIB))
    with pytest.raises(StoreFull, match="of its 8388608 bytes"):
        await full.store.finish(ME, [Ending(claims[0].call.id, Status.SUCCEEDED, 0, answer)], 1.0)
    assert await full.store.finish(
        ME, [Ending(claims[0].call.id, Status.FAILED, 0, error="not-kept")], 1.0
    ) == [True]
    assert (await full.store.usage()).used <= SIZE


async def test_what_a_run_or_job_keeps_counts_until_that_has_ended(full: FullStore) -> None:
    """A key's tasks that have ended are as many bytes that cannot be forgotten."""
    await full.writer.do(
        lambda db: db.execute(
            "INSERT INTO jobs (id, name, definition, status, count, parallel, created, depth, context, bytes)"
            " VALUES ('j', '', '{}', 'running', 40, 9, 0, 0, '[]', 1000)"
        )
    )
    parts = [full.call()._replace(owner="job:j", part=f"{n:07d}") for n in range(10)]
    await full.store.begin(parts, 0.0)
    for claim in await full.lease():
        done = Ending(claim.call.id, Status.SUCCEEDED, 0, Result(200, [], BODY))
        await full.store.finish(ME, [done], 1.0)
    kept = await full.store.usage()
    assert 20 * len(BODY) < kept.unfinished < 20 * len(BODY) + 20_000
    await full.writer.do(lambda db: db.execute("UPDATE jobs SET ended = 5"))
    assert (await full.store.usage()).unfinished == 0


async def test_a_call_counts_while_its_callback_waits(full: FullStore) -> None:
    await full.store.accept(full.call(), 0.0)
    (claim,) = await full.lease()
    told = NewCallback(claim.call.id, "m", "https://x/", "x", b"{}")
    done = Ending(claim.call.id, Status.SUCCEEDED, 0, Result(200, [], BODY), follow=(told,))
    await full.store.finish(ME, [done], 1.0)
    assert (await full.store.usage()).unfinished > 2 * len(BODY)
    assert (await full.in_file())[0] == (await full.in_file())[1]
    callbacks = SqliteCallbackStore(full.writer)
    assert await callbacks.lease(ME, ["m"], 1.0) == {"m"}
    await callbacks.record(ME, "m", CallbackAttempt(CallbackStatus.DELIVERED, 1, 0.0, None))
    assert (await full.store.usage()).unfinished == 0


async def test_a_refusal_undoes_nothing_of_those_beside_it(full: FullStore) -> None:
    await full.fill("a")
    before, commits = (await full.store.usage()).unfinished, full.store.commits
    results = await asyncio.gather(
        *(full.store.accept(full.call("a"), 0.0) for _ in range(50)),
        *(full.store.accept(full.call("b", b"{}"), 0.0) for _ in range(50)),
        return_exceptions=True,
    )
    assert [isinstance(result, StoreFull) for result in results] == [True] * 50 + [False] * 50
    assert full.store.commits - commits < 20, "they still share commits"
    assert (await full.store.usage()).unfinished == before + 50 * (1024 + 2 + len(b"POST\n\n\n"))


async def test_what_is_run_again_by_hand_needs_a_share(full: FullStore) -> None:
    for _ in range(30):
        await full.store.accept(full.call("a"), 0.0)
        (claim,) = await full.lease()
        await full.store.finish(ME, [Ending(claim.call.id, Status.DEAD, 1)], 1.0)
    with pytest.raises(StoreFull, match="the key a"):
        await full.store.redrive(2.0)
    assert (await full.store.usage()).largest <= SIZE // 2
    assert (await full.in_file())[0] == (await full.in_file())[1]


async def test_what_is_gone_of_large_bodies_is_freed_when_room_is_wanted(full: FullStore) -> None:
    piece = bytes(256 * 1024)

    async def accept_large(pieces: int) -> str:
        payload = await full.store.begin_body(ME, "a", pieces * len(piece), 0.0)
        for _ in range(pieces):
            await full.store.add_piece(payload, piece, direct=True)
        call = full.call("a", b"")._replace(payload=Payload(payload, pieces * len(piece)))
        await full.store.accept(call, 0.0)
        return call.id

    first = await accept_large(8)
    with pytest.raises(StoreFull, match="the key a"):
        await full.store.begin_body(ME, "a", 10 * len(piece), 0.0)
    for number in range(10):
        for claim in await full.lease():
            await full.store.finish(
                ME, [Ending(claim.call.id, Status.SUCCEEDED, 0, Result(200, [], b""))], number
            )
        last = await accept_large(8)
        assert (await full.store.usage()).used <= SIZE
        assert (await full.in_file())[0] == (await full.in_file())[1]
    assert await full.store.show(first) is None
    assert await full.store.show(last) is not None, "no more was forgotten than was needed"
    assert len((await full.store.page(Query(limit=1000))).records) >= 3


async def test_a_body_that_was_coming_when_the_process_died_is_gone_at_the_next_start(tmp_path: Path) -> None:
    before = FullStore(tmp_path / "calls.db")
    payload = await before.store.begin_body(ME, "a", MIB, 0.0)
    await before.store.add_piece(payload, b"half")
    assert (await before.store.usage()).unfinished == MIB
    await before.store.close()
    after = FullStore(tmp_path / "calls.db")
    await SqliteLeaseStore(after.writer).requeue_abandoned(MY_NEXT_EPOCH, 1.0, 10.0)
    assert (await after.store.usage()).unfinished == 0
    assert await after.store.prune(0.0, 1.0) > 0
    assert await after.writer.do(lambda db: db.execute("SELECT * FROM pieces").fetchall()) == []
    await after.store.close()


async def test_a_body_that_is_forgotten_while_it_is_read_is_not_taken_for_whole(full: FullStore) -> None:
    payload = await full.store.begin_body(ME, "a", 0, 0.0)
    for _ in range(3):
        await full.store.add_piece(payload, b"piece")
    reading = full.store.pieces(payload)
    assert await anext(reading) == b"piece"
    await full.writer.do(lambda db: piece_rows.discard(db, payload))
    await full.store.prune(0.0, 1.0)
    with pytest.raises(StoreError, match="forgotten while it was read"):
        await anext(reading)


async def test_however_many_read_large_bodies_at_once_each_gets_all_of_it(full: FullStore) -> None:
    """A refusal in the middle would cut an answer off, or fail the run whose body it is."""
    payload = await full.store.begin_body(ME, "a", 0, 0.0)
    for number in range(3):
        await full.store.add_piece(payload, b"%d" % number)

    async def read() -> bytes:
        return b"".join([piece async for piece in full.store.pieces(payload)])

    found = await asyncio.gather(*[read() for _ in range(500)])
    assert set(found) == {b"012"}
    assert sum(full.writer.refusals.values()) == 0


async def test_freeing_what_is_large_writes_hardly_any_log(full: FullStore, tmp_path: Path) -> None:
    payload = await full.store.begin_body(ME, "a", 3 * MIB, 0.0)
    for _ in range(12):
        await full.store.add_piece(payload, bytes(256 * 1024))
    await full.writer.do(lambda db: piece_rows.discard(db, payload))
    await full.writer.do(lambda db: None)

    def truncate() -> None:
        with closing(sqlite3.connect(tmp_path / "calls.db")) as db:
            assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0

    await asyncio.to_thread(truncate)
    while await full.store.prune(0.0, 1.0):
        pass
    assert (tmp_path / "calls.db-wal").stat().st_size < MIB // 2
    assert (await full.store.usage()).used < MIB
