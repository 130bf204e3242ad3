"""Which uid each container runs as. Bookkeeping only: nothing here asks the engine or the kernel.

The kernel counts much by uid: pending signals, inotify instances, file descriptors on their way through sockets.
Containers that share a uid take these from each other, so each container has one of its own.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pool.engine.base import ContainerSpec
from pool.errors import StartFailed

OWN_USER = "own"
"""`ContainerSpec.user` of a prototype whose containers each get a uid of their own."""
SHARED_USER = "65532:65532"
"""User of what must keep its uid but names none, and of every container before each had its own."""
OWN_GID = 65532
"""Group of a container with its own uid. The kernel counts nothing by group, and images may have files of it."""
UID_LABEL = "org.hearth.uid"
"""Label of a container with a uid of its own: that uid, in decimal."""
LOWEST_UID = 1000
"""Distributions give lower ids to the system's own users."""
HIGHEST_UID = 2**31 - 1
"""Engines refuse higher ids."""
SMALLEST_RANGE = 4096
"""Ids: as many containers as 24 GiB of memory hold, of the 6 MiB that an instance has at least."""
TAKEN_BY_OTHERS = range(65532, 65536)
"""`SHARED_USER`, and the ids of nobody."""
MAPPED_IDS = 65536
"""Ids that a container has on an engine with user namespaces."""
RESTING_UIDS = 1024
"""Uids of removed containers that are not given out yet. The kernel may finish some work after a removal."""


@dataclass(frozen=True, slots=True)
class UidRange:
    """Uids from `first` to `last`, both among them."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> UidRange:
        """Return the range that `FIRST-LAST` names. Raises ValueError unless containers may have all of its ids."""
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
"""Ids that systemd's list of conventions calls unused: no user, service or nested container has them."""
MAPPED_UIDS = UidRange(30_000, 65_000)
"""Ids for an engine with user namespaces. Its containers have no others, and no user of the host has these."""


def usable_range(wanted: UidRange, user_namespaces: bool) -> UidRange:
    """Return the range to use: `wanted`, or `MAPPED_UIDS` where containers do not have all of its ids."""
    return MAPPED_UIDS if user_namespaces and wanted.last >= MAPPED_IDS else wanted


class Uids:
    """The uids of one gateway's containers. A uid is free, held by a container, or at rest after its removal.

    Each process begins at a random place of the range and goes upwards, so that a uid returns as late as possible,
    and so that gateways with the same range hardly meet. They do not ask each other.
    """

    def __init__(self, ids: UidRange = DEFAULT_UIDS) -> None:
        self._held = Counter[int]()
        self._resting: dict[int, None] = {}
        self.use(ids)

    def use(self, ids: UidRange, begin_at: int | None = None) -> None:
        """Give out uids of this range from now on, from `begin_at` or a random one. What is held stays so."""
        self.ids = ids
        self.next = ids.first + secrets.randbelow(len(ids)) if begin_at is None else begin_at
        """The uid that is looked at first when one is wanted."""

    def free(self) -> int | None:
        """Return a uid that no container has, or None if all are held. Call `hold` before asking again."""
        for _ in range(min(len(self.ids), len(self._held) + len(self._resting) + 1)):
            uid = self.next
            self.next = uid + 1 if uid < self.ids.last else self.ids.first
            if uid not in self._held and uid not in self._resting:
                return uid
        return next((uid for uid in self._resting if self.ids.first <= uid <= self.ids.last), None)

    def covers(self, uid: int) -> bool:
        """Return whether `uid` is one of those that are given out."""
        return self.ids.first <= uid <= self.ids.last

    def hold(self, uid: int) -> None:
        """Note that one more container has this uid."""
        self._resting.pop(uid, None)
        self._held[uid] += 1

    def let_go(self, uid: int) -> None:
        """Note that a container with this uid is gone for certain. The uid rests before it is used again."""
        self._held[uid] -= 1
        if self._held[uid] > 0:  # found twice, as after a restored copy of a data folder
            return
        del self._held[uid]
        self._resting[uid] = None
        if len(self._resting) > RESTING_UIDS:
            del self._resting[next(iter(self._resting))]

    @property
    def held(self) -> frozenset[int]:
        """Uids of containers that are there."""
        return frozenset(self._held)


def with_uid(prototype: ContainerSpec, uid: int | None) -> ContainerSpec:
    """Return the prototype with a uid in place of `OWN_USER`; another user is left as it is.

    Raises `StartFailed` if a uid is wanted and there is none.
    """
    if prototype.user != OWN_USER:
        return prototype
    if uid is None:
        raise StartFailed(
            "every uid of the setting HEARTH_UIDS is in use by a container; give it a larger range, or the "
            "functions fewer max_instances"
        )
    return replace(
        prototype,
        user=f"{uid}:{OWN_GID}",
        labels={**prototype.labels, UID_LABEL: str(uid)},
        env={**prototype.own_user_env, **prototype.env},
    )


def as_before_uids(prototype: ContainerSpec) -> ContainerSpec:
    """Return the prototype as it was when all containers shared a user: a restart still adopts what is of then."""
    return replace(prototype, user=SHARED_USER) if prototype.user == OWN_USER else prototype


def number_of(uid: str) -> int | None:
    """Return the uid that a text stands for, or None if it is a name. Engines read `+7` and `007` as 7."""
    match = re.fullmatch(r"([+-]?)0*([0-9]{1,18})", uid)
    return int(match[1] + match[2]) if match else None


def uid_of(labels: Mapping[str, str]) -> int | None:
    """Return the uid that a container of ours has for its own, by its labels, or None if it shares one."""
    given = labels.get(UID_LABEL, "")
    return int(given) if re.fullmatch(r"[0-9]{1,10}", given) else None
