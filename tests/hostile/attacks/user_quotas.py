"""Uses up what the kernel counts by user and not by container: inotify instances, pending signals, pipes' memory."""

import ctypes
import os

LIBC = ctypes.CDLL(None, use_errno=True)
KEPT = []


def handle(event, context):
    if event == "probe":
        one = LIBC.inotify_init()
        if one < 0:
            return os.strerror(ctypes.get_errno())
        os.close(one)
        return "there is room"
    while (descriptor := LIBC.inotify_init()) >= 0:
        KEPT.append(descriptor)
    return len(KEPT)
