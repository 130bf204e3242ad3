"""How the kernel shares the processors between instances, beside the limits of their cgroups: who runs what nobody
waits for does not stop others."""

from __future__ import annotations

import contextlib
import os

from pool.instance import Instance


def set_policy(instance: Instance, background: bool) -> None:
    """Have an instance that begins a call in the `background`, which nobody waits for, take a processor when one is
    free or its turn has come, and not the moment that a request wakes it (`SCHED_BATCH`, see sched(7)); and as ever
    when it begins another call. Its share of the processors stays as it is.

    Each request that the gateway sends wakes an instance: else the kernel often stops the gateway for it, in the
    middle of what it does for all others. Only the process that has dialled us is changed, with what it starts from
    then on, and not for the sake of one of several calls. Who is gone, or may not be changed by us, is left alone.
    """
    if background and instance.in_use > 1:
        return
    instance.background = background
    if peer := getattr(instance.link, "peer", 0):
        with contextlib.suppress(OSError):
            policy = os.SCHED_BATCH if background else os.SCHED_OTHER
            os.sched_setscheduler(peer, policy, os.sched_param(0))
