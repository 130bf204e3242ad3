"""Types of the values in functions.yaml, except durations and sizes. Each check says which values are allowed."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from pool.engine.base import Mount
from pool.host.uids import OWN_USER
from scheduler.definitions.language.call_overrides import FAILURE_KINDS
from scheduler.definitions.language.callback_allow import parse_callback
from scheduler.definitions.language.faults import shown
from scheduler.definitions.language.units import (
    Duration,
    Size,
    duration_between,
    format_duration,
    parse_duration,
    size_between,
)

TMP = "/tmp"  # noqa: S108 (the container's own)
RESERVED_PATHS = ("/proc", "/sys", "/dev", "/run/hearth", "/function")
"""Paths of a container that the kernel or Hearth uses, with everything below them."""


def whole(low: int, high: int) -> BeforeValidator:
    """Return a check for a whole number from `low` to `high`."""

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}, not {shown(value)}")
        return value

    return BeforeValidator(check)


def number(low: float, high: float) -> BeforeValidator:
    """Return a check for a number, with or without a fraction, from `low` to `high`."""

    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}, not {shown(value)}")
        return float(value)

    return BeforeValidator(check)


def text(pattern: str, wanted: str) -> BeforeValidator:
    """Return a check for text that matches all of `pattern`; `wanted` completes "must be ..."."""
    compiled = re.compile(pattern)

    def check(value: object) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise ValueError(f"must be {wanted}, not {shown(value)}")
        return value

    return BeforeValidator(check)


MAX_VARIABLE_BYTES = 100_000
"""Value of one environment variable; the kernel allows 128 KiB with the name."""


def _none_or_count(value: object) -> object:
    if value is None or value == "none":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"must be a whole number from 1, or none, not {shown(value)}")
    return value


MAX_IDLE_SECONDS = 30 * 86400.0
"""Longest `freeze_after`; the same as the longest `keep_alive`."""


def _never_or_duration(value: object) -> float | None:
    if value == "never":
        return None
    seconds = parse_duration(value)
    if seconds > MAX_IDLE_SECONDS:
        raise ValueError(f"must be from 0s to 30d, or never, not {format_duration(seconds)}")
    return seconds


def _never_or_text(seconds: float | None) -> str:
    return "never" if seconds is None else format_duration(seconds)


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {shown(value)}")
    return value


def _variable(value: object) -> str:
    """Return a value of `env` or `labels` as text. Raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f'must be text or a number, not {shown(value)}; quote it, like "true" or ""')
    if "\0" in value or len(value.encode()) > MAX_VARIABLE_BYTES:
        raise ValueError(f"must be text without NUL of at most {MAX_VARIABLE_BYTES} bytes")
    return value


def _arguments(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"must be a list of words, like [wc, -w], not {shown(value)}")
    return tuple(_variable(word) for word in value)


def _source(value: object) -> Path:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"must be the path of a folder, relative to this file, not {shown(value)}")
    return Path(value)


