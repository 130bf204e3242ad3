"""Reads and changes the host through /proc and /sys: its processes, memory, settings and its own cgroup's limits."""

import glob
import os


def writable(path):
    try:
        os.close(os.open(path, os.O_WRONLY))
    except OSError:
        return False
    return True


def handle(event, context):
    got = [
        path
        for path in ("/proc/kcore", "/proc/kmsg", "/dev/mem", "/dev/kmsg", "/proc/1/mem")
        if readable(path)
    ]
    for pattern in ("/proc/sys/*/*", "/proc/*", "/proc/irq/*/*", "/sys/*", "/sys/*/*", "/sys/fs/cgroup/*/*"):
        got += [path for path in glob.glob(pattern) if os.path.isfile(path) and writable(path)]
    others = [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != 1 and not mine(pid)]
    return {"got": got + [f"process {pid}" for pid in others]}


def readable(path):
    try:
        with open(path, "rb") as file:
            return bool(file.read(1)) and path != "/proc/1/mem"
    except OSError:
        return False


def mine(pid):
    """Whether it is a process of this container: it runs our program."""
    with open(f"/proc/{pid}/cmdline") as file:
        return "python" in file.read()
