"""Which variables of the gateway a trigger that was made over the API may name for its secret.

Without a list, whoever makes triggers could learn of the gateway's whole environment: which variables there are, and
by signed messages what is in them. The author of functions.yaml is trusted with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SETTING = "HEARTH_ALLOWED_SECRETS"
PREFIX = "HEARTH_SECRET_"
"""What the variables that may be named by default begin with."""
_ENTRY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?|\*")


@dataclass(frozen=True, slots=True)
class SecretNames:
    """An allow-list of names. One that ends with `*` allows all that begin so.

    Raises ValueError for an entry that is no name.
    """

    entries: tuple[str, ...] = (f"{PREFIX}*",)

    def __post_init__(self) -> None:
        for entry in self.entries:
            if not _ENTRY.fullmatch(entry):
                raise ValueError(
                    f"{entry!r} is neither the name of a variable nor the beginning of names with a * behind"
                )

    def allow(self, name: str) -> bool:
        """Return whether a variable may be named."""
        return any(
            name.startswith(entry[:-1]) if entry.endswith("*") else name == entry for entry in self.entries
        )

    def check(self, name: str) -> None:
        """Raise ValueError, with what to do, unless a variable may be named; whether it is set is not looked at."""
        if not self.allow(name):
            raise ValueError(
                f"{name} is not among the variables that may be named over the API "
                f"({', '.join(self.entries) or 'none'}); name one of them, have {SETTING} list it, "
                "or declare the trigger in functions.yaml"
            )
