"""Answers after its timeout. Its caller is told of the timeout, and nobody reads the answer."""

import time


def handle(event, context):
    if event == "late":
        time.sleep(context.remaining() + 0.2)
    return event
