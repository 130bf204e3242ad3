"""Asks the kernel for rights: to be root, namespaces, mounts, devices, modules, tracing, another's namespace."""

import ctypes
import os
import stat
import subprocess

LIBC = ctypes.CDLL(None, use_errno=True)
NUMBERS = {  # of x86_64 and of aarch64
    "ptrace": (101, 117),
    "mount": (165, 40),
    "pivot_root": (155, 41),
    "init_module": (175, 105),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "keyctl": (250, 219),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "settimeofday": (164, 170),
    "open_by_handle_at": (304, 265),
    "userfaultfd": (323, 282),
    "kexec_load": (246, 104),
    "process_vm_readv": (310, 270),
}
NEW_NAMESPACES = {"user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "net": 0x40000000}


def asked(name, *arguments):
    """Whether the kernel does it."""
    number = NUMBERS[name][os.uname().machine != "x86_64"]
    return LIBC.syscall(number, *arguments) >= 0


def raised(work, *arguments):
    try:
        work(*arguments)
    except OSError:
        return False
    return True


def handle(event, context):
    got = [f"new {name} namespace" for name, flag in NEW_NAMESPACES.items() if LIBC.unshare(flag) == 0]
    got += [name for name, ids in (("setuid", 0), ("setgid", 0)) if raised(getattr(os, name), ids)]
    got += ["setgroups"] * raised(os.setgroups, [0])
    got += ["chroot"] * raised(os.chroot, "/tmp")
    got += ["device"] * raised(os.mknod, "/tmp/disk", stat.S_IFBLK | 0o666, os.makedev(254, 0))
    got += ["mount"] * asked("mount", b"none", b"/tmp", b"tmpfs", 0, 0)
    for name in ("pivot_root", "init_module", "keyctl", "swapon", "settimeofday", "kexec_load"):
        got += [name] * asked(name, 0, 0, 0, 0, 0)
    for name in ("bpf", "perf_event_open"):
        got += [name] * asked(name, 0, ctypes.create_string_buffer(b"\1" * 128), 128, -1, 0, 0)
    got += ["userfaultfd"] * asked("userfaultfd", 0)
    got += ["open_by_handle_at"] * asked("open_by_handle_at", -100, ctypes.create_string_buffer(64), 0)
    got += ["nice"] * raised(os.setpriority, os.PRIO_PROCESS, 0, -5)
    for kind in ("mnt", "net", "pid", "user"):
        descriptor = os.open(f"/proc/1/ns/{kind}", os.O_RDONLY)
        got += [f"setns {kind}"] * (LIBC.setns(descriptor, 0) == 0)
    subprocess.run(["python3", "-c", "pass"], check=True)
    for folder in ("/bin", "/usr/bin", "/sbin", "/usr/sbin"):
        for entry in os.scandir(folder):
            if entry.is_file() and entry.stat().st_mode & (stat.S_ISUID | stat.S_ISGID):
                got += [f"{entry.path} as {uid}" for uid in [uid_of(entry.path)] if uid == 0]
    with open("/proc/self/status") as status:
        got += [line.strip() for line in status if line.startswith("Cap") and int(line.split()[1], 16)]
    return {"got": got, "user": os.getuid()}


def uid_of(program):
    """The user that a set-user-ID program runs as."""
    process = subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with open(f"/proc/{process.pid}/status") as status:
        found = int(next(line for line in status if line.startswith("Uid")).split()[2])
    process.kill()
    process.wait()
    return found
