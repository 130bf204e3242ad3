"""Runs the shim in a plain process: `python -I -S process_start.py SHIM PARENT [PACKAGES]`."""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def end_with(parent: int) -> None:
    """Have the kernel kill this process when the gateway ends, even if that is killed itself."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit()  # it has ended before


def keep_orphans() -> None:
    """Have the kernel give us the processes whose parents end, so that the gateway finds them below us at the end."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def shorten_path() -> None:
    """Name the folder of sockets by a descriptor: a path may have 107 bytes, and data folders can lie deeper."""
    folder = os.open(os.environ["HEARTH_SOCKET_DIR"], os.O_RDONLY | os.O_DIRECTORY)
    os.environ["HEARTH_SOCKET_DIR"] = f"/proc/self/fd/{folder}"


def debug(*_: Any, **__: Any) -> None:
    """Start pdb on the terminal of the gateway: the place of `sys.breakpointhook`."""
    import inspect
    import pdb

    # They stay open: pdb goes on after this function has returned.
    reader, writer = open("/dev/tty"), open("/dev/tty", "w", buffering=1)  # noqa: PTH123, SIM115
    debugger = pdb.Pdb(stdin=reader, stdout=writer, nosigint=True)
    debugger.set_trace(inspect.currentframe().f_back)  # type: ignore[union-attr]


if __name__ == "__main__":
    shim, parent, *packages = sys.argv[1:]
    end_with(int(parent))
    keep_orphans()
    shorten_path()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the gateway, which then ends this
    sys.breakpointhook = debug
    sys.path[:0] = packages
    sys.argv = [shim]
    runpy.run_path(shim, run_name="__main__")
