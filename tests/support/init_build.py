"""The init program of this checkout, built when a test first needs it."""

from __future__ import annotations

import fcntl
import platform
from pathlib import Path

from gateway.setup.native import init_program
from pool.host.init_program import INSTALLED, installed_init


def built_init() -> Path:
    """Return init for this machine, made of the sources as they are now."""
    INSTALLED.mkdir(exist_ok=True)
    with (INSTALLED / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not init_program.is_current(platform.machine()):
            init_program.build()
    return installed_init()
