"""Counts down as server-sent events, one a second; each is sent as soon as it is yielded.

curl -N '127.0.0.1:8080/invoke/countdown' -d '{"from":3}'
"""

import time

FROM = 3
MOST = 20
PAUSE = 1.0
"""Seconds between two numbers."""


def countdown(event, context):
    """Stream the numbers from {"from": 3} down to 0, with a pause between them."""
    start = event.get("from", FROM) if isinstance(event, dict) else FROM
    if type(start) is not int or not 0 <= start <= MOST:
        return {"error": f"from must be a whole number from 0 to {MOST}"}, 400, {}
    return _events(start), 200, {"content-type": "text/event-stream", "cache-control": "no-store"}


def _events(start):
    for number in range(start, -1, -1):
        yield f"data: {number}\n\n"
        if number:
            time.sleep(PAUSE)
