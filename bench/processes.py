"""What a process has taken so far, as the kernel counts it."""

from __future__ import annotations

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Bytes of memory that a process holds now. Raises OSError if it is gone."""
    return _status(pid, "VmRSS")


def anonymous(pid: int) -> int:
    """The part of it that is in no file, and so its own. Raises OSError if it is gone."""
    return _status(pid, "RssAnon")


def peak_resident(pid: int) -> int:
    """Bytes that it held at most since `forget_peak`, or ever. Raises OSError."""
    return _status(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Count the peak anew from now on. Raises OSError."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def cpu_seconds(pid: int) -> float:
    """Seconds of a core that all its threads have taken, in steps of 10 ms. Raises OSError."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _status(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise ProcessLookupError(pid)
