"""Calls that are accepted to be run later: how many a second come to disk, and how fast they are run afterwards."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from bench import wrk
from bench.figures import Latencies, Outcome, Series
from bench.gateways import Gateway, GatewayFault
from bench.scenarios import Plan, Result, by_turns
from bench.throughput import CLIENTS, warm_up, wrk_loop
from deploy.progress import Step

ACCEPT_CLIENTS = 64
"""Those who wait for one commit share it: a few clients measure the disk, many the gateway."""
POLL = 0.1
DRAIN_TIMEOUT = 120.0
BACKLOG, ACCEPTED, ENDED = (f"hearth_async_{name}" for name in ("backlog", "accepted_total", "ended_total"))


async def accepted(gateway: Gateway, function: str, plan: Plan, step: Step) -> Result:
    """By turns: direct calls of 16 clients, accepting calls of 64, and running what is left when these have gone.

    Accepted calls are run while others are accepted, too: both share the machine, as they do for everybody.
    """
    target = f"/invoke/{function}"
    direct = wrk_loop("async-direct", f"direct, {CLIENTS} clients, wrk", gateway.address, target, plan)
    accept = Series("async-accept", f"accepted, {ACCEPT_CLIENTS} clients, wrk")
    drain = Series("async-drain", "accepted calls run, nobody calls")
    before = await gateway.count(ACCEPTED), await gateway.count(ENDED)
    await warm_up([direct], gateway, [(gateway.address, target)])
    for turn in range(plan.accept_rounds):
        await by_turns([direct], 1, step)
        step.show(f"{accept.title}, round {turn + 1}", turn / plan.accept_rounds)
        accept.add(await wrk.load(gateway.address, target, ACCEPT_CLIENTS, plan.accept_seconds, accept=True))
        step.show(f"{drain.title}, round {turn + 1}", (turn + 0.5) / plan.accept_rounds)
        drain.add(await drained(gateway))
    taken, ended = await gateway.count(ACCEPTED) - before[0], await gateway.count(ENDED) - before[1]
    if taken != ended:
        drain.faults[f"{taken:g} calls accepted, {ended:g} run"] += 1
    result = Result([direct[0], accept, drain])
    result.judge_median("accept", accept.rates)
    title = "accepted calls run / direct"
    result.compare_rates("drain_to_direct", title, drain, direct[0], "/s", "drain_to_direct")
    return result


async def drained(gateway: Gateway) -> Outcome:
    """Wait until every accepted call has ended; the rate is that of those that were left. Raises `GatewayFault`."""
    left = await gateway.count(BACKLOG)
    began, ended = time.monotonic(), await gateway.count(ENDED)
    while await gateway.count(BACKLOG):
        if time.monotonic() - began > DRAIN_TIMEOUT:
            raise GatewayFault(f"of {left:g} accepted calls some have not ended after {DRAIN_TIMEOUT:g} s")
        await asyncio.sleep(POLL)
    took = time.monotonic() - began
    count = round(await gateway.count(ENDED) - ended)
    latencies = Latencies()
    if count:
        latencies.record(took / count, count)
    return Outcome(latencies, count / took, count, Counter(), Counter())
