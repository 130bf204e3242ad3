"""Decisions of the assignment pass, as pure functions of a snapshot. A simulator can run them too."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from pool.backoff import Backoff
from pool.instance import Instance

FUNCTION_BACKOFF = Backoff(1.0, 60.0)
"""Pauses between starts ahead after failures of the function. A call may start an instance meanwhile."""
PLATFORM_BACKOFF = Backoff(0.25, 5.0)
"""Pauses between starts after failures of the platform, for calls too. Short: the function's owner cannot help."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A function's need of instances at one moment. Times in seconds."""

    waiters: int
    live_slots: int
    """Slots of its instances in service, leased or free."""
    pending: int
    """Instances that are being started or specialised for it."""
    room: int
    """Instances that `max_instances` still allows."""
    concurrency: int
    single_use: bool
    exec_seconds: float | None
    """Measured time of an invocation, or None before the first result."""
    start_seconds: float
    """Expected time until an instance that is started now is ready."""
    oldest_wait: float
    """Wait of the first waiter in a queue that does not move; 0 if the queue moves."""
    cores: int


def wanted_starts(d: Demand) -> int:
    """Return how many instances to start now, besides the pending ones.

    An instance is started only if the wait for a busy one is expected to be longer than a start. The last waiter
    waits as in a queue that all slots serve: waiters × time / slots.

    Before the first measurement each waiter gets a start, up to one instance a core. Their first result arrives
    before a further instance would be ready, unless the first waiter has already waited longer than that.

    The first waiter's wait in a queue that does not move is a measurement as well. If it exceeds a start, and
    nothing is pending, the estimate was too low. Then the slots grow in proportion to the wait.
    """
    unserved = d.waiters - d.pending * d.concurrency
    most = min(math.ceil(unserved / d.concurrency), d.room)
    if most <= 0:
        return 0
    if d.single_use:
        return most
    if d.exec_seconds is None:
        tried = d.live_slots // d.concurrency if d.oldest_wait <= d.start_seconds else 0
        return max(0, min(most, d.cores - d.pending - tried))
    slots = d.live_slots + d.pending * d.concurrency
    needed = math.ceil((d.waiters * d.exec_seconds / d.start_seconds - slots) / d.concurrency)
    if d.oldest_wait > d.start_seconds and not d.pending:
        needed = max(needed, math.ceil(slots * (d.oldest_wait / d.start_seconds - 1) / d.concurrency))
    return max(1 if slots == 0 else 0, min(most, needed))


def pick(instances: Iterable[Instance], version: str) -> Instance | None:
    """Return the instance whose slot to lease next, or None if no slot is free.

    It is the fullest one with a free slot, then the most recently used, so that the others can expire.
    """
    best: Instance | None = None
    for instance in instances:
        workload = instance.workload
        if workload is None or workload.version != version or instance.free_slots() <= 0:
            continue
        if best is None or (instance.in_use, instance.last_used) > (best.in_use, best.last_used):
            best = instance
    return best


def smooth(average: float | None, sample: float, weight: float = 0.2) -> float:
    """Return an exponentially weighted moving average after one more sample."""
    return sample if average is None else average + weight * (sample - average)


def smooth_low(average: float | None, sample: float) -> float:
    """Return a moving average that follows short samples fast and long ones slowly.

    The time for which a slot was held includes the gateway's own lateness. More instances do not help a busy
    gateway, but an average of those samples would start them.
    """
    if average is None:
        return sample
    return average + (0.5 if sample < average else 0.05) * (sample - average)
