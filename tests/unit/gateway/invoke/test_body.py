"""A request's body: bounded, read ahead a little, and then as the function takes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import Request

from gateway.http.problems import Problem
from gateway.invoke.body import (
    QUEUED_READ_AHEAD,
    READ_AHEAD,
    SMALL_DOCUMENT,
    ClientGone,
    RequestBody,
    whole_document,
)
from gateway.memory.budget import BodyBudget
from gateway.memory.reservation import PIECE, RESERVATION, Reservation

GONE = {"type": "http.disconnect"}


class Client:
    """Sends pieces when it is asked; after the last of an unfinished body it waits for ever."""

    def __init__(self, *pieces: bytes, whole: bool = True, leaves: bool = False) -> None:
        self.messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
        ]
        if whole:
            self.messages.append({"type": "http.request", "body": b"", "more_body": False})
        if leaves:
            self.messages.append(GONE)
        self.asked = 0

    async def __call__(self) -> Any:
        self.asked += 1
        if not self.messages:
            await asyncio.get_running_loop().create_future()
        return self.messages.pop(0)


def body_of(client: Callable[[], Any], limit: int = 10**7, length: int | None = None) -> RequestBody:
    headers = [] if length is None else [(b"content-length", b"%d" % length)]
    return RequestBody(client, {"headers": headers}, limit)


async def test_a_small_body_is_here_before_an_instance_is_leased() -> None:
    body = body_of(Client(b"one ", b"", b"two"), length=7)
    await body.read_ahead()
    assert body.complete
    assert body.length == 7
    assert body.take() == b"one two"
    assert body.take() == b""
    assert await body.more() == b""


async def test_a_large_body_is_read_as_it_is_taken() -> None:
    client = Client(*(20 * [READ_AHEAD * b"x"]))
    body = body_of(client)
    await body.read_ahead()
    assert not body.complete
    assert client.asked == 1
    assert body.length is None
    size = len(body.take())
    while piece := await body.more():
        size += len(piece)
    assert size == 20 * READ_AHEAD == body.size
    assert body.complete


async def test_what_went_nowhere_is_put_back() -> None:
    body = body_of(Client(b"one", b"two"))
    await body.read_ahead(len(b"one"))
    first = body.take()
    await body.read_ahead(len(b"onetwo"))
    assert (first, body.complete) == (b"one", False)
    body.put_back(first)
    body.put_back(b"")
    await body.read_ahead()
    assert body.take() == b"onetwo"


@pytest.mark.parametrize("size", [10, 11, 20])
async def test_the_limit_holds_for_a_declared_length(size: int) -> None:
    client = Client(size * b"x")
    body = body_of(client, limit=10, length=size)
    if size <= 10:
        await body.read_ahead()
        assert body.take() == size * b"x"
        return
    with pytest.raises(Problem) as caught:
        await body.read_ahead()
    assert caught.value.status == 413
    assert client.messages == [], "a client that still sends does not see the answer"
    assert body.take() == b""


async def test_the_limit_holds_for_chunks() -> None:
    client = Client(*(12 * [b"x"]))
    body = body_of(client, limit=10)
    with pytest.raises(Problem) as caught:
        await body.read_ahead()
    assert caught.value.slug == "body-too-large"
    assert client.messages == []


async def test_no_more_than_twice_the_limit_is_read_and_dropped() -> None:
    client = Client(*(1000 * [b"x"]))
    body = body_of(client, limit=10)
    with pytest.raises(Problem):
        await body.read_ahead()
    assert 20 <= client.asked <= 22


async def test_the_limit_holds_while_the_function_reads() -> None:
    body = body_of(Client(*(20 * [READ_AHEAD * b"x"])), limit=2 * READ_AHEAD)
    await body.read_ahead()
    with pytest.raises(Problem):
        while await body.more():
            body.take()


@pytest.mark.parametrize("length", [None, 100])
async def test_a_client_that_leaves(length: int | None) -> None:
    with pytest.raises(ClientGone):
        await body_of(Client(b"half", whole=False, leaves=True), length=length).read_ahead()
    with pytest.raises(ClientGone):
        await body_of(Client(b"half", whole=False, leaves=True), length=100, limit=10).read_ahead()


async def test_it_knows_whether_the_client_is_waited_for() -> None:
    body = body_of(Client(b"half", whole=False))
    reading = asyncio.ensure_future(body.read_ahead())
    await asyncio.sleep(0)
    assert body.waiting
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert body.waiting, "whoever gave up wants to know that it was for the client"


async def test_a_client_that_stops_while_too_much_is_dropped_is_waited_for() -> None:
    body = body_of(Client(11 * b"x", whole=False), limit=10)
    reading = asyncio.ensure_future(body.read_ahead())
    await asyncio.sleep(0)
    assert body.waiting
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


async def test_a_watch_sees_the_client_leave() -> None:
    for client in (Client(b"all", leaves=True), Client(b"half", whole=False, leaves=True)):
        with pytest.raises(ClientGone):
            await asyncio.wait_for(body_of(client).watch(), 1)


async def test_a_watch_reads_ahead_boundedly_and_loses_nothing() -> None:
    client = Client(*(100 * [READ_AHEAD * b"x"]))
    body = body_of(client)
    await body.read_ahead()
    watching = asyncio.ensure_future(body.watch())
    await asyncio.sleep(0.01)
    assert body.size == QUEUED_READ_AHEAD
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    size = len(body.take())
    while piece := await body.more():
        size += len(piece)
    assert size == 100 * READ_AHEAD


async def test_after_a_watch_nobody_is_waited_for() -> None:
    body = body_of(Client(b"half", whole=False))
    watching = asyncio.ensure_future(body.watch())
    await asyncio.sleep(0)
    assert body.waiting
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert not body.waiting, "a timeout of the function would be blamed on the caller"


# -- what it holds of the budget ------------------------------------------------------------------------------

MIB = 2**20


def reserved(
    client: Callable[[], Any], budget: BodyBudget, limit: int = 6 * MIB, length: int | None = None
) -> tuple[RequestBody, Reservation]:
    """A body, and the reservation of its request."""
    framing = (b"transfer-encoding", b"chunked") if length is None else (b"content-length", b"%d" % length)
    reservation = Reservation(budget, "a")
    return RequestBody(client, {"headers": [framing], RESERVATION: reservation}, limit), reservation


async def test_all_of_a_declared_length_is_reserved_before_the_first_byte() -> None:
    budget = BodyBudget(64 * MIB)
    client = Client(b"x", whole=False)
    body, reservation = reserved(client, budget, length=5 * MIB)
    reading = asyncio.ensure_future(body.read_ahead(6 * MIB + 1))
    await asyncio.sleep(0)
    assert reservation.held == 5 * MIB
    reading.cancel()


async def test_chunks_are_reserved_piece_by_piece_and_the_rest_is_given_back() -> None:
    budget = BodyBudget(64 * MIB)
    body, reservation = reserved(Client(b"x" * 1000, b"y" * 1000), budget)
    await body.read_ahead(6 * MIB + 1)
    assert reservation.held == budget.held == 2000


async def test_a_streamed_body_holds_what_is_read_ahead_whatever_its_length() -> None:
    budget = BodyBudget(64 * MIB)
    body, reservation = reserved(Client(*(20 * [READ_AHEAD * b"x"])), budget, length=20 * READ_AHEAD)
    await body.read_ahead()
    assert reservation.held == READ_AHEAD + PIECE
    while await body.more():
        assert reservation.held == READ_AHEAD + PIECE


async def test_nothing_is_read_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.memory.reservation.WAIT_SECONDS", 0.01)
    budget = BodyBudget(64 * MIB)
    assert budget.take("a", 15 * MIB)
    client = Client(b"x" * MIB)
    body, _ = reserved(client, budget, length=2 * MIB)
    with pytest.raises(Problem) as caught:
        await body.read_ahead(6 * MIB + 1)
    assert caught.value.slug == "busy"
    assert client.asked == 0


async def test_a_request_without_a_body_needs_no_room() -> None:
    budget = BodyBudget(64 * MIB)
    assert budget.take("a", 16 * MIB)
    body = RequestBody(Client(), {"headers": [], RESERVATION: Reservation(budget, "a")}, MIB)
    await body.read_ahead()
    assert body.complete


async def test_a_client_that_waits_in_the_queue_is_read_no_further_than_there_is_room() -> None:
    budget = BodyBudget(64 * MIB)
    body, reservation = reserved(
        client := Client(*(20 * [READ_AHEAD * b"x"])), budget, length=20 * READ_AHEAD
    )
    await body.read_ahead()
    assert budget.take("a", 16 * MIB - reservation.held)
    asked = client.asked
    watching = asyncio.ensure_future(body.watch())
    await asyncio.sleep(0.01)
    assert client.asked == asked
    watching.cancel()


@pytest.mark.parametrize(("size", "held"), [(1000, 24_000), (SMALL_DOCUMENT + 1, SMALL_DOCUMENT + 1)])
async def test_a_document_has_room_for_what_is_parsed_of_it(size: int, held: int) -> None:
    """A small one has it reserved; of large ones there is one at a time."""
    budget = BodyBudget(64 * MIB)
    reservation = Reservation(budget, "a")
    scope = {
        "type": "http",
        "method": "POST",
        "headers": [(b"content-length", b"%d" % size)],
        RESERVATION: reservation,
    }
    request = Request(scope, Client(b"x" * size))
    async with whole_document(request, MIB, "the test") as body:
        assert len(body) == size
        assert reservation.held == held
        assert budget.documents.locked() is (size > SMALL_DOCUMENT)
    assert budget.held == 0
    assert not budget.documents.locked()


async def test_nothing_of_a_body_is_left_when_its_request_has_ended() -> None:
    """Also where a failed call still refers to it: nobody counts it any more."""
    budget = BodyBudget(4 * PIECE)
    reservation = Reservation(budget, "a")
    scope = {"headers": [(b"content-length", b"6")], RESERVATION: reservation}
    body = RequestBody(Client(b"one", b"two"), scope, 10)
    await body.read_ahead()
    assert budget.held == 6
    reservation.close()
    assert body.take() == b""
    assert budget.held == 0


async def test_pieces_that_were_taken_stay_with_who_took_them() -> None:
    reservation = Reservation(BodyBudget(4 * PIECE), "a")
    scope = {"headers": [(b"content-length", b"6")], RESERVATION: reservation}
    body = RequestBody(Client(b"one", b"two"), scope, 10)
    await body.read_ahead()
    pieces = body.take_pieces()
    reservation.close()
    assert pieces == [b"one", b"two"]
