"""Many calls of one function, one after the other, and their summary."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.cli.client import GatewayClient, Refused
from gateway.cli.commands.calling.call_request import CallRequest
from gateway.cli.human import human_seconds
from gateway.cli.interruption import Interrupted
from gateway.cli.tables import print_table
from gateway.cli.terminal import say

MOST_SHOWN = 5
"""Most answers that are printed. More would push each other off the screen."""
MOST_FAILURES_NAMED = 3
"""Most failed calls that the summary names, each with the command that shows its log."""
PHASES = ("queue", "start", "exec")


@dataclass(frozen=True)
class AnsweredCall:
    """The answer to one of many calls, without its body."""

    status: int
    start: str
    """Kind of start, or an empty text if no instance was started or found for it."""
    phases: dict[str, float]
    """Milliseconds of each phase that the gateway has measured."""
    total: float
    """Milliseconds that the caller has waited for the whole answer."""
    invocation: str | None


def repeat(gateway: GatewayClient, request: CallRequest, times: int) -> int:
    """Send a request several times, print a summary, and return the highest status. Raises `Interrupted`."""
    calls: list[AnsweredCall] = []
    begin = time.monotonic()
    try:
        while len(calls) < times:
            calls.append(answer_to(gateway, request))
    except KeyboardInterrupt:
        if calls:
            print_summary(calls, time.monotonic() - begin)
        raise Interrupted(f"Stopped after {len(calls)} of {times} calls.") from None
    print_summary(calls, time.monotonic() - begin)
    return max(call.status for call in calls)


def answer_to(gateway: GatewayClient, request: CallRequest) -> AnsweredCall:
    """Send a request once, read the whole answer, and return what it says about itself."""
    begin = time.monotonic()
    try:
        with request.sent(gateway) as (response, pieces):
            for _ in pieces:
                pass
    except Refused as error:
        if error.slug == "no-such-function":
            raise
        return AnsweredCall(error.status, "", {}, 1000 * (time.monotonic() - begin), error.invocation)
    headers = response.headers
    return AnsweredCall(
        response.status_code,
        headers.get("x-hearth-start", ""),
        phases_of(headers.get("server-timing", "")),
        1000 * (time.monotonic() - begin),
        headers.get("x-invocation-id"),
    )


def phases_of(server_timing: str) -> dict[str, float]:
    """Return the milliseconds of each phase in a Server-Timing header."""
    phases = (phase.strip().partition(";dur=") for phase in server_timing.split(","))
    return {name: float(duration) for name, _, duration in phases if name in PHASES and duration}


def print_summary(calls: Sequence[AnsweredCall], seconds: float) -> None:
    """Print how the calls ended, how they started, and how long each phase took."""
    say(
        f"{len(calls)} calls in {human_seconds(seconds)}, {len(calls) / seconds:.3g} a second, one at a time\n"
    )
    statuses = Counter(call.status for call in calls)
    starts = Counter(call.start for call in calls if call.start)
    say(f"Statuses:  {', '.join(f'{status}: {count}' for status, count in sorted(statuses.items()))}")
    say(f"Starts:    {', '.join(f'{start}: {count}' for start, count in starts.most_common()) or '-'}\n")
    rows = [(name, [call.phases[name] for call in calls if name in call.phases]) for name in PHASES]
    rows.append(("total", [call.total for call in calls]))
    print_table(
        ("PHASE", "P50", "P99", "LONGEST"),
        [(name, *(milliseconds(found) for found in middles_of(times))) for name, times in rows if times],
    )
    failed = [call for call in calls if call.status >= 400 and call.invocation]
    if failed:
        say()
    for call in failed[:MOST_FAILURES_NAMED]:
        say(f"A call answered {call.status}; its log: hearth logs {call.invocation}")


def middles_of(times: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, the 99th percentile and the maximum of some times."""
    ordered = sorted(times)
    return quantile(ordered, 0.5), quantile(ordered, 0.99), ordered[-1]


def quantile(ordered: Sequence[float], part: float) -> float:
    """Return the smallest of the ordered values that is not below this part of them."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def milliseconds(time: float) -> str:
    """Return milliseconds with three digits that count."""
    return f"{time:.2f} ms" if time < 10 else f"{time:.1f} ms" if time < 100 else f"{time:.0f} ms"
