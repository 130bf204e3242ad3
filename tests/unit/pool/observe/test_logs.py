"""Logs are bounded in every direction, and what was kept is what was printed."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from pool.observe.logs import LAST_LINES_BYTES, TRUNCATED, InstanceLog, LogBuffer, LogStore, last_lines

PIECES = st.lists(st.binary(min_size=1, max_size=20), max_size=20)


@given(PIECES, st.integers(0, 60))
def test_a_buffer_keeps_the_beginning_and_says_that_there_was_more(pieces: list[bytes], limit: int) -> None:
    buffer, whole = LogBuffer(limit), b"".join(pieces)
    kept = sum(buffer.write(piece) for piece in pieces)
    assert buffer.read() == (whole if len(whole) <= limit else whole[:limit] + TRUNCATED)
    assert kept == buffer.size == len(buffer.read())


@given(PIECES, st.integers(1, 60))
def test_an_instance_log_keeps_the_end(pieces: list[bytes], limit: int) -> None:
    log, whole = InstanceLog(limit), b"".join(pieces)
    for piece in pieces:
        log.write(piece)
    assert log.read() == whole[-limit:]
    assert log.held <= 2 * limit, "more is held than is needed"


def test_output_in_single_bytes_takes_little_more_memory_than_it_has() -> None:
    output = bytes(range(256)) * 128  # each byte is a value of its own in the interpreter's memory
    tracemalloc.start()
    try:
        buffer, log = LogBuffer(len(output)), InstanceLog(len(output))
        before = tracemalloc.get_traced_memory()[0]
        for at in range(len(output)):
            buffer.write(output[at : at + 1])
            log.write(output[at : at + 1])
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert buffer.read() == log.read() == output
    assert taken < 3 * 2 * len(output)


def test_a_store_keeps_what_was_printed_and_nothing_of_the_silent() -> None:
    store = LogStore()
    assert store.read("a") is None
    store.write("a", b"one ")
    store.write("a", b"two")
    assert store.read("a") == b"one two"


def test_a_store_forgets_the_oldest_first() -> None:
    store = LogStore(remembered=3)
    for name in "abcd":
        store.write(name, name.encode())
    assert [store.read(name) for name in "abcd"] == [None, b"b", b"c", b"d"]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 30)), max_size=60))
def test_a_store_is_bounded(events: list[tuple[str, int]]) -> None:
    store = LogStore(per_invocation=20, total=100, remembered=4)
    for name, size in events:
        store.write(name, size * b"x")
        assert len(store.known) <= 4
        held = [len(store.read(known) or b"") for known in store.known]
        assert store.size == sum(held)
        assert sum(held) <= 100 or len(store.known) == 1
        assert all(size <= 20 + len(TRUNCATED) for size in held)


def test_a_late_line_of_a_forgotten_invocation_does_not_let_the_store_grow() -> None:
    store = LogStore(remembered=2)
    for name in "abc":
        store.write(name, b"x")
    for _ in range(3):
        store.write("a", b"late")
        store.write("d", b"x")
    assert len(store.known) <= 2


def test_the_last_lines_are_whole_ones() -> None:
    assert last_lines(b"") == ""
    assert last_lines(b"one\ntwo") == "one\ntwo"
    line = "x" * 99 + "\n"
    assert last_lines(line.encode() * 1000) == line * (LAST_LINES_BYTES // 100 - 1)
    assert last_lines(b"begin\n" + b"x" * 2 * LAST_LINES_BYTES) == "x" * LAST_LINES_BYTES
    assert last_lines("é".encode() + b"x" * (LAST_LINES_BYTES - 1)).startswith("\ufffdxxx")
