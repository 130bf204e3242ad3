"""Waits for many things at once; while it waits, its instance serves other calls.

curl -d '{"delays":[0.1,0.2,0.3]}' 127.0.0.1:8080/invoke/fanout
"""

import asyncio
import time

MOST = 100
LONGEST = 5.0
DELAYS = (0.1, 0.2, 0.3)


async def fanout(event, context):
    """Sleep for all of {"delays": [seconds, ...]} at once: as long as the longest, not as the sum."""
    delays = event.get("delays", DELAYS) if isinstance(event, dict) else DELAYS
    if not _is_fair(delays):
        return {"error": f"delays must be at most {MOST} numbers from 0 to {LONGEST:g}"}, 400, {}
    start = time.monotonic()
    await asyncio.gather(*(asyncio.sleep(delay) for delay in delays))
    return {"tasks": len(delays), "sum": round(sum(delays), 3), "seconds": round(time.monotonic() - start, 3)}


def _is_fair(delays):
    if not isinstance(delays, (list, tuple)) or len(delays) > MOST:
        return False
    return all(type(delay) in (int, float) and 0 <= delay <= LONGEST for delay in delays)
