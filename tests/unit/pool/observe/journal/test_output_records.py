"""A record on disk gives back what was printed, byte for byte, and is harmless to every tool."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.observe.journal.records import (
    RECORD_BYTES,
    OutputPiece,
    decode_record,
    encode_record,
    needle,
    number_of,
)

NUMBER = 1_764_384_000_123_456


def record(data: bytes, invocation: str = "2e16dc32") -> bytes:
    return encode_record(NUMBER, OutputPiece(1_764_384_000.123456, "hello", "r1", invocation, "be5e", data))


@given(st.binary(max_size=200))
def test_bytes_come_back_as_they_were(data: bytes) -> None:
    line = record(data)
    found = decode_record(line)
    assert found is not None
    assert found.data == data
    assert line.endswith(b"}\n") and line.count(b"\n") == 1
    assert all(0x20 <= byte < 0x7F for byte in line[:-1]), "a terminal would obey it"


def test_the_largest_record_fits_a_chunk_of_the_reader() -> None:
    assert len(record(b"\xff" * RECORD_BYTES, "f" * 32)) < 64 * 1024


def test_a_record_is_json_with_the_agreed_fields_and_its_number_first() -> None:
    line = record(b"one\r\ntwo")
    assert json.loads(line) == {
        "n": NUMBER,
        "time": "2025-11-29T02:40:00.123Z",
        "function": "hello",
        "revision": "r1",
        "invocation": "2e16dc32",
        "instance": "be5e",
        "text": "one\r\ntwo",
    }
    assert number_of(line) == NUMBER
    found = decode_record(line)
    assert found is not None
    assert [each.text for each in found.lines()] == ["one", "two"]


def test_lines_of_bytes_that_are_no_text_are_written_out() -> None:
    found = decode_record(record(b"\xffab\n\nc\n"))
    assert found is not None
    assert [(each.place, each.text) for each in found.lines()] == [(0, "\\xffab"), (1, ""), (2, "c")]
    assert next(found.lines()).fields()["invocation"] == "2e16dc32"


@pytest.mark.parametrize("cut", [0, 3, 15, 60, -2])
def test_a_torn_record_is_none(cut: int) -> None:
    assert decode_record(record(b"text")[:cut]) is None


@pytest.mark.parametrize("line", [b"[]", b"{}", b'{"n": "1"}', b"null", b"\xff", b'{"n":1,"time":1}'])
def test_what_we_have_not_written_is_none(line: bytes) -> None:
    assert decode_record(line) is None
    assert number_of(line) is None


def test_a_needle_is_in_the_records_that_it_is_for() -> None:
    assert needle("function", "hello") in record(b"")
    assert needle("invocation", "2e16", whole=False) in record(b"")
    assert needle("function", "hell") not in record(b"")
    assert needle("function", "forged") not in record(b'"function":"forged"'), (
        "what is printed forges nothing"
    )
