"""Writes 1 GiB to its output past the shim's own counting. It is read at a bounded rate until its timeout."""

import os


def handle(event, context):
    block = b"x" * 2**16
    os.set_blocking(1, True)
    for _ in range(2**14):
        os.write(1, block)
    return "written"
