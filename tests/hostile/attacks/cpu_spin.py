"""Computes for ever, in four threads' worth of processes. It gets its one processor and ends at its timeout."""

import os


def handle(event, context):
    for _ in range(3):
        if os.fork() == 0:
            break
    while True:
        pass
