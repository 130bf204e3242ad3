"""Fills the host's disk through the one folder of the host that it sees, or puts something of its own there."""

import os
import socket

FOLDER = "/run/hearth"


def bind(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)


def fill(path):
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 2**30)


def handle(event, context):
    got = []
    mine, theirs = f"{FOLDER}/mine", f"{FOLDER}/calls.sock"
    attempts = {
        "file": lambda: fill(mine),
        "folder": lambda: os.mkdir(mine),
        "socket": lambda: bind(mine),
        "link": lambda: os.link(theirs, mine),
        "symlink": lambda: os.symlink("/etc", mine),
        "pipe": lambda: os.mkfifo(mine),
        "remove": lambda: os.remove(theirs),
        "rename": lambda: os.rename(theirs, mine),
        "mode": lambda: os.chmod(theirs, 0),
        "mode of the folder": lambda: os.chmod(FOLDER, 0o777),
        "times": lambda: os.utime(theirs, (0, 0)),
        "attribute": lambda: os.setxattr(FOLDER, "user.x", b"x" * 4096),
    }
    for name, attempt in attempts.items():
        try:
            attempt()
            got.append(name)
        except OSError:
            pass
    return {"got": got, "seen": sorted(os.listdir(FOLDER))}
