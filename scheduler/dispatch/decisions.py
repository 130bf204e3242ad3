"""Decisions as pure functions of a snapshot: no I/O, no clock, nothing changed. The simulator can run them too."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from pool.instance import Instance

BACK_OFF = (1.0, 60.0)
"""Seconds until a start ahead is tried again after a failed one: first (doubled each time), and at most."""
PLATFORM_BACK_OFF = (0.25, 5.0)
"""The same where the platform was to blame, which the function's owner cannot mend: calls do not start one either."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One function at one moment. Times in seconds."""

    waiters: int
    live_slots: int
    """Slots of its instances that serve, leased or not."""
    pending: int
    """Instances that are being started or specialised for it."""
    room: int
    """Instances that it may have on top of all that count now (`max_instances`)."""
    concurrency: int
    single_use: bool
    exec_seconds: float | None
    """Measured time of an invocation; None: no result yet."""
    start_seconds: float
    """Expected time until an instance that is started now is ready."""
    oldest_wait: float
    """How long its first waiter has waited in a queue that does not move; 0 in one that does."""
    cores: int


def wanted_starts(d: Demand) -> int:
    """How many instances to start now, on top of those that are pending.

    An instance is started only when waiting for a busy one is expected to take longer than starting one. The
    expected wait of the last waiter is that of a queue served at the rate of all slots: waiters × time / slots.
    While nothing is measured: one start a waiter, for no more instances than cores: their first result comes
    before another would be ready, or the first waiter has waited longer than that. The first waiter's wait in a
    queue that does not move is a measurement too: if it is longer than a start takes and nothing is pending, the
    estimate was wrong, and the slots grow in proportion.
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
    """The instance whose slot is leased next: the fullest that has one free, then the most recently used, so
    that the others can expire."""
    best: Instance | None = None
    for instance in instances:
        workload = instance.workload
        if workload is None or workload.version != version or instance.free_slots() <= 0:
            continue
        if best is None or (instance.in_use, instance.last_used) > (best.in_use, best.last_used):
            best = instance
    return best


def smooth(average: float | None, sample: float, weight: float = 0.2) -> float:
    """Exponentially weighted moving average: the new average after one more sample."""
    return sample if average is None else average + weight * (sample - average)


def smooth_low(average: float | None, sample: float) -> float:
    """A moving average that follows short samples fast and long ones slowly, so that it stays near the lower end.

    How long a slot was held also counts what the gateway itself was late by. When the gateway is busy, more
    instances would not help; an average that believed those samples would start them.
    """
    if average is None:
        return sample
    return average + (0.5 if sample < average else 0.05) * (sample - average)


def back_off(failures: int, bounds: tuple[float, float] = BACK_OFF) -> float:
    """Seconds to wait after so many failures in a row: the first of `bounds`, doubled each time, up to the other."""
    first, most = bounds
    return min(most, first * 2.0 ** (failures - 1))
