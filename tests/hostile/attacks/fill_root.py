"""Tries to make a file in every folder there is. Only its own folders in memory take one."""

import os


def handle(event, context):
    got = []
    for folder, _, _ in os.walk("/"):
        if folder.startswith("/proc/") and not folder.startswith(("/proc/sys", "/proc/1")):
            continue
        try:
            with open(os.path.join(folder, "hostile"), "wb") as file:
                file.write(b"x")
        except OSError:
            continue
        got.append(folder)
    return {
        "got": sorted(folder for folder in got if not folder.startswith(("/tmp", "/function", "/dev/shm")))
    }
