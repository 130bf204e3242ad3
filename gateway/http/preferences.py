"""The Prefer header (RFC 7240), as far as Hearth knows it: `respond-async` and `wait=SECONDS`. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

CALLBACK = b"x-hearth-callback"
LONGEST_WAIT = 300.0
"""Seconds that an answer may be waited for; a longer wish is shortened to this."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """What the client would like. `wait` in seconds; None: not to wait."""

    respond_async: bool = False
    wait: float | None = None
    callbacks: tuple[str, ...] = ()
    """URLs that it asks to be told of the end: all that were given, where one makes sense."""

    def applied(self) -> bytes:
        """The value of Preference-Applied."""
        return b"respond-async" if self.wait is None else b"respond-async, wait=%g" % self.wait


def preferences(headers: Iterable[tuple[bytes, bytes]]) -> Preferences:
    """Read them. Others, and those that make no sense, are ignored, as the RFC wants it; of two the first counts."""
    respond_async, wait = False, None
    callbacks: list[str] = []
    for name, value in headers:
        if name == CALLBACK:
            callbacks.append(value.decode("latin-1"))
        if name != b"prefer":
            continue
        for preference in value.decode("latin-1").split(","):
            token, _, given = preference.partition(";")[0].partition("=")
            match token.strip().lower():
                case "respond-async":
                    respond_async = True
                case "wait" if (
                    wait is None and (text := given.strip().strip('"')).isascii() and text.isdigit()
                ):
                    wait = min(float(text), LONGEST_WAIT)
    return Preferences(respond_async, wait, tuple(callbacks))
