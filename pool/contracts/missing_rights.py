"""Advice for a program that a container gives fewer rights than it expects of root."""

from __future__ import annotations

import re

from pool.instance import Instance

NEEDED = {
    "chown": re.compile(r"\b[fl]?chown(?:at)?\b.*\bnot permitted", re.IGNORECASE),
    "setgid": re.compile(r"\b(?:set(?:res|re|e)?gid|(?:set|init)groups)\b.*\bnot permitted", re.IGNORECASE),
    "setuid": re.compile(
        r"\b(?:set(?:res|re|e)?uid\b|failed switching to\b).*\bnot permitted", re.IGNORECASE
    ),
}
"""By capability: what a line says if a call of the system was refused for want of it. The last knows gosu too."""


def missing_right(printed: str, instance: Instance) -> str:
    """Return which capability an instance's program lacks and how to give it, as part of an error.

    An empty string if what it printed tells of none.
    """
    given = instance.workload.container.capabilities if instance.workload is not None else ()
    for name, said in NEEDED.items():
        if name not in given and any(said.search(line) for line in printed.splitlines()):
            return (
                f"; it lacks the capability {name}, so write `user: image` and "
                f"`capabilities: [{', '.join(NEEDED)}]`, and set HEARTH_ALLOWED_CAPABILITIES={','.join(NEEDED)}, "
                "or start the program as a user of its own"
            )
    return ""
