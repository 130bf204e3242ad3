"""Durations and sizes: text with a unit outside (`30s`, `128MiB`), float seconds and int bytes inside."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, PlainSerializer

from scheduler.definitions.language.faults import shown

_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,6})?"
_BARE_NUMBER = re.compile(_NUMBER)

_SECONDS = {
    "d": Decimal(86400),
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
}
# Largest unit first, each at most once: 1h30m. `m` is a minute only if no `s` follows it.
_DURATION = re.compile(
    rf"(?:({_NUMBER})d)?(?:({_NUMBER})h)?(?:({_NUMBER})m(?!s))?(?:({_NUMBER})s)?(?:({_NUMBER})ms)?"
)

_BYTES = {
    "TiB": 2**40,
    "GiB": 2**30,
    "MiB": 2**20,
    "KiB": 2**10,
    "TB": 10**12,
    "GB": 10**9,
    "MB": 10**6,
    "kB": 10**3,
    "KB": 10**3,
    "B": 1,
}
_SIZE = re.compile(rf"({_NUMBER})({'|'.join(_BYTES)})")


def parse_duration(value: object) -> float:
    """Return the seconds of a text like `250ms`, `30s`, `10m`, `24h`, `7d` or `1h30m`. Raises ValueError."""
    text = _text_with_unit(value, "{0}s, {0}m or {0}ms", "duration")
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise ValueError(
            f"{shown(value)} is not a duration; write a number and ms, s, m, h or d, like 30s or 1h30m"
        )
    parts = zip(match.groups(), _SECONDS.values(), strict=True)
    return float(sum(Decimal(number) * seconds for number, seconds in parts if number is not None))


def parse_size(value: object) -> int:
    """Return the bytes of a text like `64KiB`, `128MiB`, `1GiB` (powers of 1024), `5MB` (powers of 1000) or `12B`.

    A fraction of a byte is rounded. Raises ValueError for any other text.
    """
    text = _text_with_unit(value, "{0}MiB or {0}MB", "size")
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{shown(value)} is not a size; write a number and B, KiB, MiB, GiB, kB, MB or GB, like 128MiB"
        )
    return round(Decimal(match[1]) * _BYTES[match[2]])


def _text_with_unit(value: object, advice: str, kind: str) -> str:
    """Return the value as text. Raises ValueError, with advice, for a bare number and for any other type."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(
            f"must be a {kind}, a number with a unit, like {'30s' if kind == 'duration' else '128MiB'}"
        )
    if _BARE_NUMBER.fullmatch(value):
        raise ValueError(f"{value} has no unit; write {advice.format(value)}")
    return value


def format_duration(seconds: float) -> str:
    """Return the text that `parse_duration` reads as these seconds, to the microsecond."""
    milliseconds = round(seconds * 1000, 3)
    if milliseconds != int(milliseconds):
        return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"
    text, rest = "", int(milliseconds)
    for unit, length in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, length)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def format_size(size: int) -> str:
    """Return the text that `parse_size` reads as these bytes, in the largest unit that divides them."""
    for unit, length in _BYTES.items():
        if size and size % length == 0:
            return f"{size // length}{unit}"
    return f"{size}B"


Duration = Annotated[
    float, BeforeValidator(parse_duration), PlainSerializer(format_duration, return_type=str)
]
"""Seconds; written and shown as text with a unit."""

Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(format_size, return_type=str)]
"""Bytes; written and shown as text with a unit."""


def duration_between(low: str, high: str) -> AfterValidator:
    """Return a check for `Annotated[Duration, ...]` that refuses values below `low` or above `high`."""
    shortest, longest = parse_duration(low), parse_duration(high)

    def check(seconds: float) -> float:
        if not shortest <= seconds <= longest:
            raise ValueError(f"must be from {low} to {high}, not {format_duration(seconds)}")
        return seconds

    return AfterValidator(check)


def size_between(low: str, high: str) -> AfterValidator:
    """Return a check for `Annotated[Size, ...]` that refuses values below `low` or above `high`."""
    smallest, largest = parse_size(low), parse_size(high)

    def check(size: int) -> int:
        if not smallest <= size <= largest:
            raise ValueError(f"must be from {low} to {high}, not {format_size(size)}")
        return size

    return AfterValidator(check)
