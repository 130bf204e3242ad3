"""JSON in steps is what the standard library makes of it, faults included."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.json_steps import loads

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
