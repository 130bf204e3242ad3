"""Scheduling policy of an instance's processes: background calls must not preempt the gateway."""

from __future__ import annotations

import contextlib
import os
from typing import Protocol


class ScheduledInstance(Protocol):
    """The part of a `pool.instance.Instance` that its scheduling policy depends on."""

    background: bool | None

    @property
    def in_use(self) -> int:
        """Return the number of leased slots."""

    @property
    def link(self) -> object:
        """Return the connection to its process. Its `peer` is the process's id, if the process dialled us."""


def set_policy(instance: ScheduledInstance, background: bool) -> None:
    """Set SCHED_BATCH for a background call, which nobody waits for, else SCHED_OTHER; see sched(7).

    Each request wakes the instance. Under SCHED_OTHER the kernel then often preempts the gateway, in the middle of
    its work for other calls. Under SCHED_BATCH the instance waits for a free processor or its turn. Its share of
    the processors stays the same.

    This changes only the process that dialled us, and processes that it starts later. An instance that serves several
    calls keeps its policy when one of them is in the background. An instance that has ended, or that we may not
    change, is left alone.
    """
    if background and instance.in_use > 1:
        return
    instance.background = background
    if peer := getattr(instance.link, "peer", 0):
        with contextlib.suppress(OSError):
            policy = os.SCHED_BATCH if background else os.SCHED_OTHER
            os.sched_setscheduler(peer, policy, os.sched_param(0))
