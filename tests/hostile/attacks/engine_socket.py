"""Looks for every unix socket in its reach: the engine's, the gateway's, other instances'. It has its own two."""

import os
import socket
import stat


def handle(event, context):
    found = []
    for folder, _, files in os.walk("/"):
        if folder.startswith(("/proc", "/sys")):
            continue
        for name in files:
            path = os.path.join(folder, name)
            try:
                if stat.S_ISSOCK(os.lstat(path).st_mode):
                    found.append(path)
            except OSError:
                pass
    for path in event["paths"]:
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(path)
                found.append(path)
            except OSError:
                pass
    with open("/proc/net/unix") as table:  # abstract ones too: they belong to a network namespace
        found += [line.split()[-1] for line in table if "@" in line]
    return {"got": [path for path in found if path not in ("/run/hearth/calls.sock", "/run/hearth/log.sock")]}
