"""The Prefer header (RFC 7240). Hearth knows `respond-async` and `wait=SECONDS`. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

CALLBACK = b"x-hearth-callback"
MAX_WAIT_SECONDS = 300.0
"""Longest wait for the answer of an accepted call. A longer `wait` is shortened to this."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """Wishes of a client. `wait` is in seconds, or None not to wait."""

    respond_async: bool = False
    wait: float | None = None
    callbacks: tuple[str, ...] = ()
    """Every URL given for a callback. Only one is allowed; the reader of these checks that."""

    def applied(self) -> bytes:
        """Return the value of Preference-Applied."""
        return b"respond-async" if self.wait is None else b"respond-async, wait=%g" % self.wait


def preferences(headers: Iterable[tuple[bytes, bytes]]) -> Preferences:
    """Return the preferences in a request's headers. The first of two equal ones counts.

    Unknown and malformed ones are ignored, as the RFC demands.
    """
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
                    wait = min(float(text), MAX_WAIT_SECONDS)
    return Preferences(respond_async, wait, tuple(callbacks))
