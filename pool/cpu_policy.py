"""How the kernel shares the processors between instances and the gateway, beside the limits of their cgroups."""

from __future__ import annotations

import contextlib
import os


def run_in_batches(pid: int) -> None:
    """Have a process, and all that it starts from now on, take a processor when one is free or its turn has come, and
    not the moment that something wakes it (`SCHED_BATCH`, see sched(7)).

    Each request that the gateway sends wakes an instance: without this the kernel often stops the gateway for it, in
    the middle of what it does for all others. Its share of the processors stays as it is. A process that is gone, or
    that we have no right to, is left alone.
    """
    with contextlib.suppress(OSError):
        if pid > 0:
            os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
