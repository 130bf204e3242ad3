"""Opens files until it may open no more: an error of its own, told to its caller, and it serves on afterwards."""

import os

KEPT = []


def handle(event, context):
    if event == "close":
        while KEPT:
            os.close(KEPT.pop())
        return "closed"
    while True:
        KEPT.append(os.open("/dev/null", os.O_RDONLY))
