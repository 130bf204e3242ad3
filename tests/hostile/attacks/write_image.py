"""Changes its image, so that the next container of it is another: programs, accounts, the shim, its packages."""

import os
import sys


def handle(event, context):
    got = []
    shim = sys.modules["__main__"].__file__
    for path in (
        sys.executable,
        os.path.realpath(sys.executable),
        "/etc/passwd",
        "/bin/sh",
        shim,
        "/opt/deps/x.py",
    ):
        for change in (
            lambda p: open(p, "ab").close(),
            os.remove,
            lambda p: os.rename(p, f"{p}~"),
            lambda p: os.chmod(p, 0o777),
        ):
            try:
                change(path)
                got.append(path)
            except OSError:
                pass
    for path in ("/proc/self/exe", "/proc/1/exe"):
        try:
            open(path, "r+b").close()
            got.append(path)
        except OSError:
            pass
    return {"got": got}
