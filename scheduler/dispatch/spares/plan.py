"""Spares: instances that are kept ready ahead of calls. Pure functions of a snapshot.

A spare serves a call that would otherwise wait for a start and for imports. All spares together take a share of the
memory budget, and go first when memory is needed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pool.instance import Instance
from pool.states import UNUSED, State
from scheduler.dispatch.eviction import KeepAlivePolicy

MOST_SPARES = 8
"""Spares of one revision. A machine starts some 13 containers a second, so more would only last a little longer."""
SERVED = 0.95
"""Part of the calls that shall find a spare. The last ones would cost as much memory as all others."""
RATE_SECONDS = 10.0
"""Time over which the rate of calls is taken: long enough for one call every few seconds to count as a rate."""
SETTLED_SECONDS = 10.0
"""Age from which a spare may give its place to a more valuable one, so that no two take it in turns."""


@dataclass(frozen=True, slots=True)
class SpareSettings:
    """Bounds of the instances that are kept ready ahead of calls."""

    share: float = 0.0
    """Share of the memory budget that spares may take; 0 keeps none."""
    seconds: float = 3600.0
    """Time after the last call, or after a deployment, for which a function is kept ready."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """The rules by which instances are kept that no call uses."""

    policy: KeepAlivePolicy = KeepAlivePolicy.GDSF
    """The rule that picks the instance to evict first."""
    spares: SpareSettings = SpareSettings()


NO_SPARES = Keeping()
"""The rules where nothing is started ahead of calls."""


class CallRate(NamedTuple):
    """The recent rate of calls: how many there were, an old one counting less."""

    calls: float
    at: float

    def after(self, now: float) -> CallRate:
        """Return the rate after one more call."""
        return CallRate(self._left(now) + 1.0, now)

    def per_second(self, now: float) -> float:
        """Return the calls a second."""
        return self._left(now) / RATE_SECONDS

    def _left(self, now: float) -> float:
        return self.calls * math.exp((self.at - now) / RATE_SECONDS)


NO_CALLS = CallRate(0.0, 0.0)


def spares_for(rate: float, start_seconds: float) -> int:
    """Return how many single-use instances calls of this rate want ready, from 1 to `MOST_SPARES`.

    It is the smallest number with which `SERVED` of the calls find one. Calls are taken as independent of each other,
    so the number that comes while one instance is started has a Poisson distribution.
    """
    meanwhile = rate * start_seconds
    chance = served = math.exp(-meanwhile)
    spares = 1
    while served < SERVED and spares < MOST_SPARES:
        chance *= meanwhile / spares
        served += chance
        spares += 1
    return spares


@dataclass(frozen=True, slots=True)
class SpareNeed:
    """A revision that is kept ready, at one moment. Memory in bytes."""

    name: str
    memory: int
    """Memory of one instance."""
    value: float
    """GreedyDual-Size-Frequency priority: the most valuable revision gets its spares first."""
    wanted: int
    """Instances that shall be ready, spares or not; 0 if it is no longer kept ready."""
    others: int
    """Instances that serve it and are no spares."""
    spares: Sequence[Spare]
    """The first to go comes first."""
    startable: bool
    """False while it has no place for another instance, or its starts fail."""


class Spare(NamedTuple):
    """A spare of a revision."""

    id: str
    age: float
    """Seconds since it became ready; 0 while it is being started."""


@dataclass(frozen=True, slots=True)
class SparePlan:
    """The spares to keep, and the next step towards them: at most one of `start` and `removed` says something."""

    kept: Mapping[str, int]
    """By revision: instances that stay ready, those that are no spares included."""
    start: str | None = None
    """Revision that gets a spare now."""
    removed: Sequence[str] = ()
    """Spares that give their place to more valuable ones."""
    taker: str = ""
    """Revision that the place is for."""


def plan_spares(budget: int, free: int, needs: Sequence[SpareNeed]) -> SparePlan:
    """Return the spares to keep within `budget` bytes, and the next step, for which `free` bytes of memory are free.

    Each revision gets its first spare, the most valuable first, then each its second one, and so on. Nothing but
    less valuable spares gives memory up for it.
    """
    kept, left = Counter[str](), budget
    missing: list[SpareNeed] = []
    for place, need in _in_order(needs):
        cost = 0 if place < need.others else need.memory
        if cost > left:
            continue
        left -= cost
        kept[need.name] += 1
        if need.startable and place >= need.others + len(need.spares):
            missing.append(need)
    held = sum(need.memory * len(need.spares) for need in needs)
    surplus = list(_surplus(needs, kept))
    for need in missing:
        lacking = max(held + need.memory - budget, need.memory - free)
        if lacking <= 0:
            return SparePlan(kept, start=need.name)
        removed = _enough(lacking, surplus)
        if removed:
            return SparePlan(kept, removed=removed, taker=need.name)
    return SparePlan(kept)


def _in_order(needs: Iterable[SpareNeed]) -> Iterator[tuple[int, SpareNeed]]:
    """Yield each instance that is wanted: its number among those of its revision, from 0, and the revision."""
    wanted = [(place, need) for need in needs for place in range(need.wanted)]
    yield from sorted(wanted, key=lambda one: (one[0], -one[1].value, one[1].name))


def _surplus(needs: Iterable[SpareNeed], kept: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Yield id and memory of the spares that have no place in the plan, the least valuable first."""
    for need in sorted(needs, key=lambda need: (need.value, need.name)):
        beyond = need.others + len(need.spares) - max(kept.get(need.name, 0), need.others)
        for spare in need.spares[: max(0, beyond)]:
            if spare.age >= SETTLED_SECONDS:
                yield spare.id, need.memory


def _enough(lacking: int, surplus: Iterable[tuple[str, int]]) -> list[str]:
    """Return the first spares that together have so much memory, or none if all have not."""
    chosen: list[str] = []
    for id, memory in surplus:
        if lacking <= 0:
            break
        chosen.append(id)
        lacking -= memory
    return chosen if lacking <= 0 else []


def is_spare(instance: Instance, now: float) -> bool:
    """Return whether an instance of a revision that is kept ready is a spare: it has served no call, or none for its
    `keep_alive`. One that is being started is a spare if no call waits for it, which the caller has to know."""
    workload = instance.workload
    if instance.state not in UNUSED:
        return instance.state in (State.STARTING, State.SPECIALISING)
    return not instance.served or (workload is not None and now - instance.last_used >= workload.keep_alive)
