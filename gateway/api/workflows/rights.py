"""The rights of a caller over workflows and runs: those of all functions that they call."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gateway.access.access import CURRENT
from gateway.http.problems import Problem


def may_see(functions: Iterable[str]) -> bool:
    """Return whether the caller may see something that calls these functions."""
    return sight()(functions)


def sight() -> Callable[[Iterable[str]], bool]:
    """Return `may_see` of this caller, for a thread of the store, which has no request."""
    may_name = CURRENT.get().may_name
    return lambda functions: all(map(may_name, functions))


def check_may_start(functions: Iterable[str], deed: str) -> None:
    """Raise `Problem` unless the caller may invoke all of these functions."""
    for function in functions:
        if not CURRENT.get().may_invoke(function):
            raise Problem("forbidden", f"only a key that may invoke {function} {deed}")
