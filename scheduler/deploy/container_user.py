"""The user of a function's containers, and what programs in them find out about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from pool.engine.base import Image
from pool.host.passwd import HOME, USER_NAME, number_of, users_in, with_user
from pool.host.uids import OWN_USER, SHARED_USER
from scheduler.definitions.container_keys import ContainerKeys

UNKNOWN_USER = {"HOME": HOME, "USER": USER_NAME, "LOGNAME": USER_NAME}
"""Variables in which programs look up a user that the image does not know."""
CACHES = {
    "XDG_CACHE_HOME": f"{HOME}/.cache",
    "MPLCONFIGDIR": f"{HOME}/.cache/matplotlib",
    "NUMBA_CACHE_DIR": f"{HOME}/.cache/numba",
}
"""Folders where libraries may write. The home of a user that the image knows is read-only, as its whole root."""


@dataclass(frozen=True, slots=True)
class ContainerUser:
    """The user of a container."""

    user: str | None
    """For `ContainerSpec.user`."""
    variables: Mapping[str, str]
    """Variables that replace what a login would set, without those that the image sets."""
    passwd: bytes | None
    """Content of its /etc/passwd, or None for the image's: it knows the user, or it cannot be read."""


def user_of(keys: ContainerKeys) -> str | None:
    """Return the user of a function's containers, for `ContainerSpec.user`.

    Files in a writable volume outlive the container that wrote them, so their owner must stay the same.
    """
    if keys.user == "image":
        return None
    keeps_files = any(not volume.read_only for volume in keys.volumes)
    return SHARED_USER if keys.user == OWN_USER and keeps_files else keys.user


def container_user(keys: ContainerKeys, image: Image, passwd: bytes | None) -> ContainerUser:
    """Return the user of containers with these keys. `passwd` is the image's, or None if it cannot be read."""
    user = user_of(keys)
    if user == OWN_USER:
        return ContainerUser(user, _variables(False, image.variables), passwd)
    uid, _, gid = (image.user if user is None else user).partition(":")
    number = number_of(uid) if uid else 0
    if not number or number in {known for _, known in users_in(passwd or b"")}:  # a name, root, or known
        return ContainerUser(user, _variables(True, image.variables), None)
    lines = None if passwd is None else with_user(passwd, number, number_of(gid) or 0)
    return ContainerUser(user, _variables(False, image.variables), lines)


@lru_cache(maxsize=256)  # thousands of functions share one
def _variables(known: bool, given: frozenset[str]) -> Mapping[str, str]:
    """Return the variables for a user that the image knows, or not, without those that it sets."""
    all_of_them = CACHES if known else UNKNOWN_USER | CACHES
    return {name: value for name, value in all_of_them.items() if name not in given}
