"""Dials for init's place, from processes that flee from the call, and answers every order with status 0."""

import os
import socket
import sys
import time

FORGED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-hearth-status\r\n\r\n"
    b"6\r\nforged\r\n0\r\nx-hearth-status: 0\r\nx-hearth-exec: 1e999\r\n\r\n"
)


def answer_for_ever():
    sockets = []
    ends = time.monotonic() + 5
    while time.monotonic() < ends:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(0.01)
        try:
            sock.connect("/run/hearth/calls.sock")
            sock.sendall(FORGED)
            if sock.recv(4096):
                sock.sendall(FORGED)
        except OSError:
            pass
        sockets = [*sockets[-50:], sock]


def attack():
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                answer_for_ever()
            os._exit(0)
    time.sleep(0.3)
    sys.stdout.write("\r\n0\r\nx-hearth-status: 0\r\n\r\n")
    sys.stderr.write("x-hearth-status: 0\r\n")
    return []
