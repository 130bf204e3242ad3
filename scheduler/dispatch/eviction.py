"""Order in which idle instances are evicted for memory: pure functions of a snapshot.

There is no I/O and no clock, so a simulator can measure the code that runs in production.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pool.instance import Instance

MIB = 2**20


class KeepAlivePolicy(StrEnum):
    """The rule that picks the instance to evict first."""

    GDSF = "gdsf"
    """Lowest priority first: rarely called, cheap to start, large, unused since other evictions."""
    LRU = "lru"
    """Least recently used first."""
    TTL = "ttl"
    """Earliest end of `keep_alive` first."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An idle instance that may be evicted, with measurements of its function."""

    instance: Instance
    frequency: int
    """Calls of its function on all instances, since it last had no instance."""
    cost: float
    """Seconds to start it again."""
    spare: bool = False
    """True if nobody called it: docs/pool.md#spares."""

    @property
    def size(self) -> float:
        """Return its memory in MiB, at least 1: measured if known, else declared."""
        instance = self.instance
        return max(1.0, (instance.memory if instance.measured is None else instance.measured) / MIB)

    @property
    def priority(self) -> float:
        """Return its GreedyDual-Size-Frequency priority: clock at last use + frequency × cost / size."""
        return gdsf_priority(self.instance.clock, self.frequency, self.cost, self.size)

    @property
    def expires(self) -> float:
        """Return when its `keep_alive` ends, in seconds of the clock."""
        workload = self.instance.workload
        return self.instance.last_used + (workload.keep_alive if workload else 0.0)


def gdsf_priority(clock: float, frequency: int, cost: float, size: float) -> float:
    """Return a GreedyDual-Size-Frequency priority; `cost` in seconds, `size` in MiB."""
    return clock + frequency * cost / size


def eviction_order(candidates: Iterable[Candidate], policy: KeepAlivePolicy) -> list[Candidate]:
    """Return the candidates in the order of eviction: spares first, and among equals the least recently used."""
    keys = {
        KeepAlivePolicy.GDSF: lambda c: (not c.spare, c.priority, c.instance.last_used),
        KeepAlivePolicy.LRU: lambda c: (not c.spare, c.instance.last_used),
        KeepAlivePolicy.TTL: lambda c: (not c.spare, c.expires, c.instance.last_used),
    }
    return sorted(candidates, key=keys[policy])


def limit_to_surplus(candidates: Iterable[Candidate], surplus: Mapping[str, int]) -> list[Candidate]:
    """Return at most `surplus` candidates of each function, the first ones; the others are its `min_instances`."""
    left = dict(surplus)
    kept = []
    for candidate in candidates:
        name = candidate.instance.function or ""
        if left.get(name, 0) > 0:
            left[name] -= 1
            kept.append(candidate)
    return kept


def choose_victims(
    needed: int, idle: Sequence[Candidate], prewarmed: Iterable[Instance]
) -> Sequence[Instance] | None:
    """Return the instances to evict to free `needed` bytes, or None if all together are not enough.

    Idle ones go in the given order, then prewarmed ones, oldest first.
    """
    victims: list[Instance] = []
    for instance in (*(c.instance for c in idle), *sorted(prewarmed, key=lambda i: i.last_used)):
        if needed <= 0:
            break
        victims.append(instance)
        needed -= instance.memory
    return victims if needed <= 0 else None


def advance_clock(clock: float, candidates: Iterable[Candidate], victims: Iterable[Instance]) -> float:
    """Return the eviction clock after these evictions: their highest priority, never less than before.

    Spares do not count: they go out of turn, so their priority says nothing of the instances that stay.
    """
    gone = {instance.id for instance in victims}
    return max([clock, *(c.priority for c in candidates if c.instance.id in gone and not c.spare)])
