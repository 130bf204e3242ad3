"""Allow-list of environment variables that a trigger made over the API may name for its secret.

Without it, a caller who makes triggers could explore the gateway's environment: the names of variables, and their
values by means of signed messages. The author of functions.yaml is trusted and not restricted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SETTING = "HEARTH_ALLOWED_SECRETS"
PREFIX = "HEARTH_SECRET_"
"""Prefix of the variables that are allowed by default."""
_ENTRY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?|\*")


@dataclass(frozen=True, slots=True)
class SecretNames:
    """An allow-list of variable names. An entry that ends with `*` allows every name with that prefix.

    Raises ValueError for an entry of another form.
    """

    entries: tuple[str, ...] = (f"{PREFIX}*",)

    def __post_init__(self) -> None:
        for entry in self.entries:
            if not _ENTRY.fullmatch(entry):
                raise ValueError(
                    f"{entry!r} is not valid; write the name of a variable, or a prefix followed by *"
                )

    def allow(self, name: str) -> bool:
        """Return whether a variable may be named."""
        return any(
            name.startswith(entry[:-1]) if entry.endswith("*") else name == entry for entry in self.entries
        )

    def check(self, name: str) -> None:
        """Raise ValueError, with advice, if a variable may not be named. Its value is not looked at."""
        if not self.allow(name):
            raise ValueError(
                f"{name} is not among the variables that may be named over the API "
                f"({', '.join(self.entries) or 'none'}); name one of them, add it to {SETTING}, "
                "or declare the trigger in functions.yaml"
            )
