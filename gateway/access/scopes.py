"""Scopes of a key: the functions that it may invoke, its other rights, and the scope that each route needs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

from pool.workload import is_private

Right = Literal["read", "deploy", "admin"]
RIGHTS: tuple[Right, ...] = get_args(Right)

ROUTES: tuple[tuple[str, str, Right | Literal["invoke"] | None], ...] = (
    ("GET", "/functions", "read"),
    ("GET", "/functions/{name}", "read"),
    ("GET", "/pool", "read"),
    ("GET", "/pool/instances", "read"),
    ("GET", "/pool/instances/{id}", "read"),
    ("DELETE", "/pool/instances/{id}", "deploy"),
    ("GET", "/pool/instances/{id}/logs", "read"),
    ("GET", "/calls", "invoke"),
    ("GET", "/calls/times", "invoke"),
    ("GET", "/calls/{id}", "invoke"),
    ("GET", "/invocations", "invoke"),
    ("GET", "/invocations/{id}", "invoke"),
    ("GET", "/invocations/{id}/result", "invoke"),
    ("DELETE", "/invocations/{id}", "invoke"),
    ("POST", "/invocations/{id}/retry", "invoke"),
    ("GET", "/invocations/{id}/logs", "read"),
    ("GET", "/logs", "invoke"),
    ("GET", "/dead-letters", "read"),
    ("POST", "/dead-letters/redrive", "deploy"),
    ("DELETE", "/dead-letters", "deploy"),
    ("GET", "/workflows", "invoke"),
    ("GET", "/workflows/{name}", "invoke"),
    ("GET", "/workflows/{name}/graph.svg", "invoke"),
    ("POST", "/workflows/{name}", "invoke"),
    ("GET", "/runs", "invoke"),
    ("GET", "/runs/{id}", "invoke"),
    ("GET", "/runs/{id}/output", "invoke"),
    ("GET", "/runs/{id}/graph.svg", "invoke"),
    ("GET", "/runs/{id}/steps/{step}", "invoke"),
    ("DELETE", "/runs/{id}", "invoke"),
    ("POST", "/runs/{id}/resume", "invoke"),
    ("POST", "/jobs", "invoke"),
    ("GET", "/jobs", "invoke"),
    ("GET", "/jobs/{id}", "invoke"),
    ("DELETE", "/jobs/{id}", "invoke"),
    ("POST", "/jobs/{id}/cancel", "invoke"),
    ("POST", "/jobs/{id}/retry", "invoke"),
    ("GET", "/jobs/{id}/tasks", "invoke"),
    ("GET", "/triggers", "read"),
    ("GET", "/triggers/{name}", "read"),
    ("PUT", "/triggers/{name}", "deploy"),
    ("DELETE", "/triggers/{name}", "deploy"),
    ("POST", "/triggers/{name}/pause", "deploy"),
    ("POST", "/triggers/{name}/resume", "deploy"),
    ("POST", "/triggers/{name}/fire", "deploy"),
    ("POST", "/events", "invoke"),
    ("POST", "/hooks/{trigger}", None),
    ("GET", "/sources", "read"),
    ("GET", "/sources/{name}", "read"),
    ("GET", "/metrics", "read"),
    ("GET", "/healthz", None),
    ("GET", "/readyz", None),
    ("GET", "/docs", None),
    ("GET", "/docs/files/{path}", None),
    ("GET", "/openapi.json", None),
)
"""All routes except /invoke: method, path, and the scope that it needs.

None means no key: probes have none, webhooks have a signature instead, and a browser that opens the docs page has
none yet. `invoke` means any key: the route itself checks it against the functions or the job concerned. A route that
is missing here needs `admin`, so that one that was forgotten is closed.
"""

LONGEST_NAME = 63
"""Bound of the characters of a function's name."""
MOST_STARS = 2
"""Bound of the wildcards in one scope: the time of matching grows with each."""

_WORD = re.compile(rf"invoke:[a-z0-9_*-]{{1,{LONGEST_NAME + MOST_STARS}}}|" + "|".join(RIGHTS))
_MATCHERS = tuple(
    (method, re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), right) for method, path, right in ROUTES
)


@dataclass(frozen=True)
class Scopes:
    """The rights of a key, as words: `invoke:NAME`, `read`, `deploy`, `admin`. `parse_scopes` makes it.

    A `*` in `NAME` matches any characters. `admin` includes everything.
    """

    words: tuple[str, ...]
    _rights: frozenset[str] = field(init=False, repr=False, compare=False)
    _names: frozenset[str] = field(init=False, repr=False, compare=False)
    _patterns: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)
    _any_function: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        functions = [word.removeprefix("invoke:") for word in self.words if word.startswith("invoke:")]
        rights = frozenset(RIGHTS if "admin" in self.words else self.words)
        patterns = tuple(re.compile(name.replace("*", ".*"), re.DOTALL) for name in functions if "*" in name)
        object.__setattr__(self, "_rights", rights)
        object.__setattr__(self, "_names", frozenset(functions))
        object.__setattr__(self, "_patterns", patterns)
        object.__setattr__(self, "_any_function", "admin" in rights or "*" in functions)

    @property
    def any_function(self) -> bool:
        """Return whether every function may be called."""
        return self._any_function

    def may_invoke(self, function: str) -> bool:
        """Return whether a function of this name may be called. No pattern covers a job's private function."""
        return (
            self._any_function
            or function in self._names
            or (len(function) <= LONGEST_NAME and not is_private(function) and self._matches(function))
        )

    def _matches(self, function: str) -> bool:
        return any(pattern.fullmatch(function) for pattern in self._patterns)

    def has(self, right: Right) -> bool:
        """Return whether the scopes include this right."""
        return right in self._rights


def parse_scopes(words: Iterable[str]) -> Scopes:
    """Return the scopes of these words, each once. Raises ValueError; it repeats no word, which may be a secret."""
    unique = tuple(dict.fromkeys(words))
    for number, word in enumerate(unique, 1):
        if not _WORD.fullmatch(word) or word.count("*") > MOST_STARS:
            raise ValueError(
                f"scope {number} is invalid; use {', '.join(RIGHTS[:-1])}, {RIGHTS[-1]} or invoke:NAME "
                f"(at most {MOST_STARS} wildcards *)"
            )
    if not unique:
        raise ValueError(f"no scope is given; use invoke:NAME, {', '.join(RIGHTS[:-1])} or {RIGHTS[-1]}")
    return Scopes(unique)


def right_for(method: str, path: str) -> Right | Literal["invoke"] | None:
    """Return the scope that a request needs, or None if it needs no key. Paths below /invoke/ are not for this."""
    for known, pattern, right in _MATCHERS:
        if method == known and pattern.fullmatch(path):
            return right
    return "admin"
