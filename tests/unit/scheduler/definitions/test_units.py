"""Durations and sizes: text with a unit outside, numbers inside, and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from scheduler.definitions.language.units import (
    Duration,
    Size,
    duration_between,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
    size_between,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("30s", 30.0),
        ("10m", 600.0),
        ("24h", 86400.0),
        ("7d", 604800.0),
        ("1h30m", 5400.0),
        ("1m5s250ms", 65.25),
        ("1.5s", 1.5),
        ("0s", 0.0),
        ("0.1s", 0.1),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0B", 0),
        ("12B", 12),
        ("64KiB", 65536),
        ("128MiB", 134217728),
        ("1GiB", 2**30),
        ("2TiB", 2**41),
        ("5kB", 5000),
        ("5KB", 5000),
        ("5MB", 5_000_000),
        ("5GB", 5_000_000_000),
        ("1.5KiB", 1536),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (30, "30 has no unit; write 30s, 30m or 30ms"),
        ("30", "30 has no unit; write 30s, 30m or 30ms"),
        (1.5, "1.5 has no unit; write 1.5s"),
        ("", "'' is not a duration"),
        ("30 s", "'30 s' is not a duration"),
        ("-3s", "'-3s' is not a duration"),
        ("30m1h", "'30m1h' is not a duration"),
        ("10S", "'10S' is not a duration"),
        ("1e3s", "'1e3s' is not a duration"),
        ("٣s", "is not a duration"),
        ("9" * 40 + "s", "is not a duration"),
        (True, "must be a duration"),
        (None, "must be a duration"),
        ([], "must be a duration"),
    ],
)
def test_no_durations(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=r"duration|unit") as caught:
        parse_duration(value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (128, "128 has no unit; write 128MiB or 128MB"),
        ("128", "128 has no unit; write 128MiB or 128MB"),
        ("128M", "'128M' is not a size; write a number and B, KiB, MiB"),
        ("128mib", "'128mib' is not a size"),
        ("-1MiB", "'-1MiB' is not a size"),
        ("MiB", "'MiB' is not a size"),
        (False, "must be a size"),
        ({}, "must be a size"),
    ],
)
def test_no_sizes(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=r"size|unit") as caught:
        parse_size(value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.25, "250ms"),
        (0.0005, "0.0005s"),
        (90.0, "1m30s"),
        (86400.0, "24h"),
        (5400.001, "1h30m1ms"),
    ],
)
def test_format_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (1, "1B"),
        (1024, "1KiB"),
        (1536, "1536B"),
        (128 * 2**20, "128MiB"),
        (3 * 2**40, "3TiB"),
        (5_000_000, "5MB"),
    ],
)
def test_format_size(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, 10**14))
def test_a_duration_in_microseconds_survives_both_ways(microseconds: int) -> None:
    assert parse_duration(format_duration(microseconds / 1e6)) == pytest.approx(microseconds / 1e6, abs=1e-6)


@given(st.integers(0, 10**14))
def test_a_size_survives_both_ways(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.text() | st.integers() | st.floats() | st.none() | st.booleans())
def test_nothing_but_value_errors(value: object) -> None:
    for parse in (parse_duration, parse_size):
        try:
            assert parse(value) >= 0
        except ValueError as error:
            assert str(error)


def test_as_types_of_a_model() -> None:
    assert TypeAdapter(Duration).validate_python("1m") == 60.0
    assert TypeAdapter(Size).validate_python("1KiB") == 1024
    assert TypeAdapter(Duration).dump_python(60.0) == "1m"
    assert TypeAdapter(Size).dump_json(1024) == b'"1KiB"'
    with pytest.raises(ValidationError, match="128 has no unit; write 128MiB or 128MB"):
        TypeAdapter(Size).validate_python(128)


def test_ranges() -> None:
    from typing import Annotated

    short = TypeAdapter(Annotated[Duration, duration_between("1s", "1m")])
    small = TypeAdapter(Annotated[Size, size_between("1KiB", "1MiB")])
    assert [short.validate_python(text) for text in ("1s", "60s")] == [1.0, 60.0]
    assert [small.validate_python(text) for text in ("1024B", "1MiB")] == [1024, 2**20]
    for text in ("999ms", "61s"):
        with pytest.raises(ValidationError, match="must be from 1s to 1m, not"):
            short.validate_python(text)
    for text in ("1023B", "2MiB"):
        with pytest.raises(ValidationError, match="must be from 1KiB to 1MiB, not"):
            small.validate_python(text)
