"""JSON in steps is what the standard library makes of it, faults included."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import json_steps
from scheduler.json_steps import dumps, loads
from tests.support.loop_turns import Turns, json_counted

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


def both(body: bytes) -> tuple[str, str]:
    """What each of the two makes of a body."""
    made = []
    for parse in (loads, json.loads):
        try:
            made.append(repr(parse(body)))
        except (ValueError, RecursionError) as fault:
            made.append(f"{type(fault).__name__}: {fault}")
    return made[0], made[1]


@given(VALUES, st.sampled_from([None, 1]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))
def test_it_parses_the_same(value: object, indent: int | None, encoding: str) -> None:
    ours, theirs = both(
        json.dumps(value, indent=indent, ensure_ascii=False).encode(encoding, "surrogatepass")
    )
    assert ours == theirs


@given(VALUES, st.data())
def test_it_refuses_the_same(value: object, data: st.DataObject) -> None:
    text = json.dumps(value)
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 2))
    broken = (
        text[:at] + data.draw(st.sampled_from(["", ",", ":", "]", "}", '"', " ", "x"])) + text[at + cut :]
    )
    ours, theirs = both(broken.encode())
    assert ours == theirs


@pytest.mark.parametrize(
    "body", [b"", b" ", b"[", b"{", b"[1,]", b'{"a":1,}', b"[" * 100_000, b"\xff", b'{"a" 1}', b"{1:2}"]
)
def test_it_refuses_these_as_well(body: bytes) -> None:
    ours, theirs = both(body)
    assert ours == theirs


LARGE = st.sampled_from([300, 5000]).flatmap(
    lambda size: st.sampled_from(
        [
            [1.5, -3, None] * size,
            [{"n": 1, "s": "},{"}] * size,
            [{"a": [{"b": "x, y"}, []], "": {}}] * size,
            {f"k{n}": {"deep": [n, {"x": "\\\ud83d\ude00\ud800"}]} for n in range(size)},
            "é\n\U0001f600\ud83d" * size * 8,
            [["x" * 40] * 40] * (size // 10),
            {"k" * size * 20: "v" * size * 20},
        ]
    )
)


@settings(deadline=None, max_examples=25)
@given(VALUES, LARGE, st.integers(0, 40), st.sampled_from([None, 1]), st.booleans())
def test_large_values_are_parsed_and_written_the_same(
    small: object, large: object, depth: int, indent: int | None, as_ascii: bool
) -> None:
    value = large
    for _ in range(depth):
        value = [small, {"a": small, "b": value, "c": small}]
    text = json.dumps(value, indent=indent, ensure_ascii=as_ascii)
    body = text.encode(errors="surrogatepass")
    assert repr(loads(body)) == repr(json.loads(body))
    same = json.dumps(value, ensure_ascii=as_ascii).encode(errors="surrogatepass")
    assert dumps(value, ensure_ascii=as_ascii, errors="surrogatepass") == same


@settings(deadline=None, max_examples=25)
@given(LARGE, st.data())
def test_large_faulty_values_are_refused_the_same(value: object, data: st.DataObject) -> None:
    text = json.dumps([value, value])
    at = data.draw(st.integers(0, len(text)))
    wrong = data.draw(
        st.sampled_from(["", ",", ":", "]", "}", '"', "\\", "x", "\x01", "\\ud83d", "NaN", " ", "9" * 5000])
    )
    ours, theirs = both((text[:at] + wrong + text[at + data.draw(st.integers(0, 2)) :]).encode())
    assert ours == theirs


@given(VALUES)
def test_what_cannot_be_written_is_refused_the_same(value: object) -> None:
    made = []
    for write in (lambda: json.dumps(value, allow_nan=False).encode(), lambda: dumps(value, allow_nan=False)):
        try:
            made.append(write())
        except ValueError as fault:
            made.append(str(fault).encode())
    assert made[0] == made[1]


@pytest.mark.parametrize("cut", range(-14, 15))
def test_a_pair_of_halves_is_one_character_wherever_a_string_is_cut(cut: int) -> None:
    body = b'"' + b"x" * (json_steps.CHUNK_CHARACTERS + cut) + rb'\\\ud83d\ud83d\ude00\ude00\ud83d"'
    assert loads(body) == json.loads(body)
    raw = (
        b'"'
        + b"x" * (json_steps.CHUNK_CHARACTERS + cut)
        + rb"\ud83d"
        + "\ude00".encode(errors="surrogatepass")
        + b'"'
    )
    assert loads(raw) == json.loads(raw)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_what_is_nested_too_deep_is_refused_however_large_it_is(opening: bytes) -> None:
    large = b'"' + b"x" * 100_000 + b'"'
    with pytest.raises(RecursionError):
        loads(opening * 2000 + large)
    value: object = "x" * 100_000
    for _ in range(2000):
        value = [value]
    with pytest.raises(RecursionError):
        dumps(value)


def test_hostile_nesting_is_not_looked_at_again_and_again() -> None:
    comb: object = [1] * 2000
    for _ in range(800):
        comb = [comb]
    turns = Turns()
    body = json.dumps([comb] * 50).encode()
    with json_counted(turns):
        loads(body)
    assert turns.total <= 4 * len(body)
