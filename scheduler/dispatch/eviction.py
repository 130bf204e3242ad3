"""In which order idle instances are evicted when memory is wanted: pure functions of a snapshot.

No I/O and no clock of the machine: a simulator can score the very code that runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pool.instance import Instance

MIB = 2**20


class KeepAlivePolicy(StrEnum):
    """What decides who goes first."""

    GDSF = "gdsf"
    """The lowest priority: rarely called, cheap to start again, large, not used since others were evicted."""
    LRU = "lru"
    """Who was used longest ago."""
    TTL = "ttl"
    """Whose `keep_alive` ends first."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An idle instance that may be evicted, and what is known of its function."""

    instance: Instance
    frequency: int
    """Calls of its function, over all instances, since it last had none."""
    cost: float
    """Seconds that it would take to have it again."""

    @property
    def size(self) -> float:
        """Memory in MiB: as it was measured, else as it was declared; at least 1."""
        instance = self.instance
        return max(1.0, (instance.memory if instance.measured is None else instance.measured) / MIB)

    @property
    def priority(self) -> float:
        """GreedyDual-Size-Frequency: the clock at its last use, and on top what keeping it saves for its size."""
        return self.instance.clock + self.frequency * self.cost / self.size

    @property
    def expires(self) -> float:
        """When its `keep_alive` ends, in the clock's seconds."""
        workload = self.instance.workload
        return self.instance.last_used + (workload.keep_alive if workload else 0.0)


def in_order(candidates: Iterable[Candidate], policy: KeepAlivePolicy) -> list[Candidate]:
    """The candidates, first to go first; of equals the least recently used."""
    keys = {
        KeepAlivePolicy.GDSF: lambda c: (c.priority, c.instance.last_used),
        KeepAlivePolicy.LRU: lambda c: (c.instance.last_used,),
        KeepAlivePolicy.TTL: lambda c: (c.expires, c.instance.last_used),
    }
    return sorted(candidates, key=keys[policy])


def within_spare(candidates: Iterable[Candidate], spare: Mapping[str, int]) -> list[Candidate]:
    """The first of each function's candidates, as many as it has to spare: the rest are its `min_instances`."""
    left = dict(spare)
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
    """Instances to evict so that `needed` bytes become free: idle ones in the given order, then prewarmed ones,
    oldest first. None if all together are not enough: then nothing is evicted."""
    victims: list[Instance] = []
    for instance in (*(c.instance for c in idle), *sorted(prewarmed, key=lambda i: i.last_used)):
        if needed <= 0:
            break
        victims.append(instance)
        needed -= instance.memory
    return victims if needed <= 0 else None


def advanced(clock: float, candidates: Iterable[Candidate], victims: Iterable[Instance]) -> float:
    """The eviction clock after these were evicted: the highest of their priorities. It never falls."""
    gone = {instance.id for instance in victims}
    return max([clock, *(c.priority for c in candidates if c.instance.id in gone)])