def _user(value: object) -> str:
    """Return `uid:gid`. A uid alone gets the group of the same number; the engine would take root's."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value in ("image", OWN_USER):
        return str(value)
    match = re.fullmatch(r"([0-9]{1,9})(?::([0-9]{1,9}))?", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            "must be UID or UID:GID in numbers, image for the image's own user, or own for a uid that no other "
            f"container has, not {shown(value)}"
        )
    user, group = int(match[1]), int(match[2] or match[1])
    if user == 0 or group == 0:
        raise ValueError("must not be 0: functions do not run as root; image keeps the image's own user")
    return f"{user}:{group}"


def container_path(path: str) -> str:
    """Return `path` if something may be mounted at it in a container. Raises ValueError if not."""
    if not path.startswith("/") or any(character in path for character in ":,\0"):
        raise ValueError(f"must be an absolute path without ':' or ',', not {shown(path)}")
    # POSIX gives a leading // a meaning of its own, so normpath keeps it.
    normal = posixpath.normpath("/" + path.lstrip("/"))
    if path != normal:
        raise ValueError(
            f"must be written without '..', '.', '//' or a last '/', as {normal}, not {shown(path)}"
        )
    if path == "/" or any(path == reserved or path.startswith(reserved + "/") for reserved in RESERVED_PATHS):
        raise ValueError(f"must not be / or in {', '.join(RESERVED_PATHS)}, not {shown(path)}")
    return path


def _writable_path(path: str) -> str:
    if container_path(path) == TMP:
        raise ValueError(f"{TMP} is always writable; set its size with `tmp_size`")
    return path


def parse_volume(value: object) -> Mount:
    """Return the mount of `HOST:TARGET`, `HOST:TARGET:ro` or `HOST:TARGET:rw`; read-only unless `rw`.

    Raises ValueError for any other text.
    """
    if isinstance(value, Mount):
        return value
    parts = value.split(":") if isinstance(value, str) else []
    if len(parts) not in (2, 3) or parts[2:] not in ([], ["ro"], ["rw"]):
        raise ValueError(f"must be HOST:TARGET, HOST:TARGET:ro or HOST:TARGET:rw, not {shown(value)}")
    host, target = parts[:2]
    if not host.startswith("/") or "\0" in host:
        raise ValueError(f"HOST must be an absolute path, not {shown(host)}")
    return Mount(host, container_path(target), read_only=parts[2:] != ["rw"])


def _list(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError(f'must be a list, like ["/data:/data:ro"], not {shown(value)}')
    return tuple(value)


NAME = r"[a-z][a-z0-9_-]{0,62}"
_LOWER = "[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
_IMAGE = (
    rf"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?{_LOWER}(?:/{_LOWER})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_WORD = "[A-Za-z_][A-Za-z0-9_]*"
_MEDIA = r"[A-Za-z0-9!#$&^_.+-]+"

FunctionName = Annotated[
    str, text(NAME, "1 to 63 lower-case letters, digits, - or _ with a letter first, to be a function's name")
]
Runtime = Annotated[str, text(NAME, "the name of a runtime")]
Source = Annotated[Path, BeforeValidator(_source)]
HANDLER = rf"{_WORD}(?:\.{_WORD})*:{_WORD}"
Handler = Annotated[str, text(HANDLER, "module:callable, like handler:handle")]
ImageReference = Annotated[str, text(_IMAGE, "an image's name in lower case, like registry/name:tag")]
Port = Annotated[int, whole(1, 65535)]
Health = Annotated[str, text(r"/[!-~]*", "a path that starts with /, like /healthz")]
ContentType = Annotated[
    str, text(rf"{_MEDIA}/{_MEDIA}(?:; ?[ -~]+)?", "a media type, like text/plain; charset=utf-8")
]
Command = Annotated[tuple[str, ...], BeforeValidator(_arguments)]
Switch = Annotated[bool, BeforeValidator(_switch)]
NeverOrDuration = Annotated[
    float | None, BeforeValidator(_never_or_duration), PlainSerializer(_never_or_text)
]
NoneOrCount = Annotated[int | None, BeforeValidator(_none_or_count)]
User = Annotated[str, BeforeValidator(_user)]
Sandbox = Annotated[
    str, text(r"[A-Za-z0-9][A-Za-z0-9_.-]*", "the name of an OCI runtime of the engine, like runsc")
]
Variable = Annotated[str, BeforeValidator(_variable)]
Environment = dict[
    Annotated[str, text(_WORD, "letters, digits and _, not a digit first, to be a variable's name")], Variable
]
Labels = dict[
    Annotated[
        str,
        text(
            r"[A-Za-z0-9](?:[A-Za-z0-9_./-]{0,126}[A-Za-z0-9])?", "letters, digits, . _ / or -, to be a label"
        ),
    ],
    Variable,
]
Writable = dict[
    Annotated[str, AfterValidator(_writable_path)], Annotated[Size, size_between("64KiB", "64GiB")]
]
Volumes = Annotated[
    tuple[Annotated[Mount, BeforeValidator(parse_volume)], ...], BeforeValidator(_list), Field(max_length=64)
]
Prewarm = dict[str, Annotated[int, whole(0, 1000)]]


def _failure(value: object) -> str:
    """Return one item of `retries.on` as text. Raises ValueError."""
    status = value if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        status = int(value)
    if (status is not None and 400 <= status <= 599) or value in FAILURE_KINDS:
        return str(value)
    raise ValueError(
        f"must be one of {', '.join(FAILURE_KINDS)} or a status from 400 to 599, not {shown(value)}"
    )


def _failures(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a list, like [platform, timeout, 503], not {shown(value)}")
    return tuple(value)


class RetryKeys(BaseModel):
    """The keys of `retries`: rules for repeating accepted calls that fail."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    attempts: Annotated[int, whole(1, 100)] = 3
    """Runs of the function at most, the first one included."""
    backoff: Annotated[Duration, duration_between("1ms", "24h")] = 1.0
    """Seconds of pause after the first failure; each further failure doubles it."""
    max_backoff: Annotated[Duration, duration_between("1ms", "24h")] = 300.0
    on: Annotated[tuple[Annotated[str, BeforeValidator(_failure)], ...], BeforeValidator(_failures)] = (
        FAILURE_KINDS
    )


def is_callback(url: str) -> bool:
    """Return whether a URL has the form of a callback URL."""
    try:
        parse_callback(url)
    except ValueError:
        return False
    return True


def _callback(value: str) -> str:
    parse_callback(value)
    return value


CallbackUrl = Annotated[str, AfterValidator(_callback)]
