"""Calls that are accepted to be run later: how many a second come to disk, and how fast a backlog is run."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path

from bench import wrk
from bench.figures import Latencies, Outcome, Series
from bench.gateways import Gateway, GatewayFault
from bench.scenarios import Plan, Result, by_turns
from bench.throughput import CLIENTS, warm_up, wrk_loop
from deploy.progress import Step

ACCEPT_CLIENTS = 64
"""Those who wait for one commit share it: a few clients measure the disk, many the gateway."""
POLL = 0.5
"""Seconds between two looks: each costs the gateway the writing of all its metrics."""
DRAIN_TIMEOUT = 120.0
ACCEPTED, ENDED = "hearth_async_accepted_total", "hearth_async_ended_total"
HELD = "held"
"""A function whose accepted calls wait: it has one instance, which sleeps."""
FILL = "bench.fill"
"""Type of the events that start calls: a batch of them is a backlog in one commit."""
BATCH = 1000
"""Events of a batch, at most."""


def declared(folder: Path) -> dict[str, str]:
    """Put the code of the function that is held into a folder beside functions.yaml; its name and keys."""
    (folder / HELD).mkdir(parents=True)
    (folder / HELD / "handler.py").write_text(
        "import time\n\n\ndef handle(event, context):\n    time.sleep(1)\n"
    )
    return {HELD: f"runtime: python, source: {HELD}, handler: 'handler:handle', max_instances: 1"}


def filled_by_events(function: str) -> str:
    """The section of functions.yaml that lets events start calls of a function."""
    return (
        f"triggers:\n  fill: {{events: {{filters: [{{exact: {{type: {FILL}}}}}]}}, function: {function}}}\n"
    )


async def accepted(gateway: Gateway, function: str, plan: Plan, step: Step) -> Result:
    """By turns: direct calls of 16 clients; accepting calls of 64, of a function that hardly runs meanwhile; and
    running a backlog while nobody calls."""
    target = f"/invoke/{function}"
    direct = wrk_loop("async-direct", f"direct, {CLIENTS} clients, wrk", gateway.address, target, plan)
    accept = Series("async-accept", f"accepted, {ACCEPT_CLIENTS} clients, wrk")
    drain = Series("async-drain", "a backlog run, nobody calls")
    await warm_up([direct], gateway, [(gateway.address, target)])
    for turn in range(plan.accept_rounds):
        await by_turns([direct], 1, step)
        step.show(f"{accept.title}, round {turn + 1}", turn / plan.accept_rounds)
        before = await gateway.count(ACCEPTED, function=HELD)
        outcome = await wrk.load(
            gateway.address, f"/invoke/{HELD}", ACCEPT_CLIENTS, plan.accept_seconds, accept=True
        )
        accept.add(outcome)
        told, kept = outcome.requests - outcome.faults.total(), await gateway.count(ACCEPTED, function=HELD)
        if kept - before < told:
            accept.faults[f"{told} calls were answered with 202, {kept - before:g} kept"] += 1
        step.show(f"{drain.title}, round {turn + 1}", (turn + 0.5) / plan.accept_rounds)
        drain.add(await drained(gateway, function, f"round-{turn}", plan.backlog))
    result = Result([direct[0], accept, drain])
    result.judge_median("accept", accept.rates)
    title = "accepted calls run / direct"
    result.compare_rates("drain_to_direct", title, drain, direct[0], "/s", "drain_to_direct")
    return result


async def drained(gateway: Gateway, function: str, source: str, calls: int) -> Outcome:
    """Keep a backlog of so many calls, and wait until all have ended; the rate is that of those that were left when
    the last was kept, up to the last look at which some were still to be run. Raises `GatewayFault`."""

    async def ended() -> float:
        return await gateway.count(ENDED, function=function, status="succeeded")

    at_first = await ended()
    for first in range(0, calls, BATCH):
        await gateway.publish(batch(source, range(first, min(calls, first + BATCH))))
    before, began = await ended(), time.monotonic()
    seen, at = before, began
    while (done := await ended()) - at_first < calls:
        seen, at = done, time.monotonic()
        if at - began > DRAIN_TIMEOUT:
            raise GatewayFault(
                f"of {calls} accepted calls {done - at_first:g} have succeeded after {DRAIN_TIMEOUT:g} s"
            )
        await asyncio.sleep(POLL)
    if seen == before:  # all were run before a second look
        seen, at = done, time.monotonic()
    took, count = at - began, round(seen - before)
    latencies = Latencies()
    if count:
        latencies.record(took / count, count)
    return Outcome(latencies, count / took, count, Counter(), Counter())


def batch(source: str, numbers: range) -> bytes:
    """CloudEvents as one body."""
    data = {"name": "Ada"}
    event = {"specversion": "1.0", "type": FILL, "source": source, "data": data}
    return json.dumps([{**event, "id": str(number)} for number in numbers]).encode()
