"""Ids of invocations are random and unique, and cost few system calls."""

from __future__ import annotations

import os

import pytest

from gateway.invoke import ids


def test_ids_are_32_hexadecimal_digits_and_no_two_are_the_same() -> None:
    made = [ids.new_id() for _ in range(5000)]
    assert len(set(made)) == 5000
    assert all(len(id) == 32 and set(id) <= set("0123456789abcdef") for id in made)


def test_many_ids_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    draw = os.urandom

    def counted(size: int) -> bytes:
        drawn.append(size)
        return draw(size)

    monkeypatch.setattr(os, "urandom", counted)
    for _ in range(10 * ids.BATCH):
        ids.new_id()
    assert len(drawn) <= 11
    assert set(drawn) == {ids.ID_BYTES * ids.BATCH}


def test_a_forked_child_gives_out_none_of_its_parents() -> None:
    ids.new_id()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "".join(ids.new_id() for _ in range(32)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    theirs = {told[at : at + 32] for at in range(0, len(told), 32)}
    assert len(theirs) == 32
    assert not theirs & {ids.new_id() for _ in range(ids.BATCH)}
