"""Pieces of output become whole lines; nothing is lost, and little is held."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pool.observe.journal.joiner import HELD_BATCHES, HELD_BYTES, LineJoiner
from pool.observe.journal.records import RECORD_BYTES, OutputPiece

BYTES = st.sampled_from([b"a", b"\n", b"\xff", "é".encode(), b"\x1b[2J", b"x" * 5000, b"line\n"])
CALLS = st.sampled_from(["one", "two"])


def piece(data: bytes, invocation: str = "one", moment: float = 0.0) -> OutputPiece:
    return OutputPiece(moment, "hello", "r1", invocation, "instance", data)


def printed(pieces: list[OutputPiece]) -> list[bytes]:
    return [each.data for each in pieces]


@given(st.lists(st.lists(st.tuples(CALLS, BYTES), max_size=8), max_size=8))
def test_each_call_has_all_its_bytes_in_order_in_bounded_parts(
    batches: list[list[tuple[str, bytes]]],
) -> None:
    joiner = LineJoiner()
    out: list[OutputPiece] = []
    for batch in batches:
        out += joiner.join([piece(data, call) for call, data in batch])
    out += joiner.join([], last=True)
    assert not joiner.holding
    for call in ("one", "two"):
        given_bytes = b"".join(data for batch in batches for name, data in batch if name == call)
        assert b"".join(each.data for each in out if each.invocation == call) == given_bytes
    assert all(0 < len(each.data) <= RECORD_BYTES for each in out)


def test_half_a_line_waits_for_its_end_between_pieces_of_others() -> None:
    joiner = LineJoiner()
    first = joiner.join([piece(b"be", "one"), piece(b"whole\n", "two"), piece(b"gin", "one")])
    assert printed(first) == [b"whole\n"]
    assert joiner.holding
    assert printed(joiner.join([piece(b"ning\nand", "one")])) == [b"beginning\n"]


def test_half_a_line_is_passed_on_when_its_end_does_not_come() -> None:
    joiner = LineJoiner()
    joiner.join([piece(b"continue? ")])
    waited = 0
    while not (passed := joiner.join([])):
        waited += 1
    assert printed(passed) == [b"continue? "]
    assert waited == HELD_BATCHES - 1


def test_pieces_of_one_moment_become_one_record_with_the_first_ones_time() -> None:
    joined = LineJoiner().join(
        [piece(b"a\n", moment=1.0), piece(b"b\n", moment=1.001), piece(b"c\n", moment=2.0)]
    )
    assert [(each.moment, each.data) for each in joined] == [(1.0, b"a\nb\n"), (2.0, b"c\n")]


def test_a_line_without_end_is_broken_between_characters() -> None:
    joined = LineJoiner().join([piece("é".encode() * 9000)])
    assert len(joined) == 3
    for part in joined:
        part.data.decode()  # whole characters


def test_what_all_half_lines_hold_is_bounded() -> None:
    joiner = LineJoiner()
    half = b"x" * (RECORD_BYTES - 1)
    calls = HELD_BYTES // len(half) + 2
    assert len(joiner.join([piece(half, str(call)) for call in range(calls)])) == calls
    assert not joiner.holding
