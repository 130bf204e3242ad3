"""Leaves threads and a process behind that go on after the answer. They stand still as soon as it is frozen."""

import multiprocessing
import threading

context_of = multiprocessing.get_context("fork")
counts = None


def count(at):
    while True:
        counts[at] += 1


def handle(event, context):
    global counts
    if counts is None:
        import ctypes
        import mmap

        shared = mmap.mmap(-1, 4096)
        counts = (ctypes.c_uint64 * 3).from_buffer(shared)
        for at in (0, 1):
            threading.Thread(target=count, args=(at,), daemon=True).start()
        context_of.Process(target=count, args=(2,), daemon=True).start()
    return list(counts)
