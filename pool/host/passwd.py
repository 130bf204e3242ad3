"""Lines of `/etc/passwd`, also for users that an image does not know.

A program whose user has no line cannot find its name or its home: Python's `getpass.getuser()` fails, and the engine
sets HOME to `/`, where nothing can be written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

USER_NAME = "function"
HOME = "/tmp"  # noqa: S108  in the container, where it is a tmpfs of its own


def number_of(uid: str) -> int | None:
    """Return the number in the text of a uid, or None if it is a name. Engines read `+7` and `007` as 7."""
    match = re.fullmatch(r"([+-]?)0*([0-9]{1,18})", uid)
    return int(match[1] + match[2]) if match else None


def users_in(passwd: bytes) -> Iterator[tuple[str, int | None]]:
    """Yield name and uid of each line of a passwd file. The uid is None if it is not a number."""
    for line in passwd.split(b"\n"):
        fields = line.strip().decode(errors="surrogateescape").split(":")
        if len(fields) > 2:
            yield fields[0], number_of(fields[2])


def with_user(passwd: bytes, uid: int, gid: int) -> bytes:
    """Return a passwd file with a line for a user, before all others: the image may have given the name away."""
    return f"{USER_NAME}:x:{uid}:{gid}:{USER_NAME}:{HOME}:/bin/sh\n".encode() + passwd
