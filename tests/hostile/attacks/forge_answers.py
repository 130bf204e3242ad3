"""Writes answers that nobody asked it for, under ids of other calls, and dials for more slots than it has."""

import os
import socket
import threading
import time

FORGED = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nx-invocation-id: %032x\r\nx-hearth-start: warm\r\n\r\nforged"
)


def connections():
    """Every connection to the gateway for calls that this process has."""
    for name in os.listdir("/proc/self/fd"):
        try:
            sock = socket.socket(fileno=os.dup(int(name)))
            if str(sock.getpeername()).endswith("calls.sock"):
                yield sock
        except OSError:
            continue


def handle(event, context):
    dialled = []
    for _ in range(50):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect("/run/hearth/calls.sock")
        dialled.append(sock)
    threading.Thread(target=forge, args=(dialled,), daemon=True).start()
    return "own"


def forge(dialled):
    time.sleep(0.05)  # the answer is out
    for sock in (*dialled, *connections()):
        try:
            for number in range(20):
                sock.sendall(FORGED % number)
        except OSError:
            pass
