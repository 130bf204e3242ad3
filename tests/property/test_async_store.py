"""The store of accepted calls against a model, over restarts; its group commit; its migrations."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from scheduler.calls.leases import new_owner
from scheduler.calls.model import Claim, Ending, Idempotency, Query, Result, Status
from scheduler.calls.store import KeyReused, StoreError, StoreFull
from scheduler.definitions.language.call_overrides import NO_OVERRIDES, CallOverrides, RetryPolicy
from scheduler.store.sqlite.calls import SqliteCallStore
from scheduler.store.sqlite.leases import SqliteLeaseStore
from scheduler.store.sqlite.schema import MIGRATIONS
from scheduler.store.sqlite.writer import Writer
from scheduler.work import NewCall, Payload, Request
from tests.support.lease_owners import ME
from tests.support.store_recount import counted, recounted

FUNCTIONS = st.sampled_from(["f", "g"])
LARGE = 2**30
PIECES = [b"a large body", b" in pieces"]
NOT_COUNTED = next(n for n, statements in enumerate(MIGRATIONS) if "CREATE TABLE callers" in statements)
"""Version of the last files in which nothing was counted."""


def call(number: int, function: str = "f", body: bytes = b"{}") -> NewCall:
    request = Request(query=b"a=1", headers=[(b"x", b"\xff")], client="127.0.0.1")
    return NewCall(f"{number:032x}", function, request, body)


async def everything(store: SqliteCallStore) -> Sequence[Claim]:
    """Lease all that waits."""
    return await store.claim(ME, dict.fromkeys(await store.backlogs(1.0), 9), 1.0)


class StoreMachine(RuleBasedStateMachine):
    """What the model says of each call, the store says too; also after it was opened again."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.writer = Writer(self.folder / "calls.db")
        self.store = SqliteCallStore(self.writer, LARGE)
        self.me = new_owner("a")
        self.model: dict[str, dict[str, Any]] = {}
        self.keys: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.now = 1000.0

    def do(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    async def whole(self, payload: Payload) -> bytes:
        return b"".join([piece async for piece in self.store.pieces(payload.id)])

    def picked(self, data: Any, *statuses: Status) -> str | None:
        fitting = [id for id, known in self.model.items() if known["status"] in statuses]
        return data.draw(st.sampled_from(fitting)) if fitting else None

    @rule(function=FUNCTIONS, large=st.booleans())
    def accept(self, function: str, large: bool) -> None:
        new = call(len(self.model) + 1, function)
        if large:
            payload = self.do(self.store.begin_body(self.me, "me", 20, 0.0))
            for piece in PIECES:
                self.do(self.store.add_piece(payload, piece, direct=True))
            new = new._replace(body=b"", caller="me", payload=Payload(payload, len(b"".join(PIECES))))
        record = self.do(self.store.accept(new, self.now))
        assert (record.id, record.status) == (new.id, Status.QUEUED)
        self.model[new.id] = {"status": Status.QUEUED, "attempts": 0, "due": self.now, "function": function}

    @rule(function=FUNCTIONS, key=st.sampled_from(["k", "l"]), digest=st.sampled_from([b"1", b"2"]))
    def accept_with_key(self, function: str, key: str, digest: bytes) -> None:
        new = call(len(self.model) + 1, function)
        known = self.keys.get((function, key))
        work = self.store.accept(new, self.now, Idempotency("me", key, digest, 1e9))
        if known is not None and known[0] != digest:
            with pytest.raises(KeyReused):
                self.do(work)
        elif known is not None:
            assert self.do(work).id == known[1]
        else:
            assert self.do(work).id == new.id
            self.keys[function, key] = (digest, new.id)
            self.model[new.id] = {
                "status": Status.QUEUED,
                "attempts": 0,
                "due": self.now,
                "function": function,
            }

    @rule(most=st.integers(0, 3))
    def claim(self, most: int) -> None:
        backlogs = self.do(self.store.backlogs(self.now))
        wanted = {name: min(most, backlog.due) for name, backlog in backlogs.items()}
        claims = self.do(self.store.claim(self.me, wanted, self.now))
        for function in ("f", "g"):
            due = sorted(
                (known["due"], id)
                for id, known in self.model.items()
                if known["status"] is Status.QUEUED
                and known["function"] == function
                and known["due"] <= self.now
            )
            got = [c.call.id for c in claims if c.call.function == function]
            assert got == [id for _, id in due[:most]], "the oldest first"
        for claim in claims:
            known = self.model[claim.call.id]
            known["status"], known["attempts"] = Status.RUNNING, known["attempts"] + 1
            assert claim.attempt == known["attempts"]
            assert claim.call.request == call(0).request
            if claim.call.payload is not None:
                assert self.do(self.whole(claim.call.payload)) == b"".join(PIECES)

    @rule(
        data=st.data(),
        status=st.sampled_from([s for s in Status if s is not Status.RUNNING]),
        large=st.booleans(),
    )
    def finish(self, data: Any, status: Status, large: bool) -> None:
        id = self.picked(data, Status.RUNNING)
        if id is not None:
            result = Result(200, [(b"y", b"z")], b"\0answer", log=b"said")
            if large and status.ended:
                payload = self.do(self.store.begin_payload(self.me, id, 3, 0.0))
                self.do(self.store.add_piece(payload, b"long answer"))
                result = result._replace(body=b"", payload=Payload(payload, 11))
            ending = Ending(id, status, 1, result, self.now + 5)
            assert self.do(self.store.finish(self.me, [ending], self.now)) == [True]
            assert self.do(self.store.result(id)) == result
            if result.payload is not None:
                assert self.do(self.whole(result.payload)) == b"long answer"
            self.model[id] |= {"status": status, "due": self.now + 5}

    @rule(data=st.data())
    def finish_what_is_not_leased(self, data: Any) -> None:
        id = self.picked(data, *(s for s in Status if s is not Status.RUNNING))
        if id is not None:
            assert self.do(self.store.finish(self.me, [Ending(id, Status.SUCCEEDED, 0)], self.now)) == [False]

    @rule(data=st.data())
    def hand_back(self, data: Any) -> None:
        id = self.picked(data, Status.RUNNING)
        if id is not None:
            self.do(self.store.hand_back(self.me, [id]))
            self.model[id]["status"] = Status.QUEUED
            self.model[id]["attempts"] -= 1

    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        id = self.picked(data, *Status)
        if id is not None:
            before = self.do(self.store.cancel(id, self.now))
            assert before.status is self.model[id]["status"]
            if before.status in (Status.QUEUED, Status.HELD):
                self.model[id]["status"] = Status.CANCELLED

    @rule(data=st.data())
    def again(self, data: Any) -> None:
        id = self.picked(data, *Status)
        if id is not None and self.do(self.store.run_again(id, self.now)).status.ended:
            self.model[id] |= {"status": Status.QUEUED, "due": self.now}

    @rule()
    def redrive(self) -> None:
        dead = [k for k in self.model.values() if k["status"] in (Status.DEAD, Status.EXPIRED)]
        assert self.do(self.store.redrive(self.now)) == len(dead)
        for known in dead:
            known |= {"status": Status.QUEUED, "due": self.now}

    @rule(function=FUNCTIONS)
    def purge(self, function: str) -> None:
        gone = [
            id
            for id, k in self.model.items()
            if k["status"] in (Status.DEAD, Status.EXPIRED) and k["function"] == function
        ]
        assert self.do(self.store.purge(self.now, function)) == len(gone)
        for id in gone:
            self.model[id] = {"status": None}
            self.keys = {key: value for key, value in self.keys.items() if value[1] != id}

    @rule(seconds=st.sampled_from([1.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def die_and_start_again(self) -> None:
        self.do(self.store.close())
        self.writer = Writer(self.folder / "calls.db")
        self.store = SqliteCallStore(self.writer, LARGE)
        self.me = new_owner("a")
        leased = [known for known in self.model.values() if known["status"] is Status.RUNNING]
        if self.store.exists:
            leases = SqliteLeaseStore(self.writer)
            assert self.do(leases.requeue_abandoned(self.me, self.now, 10.0)) == len(leased)
        for known in leased:
            known |= {"status": Status.QUEUED, "due": self.now}

    @invariant()
    def agrees(self) -> None:
        if not self.store.exists:
            assert not self.model
            return
        records = {r.id: r for r in self.do(self.store.page(Query(limit=10_000))).records}
        alive = {id: known for id, known in self.model.items() if known["status"] is not None}
        assert {id: (r.status, r.attempts) for id, r in records.items()} == {
            id: (known["status"], known["attempts"]) for id, known in alive.items()
        }
        assert all((r.ended is not None) == r.status.ended for r in records.values())
        assert self.do(self.writer.do(counted)) == self.do(self.writer.do(recounted))
        counts = self.do(self.store.counts())
        assert sum(counts.values()) == sum(
            k["status"] in (Status.QUEUED, Status.RUNNING) for k in alive.values()
        )

    def teardown(self) -> None:
        self.do(self.store.close())
        self.loop.close()
        shutil.rmtree(self.folder)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=8, stateful_step_count=25)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "calls.db"


async def test_many_who_wait_share_a_commit_and_one_who_fails_harms_nobody(file: Path) -> None:
    store = SqliteCallStore(Writer(file), LARGE)
    await store.accept(call(0), 0.0, Idempotency("me", "k", b"1", 60))
    before = store.commits
    again = store.accept(call(500), 0.0, Idempotency("me", "k", b"2", 60))
    results = await asyncio.gather(
        *(store.accept(call(n), 0.0) for n in range(1, 300)), again, return_exceptions=True
    )
    assert [type(r) for r in results if isinstance(r, Exception)] == [KeyReused]
    assert len((await store.page(Query(limit=1000))).records) == 300
    await store.close()

    store = SqliteCallStore(Writer(file.with_name("other.db")), LARGE)
    before = store.commits
    await asyncio.gather(*(store.accept(call(n), 0.0) for n in range(300)))
    assert store.commits - before < 30
    await store.close()


async def test_a_full_store_forgets_what_has_ended_and_then_accepts_nothing(file: Path) -> None:
    store = SqliteCallStore(Writer(file), 420_000)
    accepted = 0
    with pytest.raises(StoreFull):
        while True:
            await store.accept(call(accepted, body=b"x" * 20_000), float(accepted))
            accepted += 1
    assert 5 < accepted < 30
    (claim,) = await store.claim(ME, {"f": 1}, 1e9)
    await store.finish(ME, [Ending(claim.call.id, Status.SUCCEEDED, 0)], 5.0)
    await store.accept(call(1000, body=b"x" * 20_000), 0.0)
    assert await store.show(claim.call.id) is None
    assert len((await store.page(Query(limit=100))).records) == accepted
    await store.close()


async def test_old_calls_are_forgotten_with_their_keys_and_waiting_ones_are_not(file: Path) -> None:
    store = SqliteCallStore(Writer(file), LARGE)
    await store.accept(call(1), 0.0, Idempotency("me", "k", b"1", 60))
    (claim,) = await everything(store)
    await store.finish(ME, [Ending(claim.call.id, Status.DEAD, 1)], 10.0)
    await store.accept(call(2), 0.0)
    assert await store.prune(10.0, 50.0) == 0
    assert await store.prune(10.1, 50.0) == 1
    assert [r.id for r in (await store.page(Query())).records] == [call(2).id]
    assert (await store.accept(call(3), 51.0, Idempotency("me", "k", b"2", 60))).id == call(3).id
    await store.close()


async def test_a_key_is_free_again_when_its_time_is_over_and_callers_do_not_meet(file: Path) -> None:
    store = SqliteCallStore(Writer(file), LARGE)
    await store.accept(call(1), 0.0, Idempotency("me", "k", b"1", 60))
    assert (await store.accept(call(2), 59.0, Idempotency("me", "k", b"1", 60))).id == call(1).id
    assert (await store.accept(call(3), 59.0, Idempotency("you", "k", b"2", 60))).id == call(3).id
    assert (await store.accept(call(4), 61.0, Idempotency("me", "k", b"2", 60))).id == call(4).id
    await store.close()


async def test_what_follows_is_kept_in_the_same_commit(file: Path) -> None:
    store = SqliteCallStore(Writer(file), LARGE)
    await store.accept(call(1), 0.0)
    claims = await everything(store)
    await store.finish(ME, [Ending(claims[0].call.id, Status.SUCCEEDED, 0, follow=(call(2, "g"),))], 2.0)
    assert [r.function for r in (await store.page(Query(statuses=(Status.QUEUED,)))).records] == ["g"]
    await store.close()


async def test_a_file_of_a_newer_program_is_refused_and_left_alone(file: Path) -> None:
    newer = sqlite3.connect(file)
    newer.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    newer.close()
    before = file.read_bytes()
    store = SqliteCallStore(Writer(file), LARGE)
    with pytest.raises(StoreError, match="use the newer program, or another data folder"):
        await store.accept(call(1), 0.0)
    await store.close()
    after = sqlite3.connect(file)
    assert after.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
    after.close()
    assert len(file.read_bytes()) == len(before)


async def test_a_file_that_is_no_database_is_told(file: Path) -> None:
    file.write_bytes(b"no database at all" * 1000)
    store = SqliteCallStore(Writer(file), LARGE)
    with pytest.raises(StoreError, match="not a database"):
        await store.show("1")
    await store.close()


async def test_only_its_owner_can_read_the_file(file: Path) -> None:
    store = SqliteCallStore(Writer(file), LARGE)
    await store.accept(call(1), 0.0)
    assert {f.stat().st_mode & 0o077 for f in file.parent.iterdir()} == {0}
    await store.close()


async def test_a_part_of_an_owner_is_accepted_once_and_left_to_its_owner(file: Path) -> None:
    store = SqliteCallStore(Writer(file), LARGE)
    policy = RetryPolicy(attempts=20, on=frozenset({"crash", "500"}))
    overrides = CallOverrides(policy, 1.5, (("Task-Index", "3"),))
    part = call(1)._replace(owner="job:a", part="3", overrides=overrides)
    await store.begin([part, call(2)._replace(owner="job:a", part="4")], 0.0)
    again = await store.accept(part._replace(id="other"), 1.0)
    assert (again.id, again.owner, again.part) == (part.id, "job:a", "3"), "the same part is the same call"
    assert [r.part for r in (await store.page(Query(owner="job:a"))).records] == ["4", "3"]
    claims = await everything(store)
    assert [claim.call.overrides for claim in claims if claim.call.part == "3"] == [overrides]
    assert [claim.call.overrides for claim in claims if claim.call.part == "4"] == [NO_OVERRIDES]

    await store.finish(ME, [Ending(part.id, Status.DEAD, 1)], 2.0)
    assert await store.redrive(3.0) == 0, "it is its owner's"
    assert await store.purge(3.0) == 0
    assert await store.prune(100.0, 100.0) == 0
    await store.run_again(part.id, 3.0)
    record = await store.show(part.id)
    assert record is not None
    assert record.status is Status.DEAD
    await store.close()


async def test_what_nobody_can_begin_leaves_nothing_begun(file: Path) -> None:
    store = SqliteCallStore(Writer(file), LARGE)
    with pytest.raises(AssertionError, match="a job"):
        await store.begin([call(1), "a job"], 0.0)
    assert (await store.page(Query())).records == []
    await store.close()


async def test_a_file_of_the_version_before_is_counted_when_it_is_opened(file: Path) -> None:
    before = sqlite3.connect(file)
    for number, statements in enumerate(MIGRATIONS[:NOT_COUNTED], 1):
        before.executescript(f"BEGIN; {statements} PRAGMA user_version = {number}; COMMIT;")
    calls = [("", "queued", None), ("", "succeeded", 5.0), ("", "failed", 5.0), ("run:r/a", "succeeded", 5.0)]
    calls += [("run:r/a", "queued", None), ("run:old/a", "failed", 5.0), ("job:j", "dead", 5.0)]
    for seq, (owner, status, ended) in enumerate(calls, 1):
        before.execute(
            "INSERT INTO invocations (seq, id, function, status, accepted, since, due, owner, part, ended)"
            " VALUES (?, ?, 'f', ?, 0, 0, 0, ?, ?, ?)",
            (seq, f"{seq}", status, owner, f"{seq}", ended),
        )
        before.execute("INSERT INTO requests VALUES (?, ?, ?, '')", (seq, b"POST\n\n\n", b"x" * 10**seq))
        before.execute(
            "INSERT INTO results VALUES (?, 200, '[]', ?, NULL, '', 'none', x'')", (seq, b"y" * 7**seq)
        )
    before.execute("INSERT INTO callbacks VALUES (3, 'm', 'https://x/', 'x', x'', 'pending', 1, 9.0, NULL)")
    for seq, id, ended in ((1, "r", None), (2, "old", 5.0)):
        values = (seq, id, ended)
        before.execute("INSERT INTO runs VALUES (?, ?, 'w', 'running', '[]', 0, ?, NULL, '', 0, 0)", values)
        before.execute("INSERT INTO run_data VALUES (?, '{}', x'0102', 'a/b', NULL, NULL)", (seq,))
    before.execute("INSERT INTO run_items VALUES (1, 'a', 2, x'010203', 'a/b')")
    before.execute(
        "INSERT INTO jobs (seq, id, name, definition, status, count, parallel, created, depth, context)"
        " VALUES (1, 'j', '', '{}', 'running', 3, 1, 0, 0, '[]')"
    )
    before.execute("INSERT INTO job_inputs VALUES (1, 0, x'01020304')")
    before.commit()
    before.close()
    writer = Writer(file)
    store = SqliteCallStore(writer, LARGE)
    assert await writer.do(counted) == await writer.do(recounted) > 10**7
    await writer.do(lambda db: db.execute("UPDATE runs SET ended = 9"))
    assert await store.purge(9.0) == 0
    assert await writer.do(counted) == await writer.do(recounted)
    await store.close()
