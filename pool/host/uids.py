"""Uids that containers run as. Bookkeeping only: nothing here asks the engine or the kernel.

The kernel limits pending signals, inotify instances and file descriptors in flight by uid. Containers with one uid
would share these limits, so each container has its own.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pool.engine.base import ContainerSpec
from pool.errors import StartFailed
from pool.host.passwd import with_user

OWN_USER = "own"
"""`ContainerSpec.user` of a prototype whose containers get a uid each."""
SHARED_USER = "65532:65532"
"""User of a container that must keep its uid but names none. Earlier releases gave it to every container."""
OWN_GID = 65532
"""Group of a container with its own uid.

The kernel limits nothing by group, and images may have files of this one.
"""
UID_LABEL = "org.hearth.uid"
"""Label that holds the uid of a container with its own, in decimal."""
LOWEST_UID = 1000
"""Smallest id of a range. Distributions give lower ids to the system's own users."""
HIGHEST_UID = 2**31 - 1
"""Largest id of a range. Engines refuse higher ids."""
SMALLEST_RANGE = 4096
"""Least number of ids in a range: 24 GiB of memory hold that many instances of 6 MiB, the smallest."""
TAKEN_BY_OTHERS = range(65532, 65536)
"""Ids that no range may include: `SHARED_USER`, and the ids of nobody."""
MAPPED_IDS = 65536
"""Number of ids that a container has on an engine with user namespaces."""
RESTING_UIDS = 1024
"""Number of uids of removed containers that are not reused yet: the kernel may finish work after a removal."""


@dataclass(frozen=True, slots=True)
class UidRange:
    """Uids from `first` to `last`, both included."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> UidRange:
        """Return the range that `FIRST-LAST` names. Raises ValueError if containers may not have all of its ids."""
        match = re.fullmatch(r"\s*([0-9]{1,10})\s*-\s*([0-9]{1,10})\s*", text)
        if match is None:
            raise ValueError(f"must be FIRST-LAST in numbers, like {DEFAULT_UIDS}, not {text!r}")
        ids = cls(int(match[1]), int(match[2]))
        if not LOWEST_UID <= ids.first <= ids.last <= HIGHEST_UID:
            raise ValueError(
                f"must go upwards and lie between {LOWEST_UID} and {HIGHEST_UID} (lower ids are the system's own), "
                f"not {ids}"
            )
        if len(ids) < SMALLEST_RANGE:
            raise ValueError(
                f"must have at least {SMALLEST_RANGE} ids, one for each container, not {len(ids)}"
            )
        if ids.first < TAKEN_BY_OTHERS.stop and ids.last >= TAKEN_BY_OTHERS.start:
            reserved = f"{TAKEN_BY_OTHERS.start} to {TAKEN_BY_OTHERS.stop - 1}"
            raise ValueError(f"must not include {reserved}, which others run as, as {ids} does")
        return ids

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


DEFAULT_UIDS = UidRange(0x70000000, 0x7FFDFFFF)
"""Default range. systemd's list of uid conventions calls it unused: no user, service or nested container has it."""
MAPPED_UIDS = UidRange(30_000, 65_000)
"""Range for an engine with user namespaces.

It maps only ids below `MAPPED_IDS`, none of them to a user of the host.
"""


def usable_range(wanted: UidRange, user_namespaces: bool) -> UidRange:
    """Return `wanted`, or `MAPPED_UIDS` if containers lack some of its ids."""
    return MAPPED_UIDS if user_namespaces and wanted.last >= MAPPED_IDS else wanted


class Uids:
    """Uids of one gateway's containers. A uid is free, held by a container, or at rest after its removal.

    Each process begins at a random place of the range and goes upwards. So a uid is reused as late as possible, and
    gateways with the same range rarely use the same uid. They do not ask each other.
    """

    def __init__(self, ids: UidRange = DEFAULT_UIDS) -> None:
        self._held = Counter[int]()
        self._resting: dict[int, None] = {}
        self.use(ids)

    def use(self, ids: UidRange, begin_at: int | None = None) -> None:
        """Give out uids of this range from now on, from `begin_at` or a random one. Held uids stay held."""
        self.ids = ids
        self.next = ids.first + secrets.randbelow(len(ids)) if begin_at is None else begin_at
        """Uid that `free` tries first."""

    def free(self) -> int | None:
        """Return a uid that no container has, or None if all are held. Call `hold` before asking again."""
        for _ in range(min(len(self.ids), len(self._held) + len(self._resting) + 1)):
            uid = self.next
            self.next = uid + 1 if uid < self.ids.last else self.ids.first
            if uid not in self._held and uid not in self._resting:
                return uid
        return next((uid for uid in self._resting if self.ids.first <= uid <= self.ids.last), None)

    def covers(self, uid: int) -> bool:
        """Return whether `uid` is in the range."""
        return self.ids.first <= uid <= self.ids.last

    def hold(self, uid: int) -> None:
        """Note that one more container has this uid."""
        self._resting.pop(uid, None)
        self._held[uid] += 1

    def let_go(self, uid: int) -> None:
        """Note that a container with this uid is certainly gone. The uid rests before it is used again."""
        self._held[uid] -= 1
        if self._held[uid] > 0:  # two containers had it, as after restoring a copy of a data folder
            return
        del self._held[uid]
        self._resting[uid] = None
        if len(self._resting) > RESTING_UIDS:
            del self._resting[next(iter(self._resting))]

    @property
    def held(self) -> frozenset[int]:
        """Return the uids of existing containers."""
        return frozenset(self._held)


def with_uid(prototype: ContainerSpec, uid: int | None) -> ContainerSpec:
    """Return the prototype with its usual variables, and with `uid` in place of `OWN_USER`; another user stays.

    Raises `StartFailed` if the prototype wants a uid and `uid` is None.
    """
    if prototype.usual_env:
        prototype = replace(prototype, env={**prototype.usual_env, **prototype.env})
    if prototype.user != OWN_USER:
        return prototype
    if uid is None:
        raise StartFailed(
            "containers use every uid of the setting HEARTH_UIDS; set a larger range, or lower max_instances"
        )
    return replace(
        prototype,
        user=f"{uid}:{OWN_GID}",
        labels={**prototype.labels, UID_LABEL: str(uid)},
        passwd=None if prototype.passwd is None else with_user(prototype.passwd, uid, OWN_GID),
    )


def as_before_uids(prototype: ContainerSpec) -> ContainerSpec:
    """Return the prototype with the user that earlier releases gave to all, so that we adopt their containers."""
    return replace(prototype, user=SHARED_USER) if prototype.user == OWN_USER else prototype


def uid_of(labels: Mapping[str, str]) -> int | None:
    """Return a container's own uid, read from its labels, or None if it shares one."""
    given = labels.get(UID_LABEL, "")
    return int(given) if re.fullmatch(r"[0-9]{1,10}", given) else None
