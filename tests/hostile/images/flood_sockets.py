"""Dials both sockets of its container without end, from many threads: garbage, half heads, silence."""

import os
import socket
import threading
import time

GARBAGE = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    b"x" * 65536,
    b"\x00\xff\r\n\r\n" * 1000,
    b"",
)
SECONDS, KEPT = 0.5, 100


def flood(ends, name, kept):
    while time.monotonic() < ends:
        for garbage in GARBAGE:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(0.2)
            try:
                sock.connect(f"/run/hearth/{name}")
                sock.sendall(garbage)
            except OSError:
                pass
            if len(kept) < KEPT:
                kept.append(sock)
            else:
                sock.close()


def attack():
    if os.fork() == 0:  # goes on after the answer, unless it is killed with it
        flood(time.monotonic() + 4 * SECONDS, "calls.sock", [])
        os._exit(0)
    kept = []
    ends = time.monotonic() + SECONDS
    threads = [
        threading.Thread(target=flood, args=(ends, name, kept)) for name in ("calls.sock", "log.sock") * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return []
