"""Dials the gateway's sockets without end from many threads, and hangs up. Others are served meanwhile."""

import socket
import threading
import time


def storm(ends, name):
    while time.monotonic() < ends:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(f"/run/hearth/{name}")
            sock.send(b"HTTP/1.1 200 OK\r\n\r\n")
        except OSError:
            pass
        finally:
            sock.close()


def handle(event, context):
    ends = time.monotonic() + event
    names = ["calls.sock", "log.sock"] * 4
    threads = [threading.Thread(target=storm, args=(ends, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return "stormed"
