"""A result that is read from the store in pieces ends as a whole, or visibly does not."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import pytest

from gateway.calls.kept_answer import KeptAnswer
from scheduler.calls.store import StoreError


async def sent(pieces: AsyncIterator[bytes]) -> list[MutableMapping[str, Any]]:
    """Return what goes to the server of such an answer."""
    messages: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        messages.append(message)

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError("nobody asks")

    answer = KeptAnswer("c0ffee", 200, [(b"content-length", b"6")], pieces)
    await answer({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)
    return messages


async def test_an_answer_has_its_head_its_pieces_and_an_end() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    start, *bodies = await sent(pieces())
    assert (start["status"], start["headers"]) == (200, [(b"content-length", b"6")])
    assert b"".join(body["body"] for body in bodies) == b"onetwo"
    assert [body["more_body"] for body in bodies] == [True, True, False]


async def test_an_answer_whose_rest_cannot_be_read_has_no_end_and_one_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        raise StoreError("the rest was forgotten")

    with caplog.at_level(logging.WARNING):
        _, *bodies = await sent(pieces())
    assert [body["more_body"] for body in bodies] == [True]
    assert [record.getMessage() for record in caplog.records] == [
        "invocation c0ffee: its stored result broke off while it was sent: the rest was forgotten"
    ]
