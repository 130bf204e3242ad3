"""What the measured machine is: figures without it say nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pool.engine.base import EngineInfo

ROOT = Path(__file__).resolve().parent.parent
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def describe(engine: EngineInfo) -> dict[str, Any]:
    """The machine, its software and how busy it is now. Sizes in bytes; None where there is nothing to know."""
    return {
        "cores": os.cpu_count(),
        "cpu": cpu_model(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "governor": GOVERNOR.read_text().strip() if GOVERNOR.exists() else None,
        "load_average": list(os.getloadavg()),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("uvicorn", "uvloop", "httptools", "fastapi")},
        "engine": engine.version,
        "engine_api": engine.api_version,
        "cgroup": engine.cgroup_version,
        "live_restore": engine.live_restore,
        "revision": revision(),
    }


def cpu_model() -> str | None:
    """As the kernel names it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return None


def revision() -> str | None:
    """The commit that is measured, with `-dirty` if files differ from it; None outside a repository."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
