"""Whatever was printed and cut off: a reader of the journal gives back the lines that are there, in order."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pool.observe.journal import reader
from pool.observe.journal.reader import JournalReader, OutputFilter, backward, forward
from pool.observe.journal.records import OutputPiece, encode_record, needle

STREAMS = ("quiet", "loud")
FUNCTIONS = ("hello", "hell", "shop-cart")
TEXTS = st.sampled_from(
    [b"a\n", b"one\ntwo\n", b"\n", b"half", b"\xff\x1b\n", b'"function":"hello"\n', b"x" * 300]
)
RECORDS = st.lists(st.tuples(st.sampled_from(STREAMS), st.sampled_from(FUNCTIONS), TEXTS), max_size=30)
TORN = [b"", b'{"n":', encode_record(1, OutputPiece(0.0, "hello", "", "", "", b"torn"))[:-9], b"\x00" * 50]
LARGEST = 600
"""Bytes of the largest record here, which must fit a chunk."""


@st.composite
def journals(draw: st.DrawFn) -> tuple[list[tuple[int, str, str, bytes]], dict[str, bytes]]:
    """Records with number, stream, function and text; and the segments that they lie in, some of them torn."""
    records = []
    files: dict[str, bytes] = {}
    current = dict.fromkeys(STREAMS, "")
    for at, (stream, function, text) in enumerate(draw(RECORDS)):
        number = 1_764_384_000_000_000 + 10 * at
        if not current[stream] or draw(st.integers(0, 3)) == 0:
            if current[stream]:
                files[current[stream]] += draw(st.sampled_from(TORN))
            current[stream] = f"{stream}-{number:016d}.jsonl"
            files[current[stream]] = b""
        piece = OutputPiece(number / 1e6, function, "r", f"{at:032x}", "i", text)
        files[current[stream]] += encode_record(number, piece)
        records.append((number, stream, function, text))
    return records, files


def read(found: JournalReader, upto: int) -> list[tuple[int, int, str]]:
    """All lines of a reader, as number, place and text."""
    lines, more = [], True
    steps = 0
    while more:
        part, more = found.step(upto)
        lines += [(line.number, line.place, line.text) for line in part]
        steps += 1
        assert steps < 1000, "it does not end"
    return lines


def expected(
    records: list[tuple[int, str, str, bytes]], wanted: OutputFilter, upto: int
) -> list[tuple[int, int, str]]:
    found = []
    for number, _, function, text in records:
        lines = text.decode(errors="backslashreplace").removesuffix("\n").split("\n")
        if number <= upto and wanted.function in (None, function):
            found += [
                (number, place, line)
                for place, line in enumerate(lines)
                if wanted.grep is None or wanted.grep in line
            ]
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    journals(),
    st.sampled_from([None, *FUNCTIONS]),
    st.sampled_from([None, "o", "nothing"]),
    st.integers(0, 31),
    st.integers(0, 31),
    st.integers(LARGEST, 5000),
    st.integers(3, 6),
)
def test_readers_find_every_line_once_and_in_order(
    monkeypatch: pytest.MonkeyPatch,
    journal: tuple[list[tuple[int, str, str, bytes]], dict[str, bytes]],
    function: str | None,
    grep: str | None,
    after: int,
    upto: int,
    chunk: int,
    chunks: int,
) -> None:
    monkeypatch.setattr(reader, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(reader, "STEP_CHUNKS", chunks)
    records, files = journal
    wanted = OutputFilter(function=function, grep=grep)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        (folder / "quiet-x.jsonl").write_bytes(b"not ours")
        last = 1_764_384_000_000_000 + 10 * upto
        begin = 1_764_384_000_000_000 + 10 * after
        right = expected(records, wanted, last)
        assert read(backward(folder, STREAMS, wanted, 0), last) == right[::-1]
        assert read(forward(folder, STREAMS, wanted, 0), last) == right
        behind = [line for line in right if line[0] > begin]
        assert read(forward(folder, STREAMS, wanted, begin), last) == behind
        newest = read(backward(folder, STREAMS, wanted, begin), last)
        assert newest[: len(behind)] == behind[::-1], "it may go on a little before"
        waiting = forward(folder, STREAMS, wanted, 0)
        both = read(waiting, begin) + read(waiting, last)
        assert both == expected(records, wanted, max(last, begin))


def test_a_record_fits_the_smallest_chunk_here() -> None:
    assert len(encode_record(10**15, OutputPiece(0.0, "shop-cart", "r", "f" * 32, "i", b"x" * 300))) < LARGEST
    assert needle("function", "hell") not in encode_record(10**15, OutputPiece(0.0, "hello", "", "", "", b""))
