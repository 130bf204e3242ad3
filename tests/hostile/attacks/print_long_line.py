"""Prints one line of 100 MiB. Its log is cut off at the limit; who comes after it has a log of its own."""

import sys


def handle(event, context):
    if event == "next":
        print("next")
        return "next"
    piece = "x" * 2**20
    for _ in range(100):
        sys.stdout.write(piece)
    sys.stdout.write("\n")
    return "printed"
