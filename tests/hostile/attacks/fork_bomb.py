"""Forks until the kernel refuses. The processes limit of its container stops it; nobody else loses a process."""

import os


def handle(event, context):
    while True:
        os.fork()
