"""Calls that are accepted to be run later: how many a second come to disk, and how fast a backlog is run."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

from bench import wrk
from bench.figures import Latencies, Outcome, Series
from bench.gateways import Gateway, GatewayFault
from bench.scenarios import Plan, Result, by_turns
from bench.throughput import CLIENTS, warm_up, wrk_loop
from gateway.setup.progress import Step

ACCEPT_CLIENTS = 64
"""Those who wait for one commit share it: a few clients measure the disk, many the gateway."""
POLL = 0.25
"""Seconds between two looks: each costs the gateway the writing of all its metrics."""
DRAIN_TIMEOUT = 120.0
ACCEPTED, ENDED = "hearth_async_accepted_total", "hearth_async_ended_total"
HELD = "held"
"""A function whose accepted calls wait: it has one instance, which sleeps."""
LATER = "later"
"""A function that fails in the first run of an accepted call, and greets in every other: so a backlog is kept as dead
letters, and is there whole when these are redriven."""
LATER_CODE = """
def handle(event, context):
    if context.headers.get("x-hearth-attempt") == "1":
        raise RuntimeError("not yet")
    return {"message": f"Hello, {event['name']}!"}
"""


def declared(folder: Path) -> dict[str, str]:
    """Put the code of both functions into a folder beside functions.yaml; their names and keys."""
    codes = {HELD: "import time\n\n\ndef handle(event, context):\n    time.sleep(1)\n", LATER: LATER_CODE}
    for name, code in codes.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "handler.py").write_text(code)
    return {
        HELD: f"runtime: python, source: {HELD}, handler: 'handler:handle', max_instances: 1",
        LATER: f"runtime: python, source: {LATER}, handler: 'handler:handle', retries: {{attempts: 1}}",
    }


async def accepted(gateway: Gateway, plan: Plan, step: Step) -> Result:
    """By turns: accepting calls of 64 clients, of a function that hardly runs meanwhile; direct calls of 16; and
    running a backlog of calls that are the same as these, while nobody calls."""
    target = f"/invoke/{LATER}"
    direct = wrk_loop("async-direct", f"direct, {CLIENTS} clients, wrk", gateway.address, target, plan)
    accept = Series("async-accept", f"accepted, {ACCEPT_CLIENTS} clients, wrk")
    drain = Series("async-drain", "a backlog run, nobody calls")
    await warm_up([direct], gateway, [(gateway.address, target)])
    for turn in range(plan.accept_rounds):

        def show(title: str, part: float, turn: int = turn) -> None:
            step.show(f"{title}, round {turn + 1}", (turn + part) / plan.accept_rounds)

        show(accept.title, 0.0)
        accept.add(await accepting(gateway, plan))
        show("keeping a backlog", 0.2)
        await keep_backlog(gateway, plan)
        await by_turns([direct], 1, step)
        show(drain.title, 0.8)
        drain.add(await drained(gateway))
    result = Result([direct[0], accept, drain])
    result.judge_median("accept", accept.rates)
    title = "accepted calls run / direct"
    result.compare_rates("drain_to_direct", title, drain, direct[0], "/s", "drain_to_direct")
    return result


async def accepting(gateway: Gateway, plan: Plan) -> Outcome:
    """Calls that are answered with 202. That fewer are kept than were is a fault."""
    before = await gateway.count(ACCEPTED, function=HELD)
    outcome = await wrk.load(
        gateway.address, f"/invoke/{HELD}", ACCEPT_CLIENTS, plan.accept_seconds, accept=True
    )
    told, kept = outcome.requests - outcome.faults.total(), await gateway.count(ACCEPTED, function=HELD)
    if kept - before < told:
        outcome.faults[f"{told} calls were answered with 202, {kept - before:g} kept"] += 1
    return outcome


async def keep_backlog(gateway: Gateway, plan: Plan) -> None:
    """Have as many calls accepted as a backlog has, at least, and return when each has failed in its first run.
    Raises `GatewayFault`."""
    at_first = await gateway.count(ACCEPTED, function=LATER)
    while await gateway.count(ACCEPTED, function=LATER) - at_first < plan.backlog:
        await wrk.load(gateway.address, f"/invoke/{LATER}", ACCEPT_CLIENTS, plan.accept_seconds, accept=True)
    kept = await gateway.count(ACCEPTED, function=LATER)
    await until(gateway, "dead", kept)


async def drained(gateway: Gateway) -> Outcome:
    """Queue all dead letters again and wait until they have succeeded; the rate is that up to the last look at which
    some were still to be run. Raises `GatewayFault`."""
    before, began = await gateway.count(ENDED, function=LATER, status="succeeded"), time.monotonic()
    calls = await gateway.redrive(LATER)
    looks = await until(gateway, "succeeded", before + calls)
    at, done = looks[-2] if len(looks) > 1 else looks[-1]
    took, count = at - began, round(done - before)
    latencies = Latencies()
    if count:
        latencies.record(took / count, count)
    return Outcome(latencies, count / took, count, Counter(), Counter())


async def until(gateway: Gateway, status: str, wanted: float) -> list[tuple[float, float]]:
    """Wait until so many calls have ended like that; when was looked (monotonic), and how many it were. Raises
    `GatewayFault`."""
    looks: list[tuple[float, float]] = []
    ends = time.monotonic() + DRAIN_TIMEOUT
    while not looks or looks[-1][1] < wanted:
        await asyncio.sleep(POLL)
        looks.append((time.monotonic(), await gateway.count(ENDED, function=LATER, status=status)))
        if time.monotonic() > ends:
            raise GatewayFault(
                f"of {wanted:g} accepted calls {looks[-1][1]:g} are {status} after {DRAIN_TIMEOUT:g} s"
            )
    return looks
