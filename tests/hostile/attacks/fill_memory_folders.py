"""Fills every folder that can be written at all. They lie in memory, its own: the kernel kills it."""

import os


def handle(event, context):
    for folder in ("/tmp", "/function", "/dev/shm", "/dev/mqueue"):
        for number in range(200):
            try:
                with open(os.path.join(folder, f"full-{number}"), "wb", buffering=0) as file:
                    file.write(b"x" * 2**20)
            except OSError:
                break
    return "there was room for all of it"
