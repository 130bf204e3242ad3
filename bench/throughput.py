"""Scenarios of many warm calls: how many a second, beside nginx and beside an HTTP image, and at half the maximum."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from bench import references, wrk
from bench.client import Address
from bench.closed_loop import Bounds
from bench.figures import Series
from bench.gateways import Gateway
from bench.references import Program, nginx
from bench.scenarios import Lab, Loop, Plan, Result, by_turns, rotated
from bench.worker import Job, Workers
from gateway.setup.progress import Step
from pool.host import netns

CLIENTS = 16
OPEN_CLIENTS = 64
"""Connections of the open loop: more than are ever in use at once unless the gateway stalls."""
WARM_UP = 1.0
"""Seconds of load on each side before the first round."""


@asynccontextmanager
async def proxied(lab: Lab, program: Program, count: int) -> AsyncIterator[Address]:
    """nginx in front of so many containers. Raises `EngineError`, `CallFailed`, `WorkerFailed` and OSError."""
    async with AsyncExitStack() as stack:
        responders = [lab.responder(program) for _ in range(count)]
        for responder in responders:
            stack.push_async_callback(responder.remove)
            await responder.start()
        folder = lab.folder / f"nginx-{uuid.uuid4().hex[:8]}"
        yield await stack.enter_async_context(nginx(folder, [one.socket for one in responders]))


async def warm_nginx(gateway: Gateway, function: str, lab: Lab, plan: Plan, step: Step) -> Result:
    """Warm calls of 16 clients, through the gateway and through nginx."""
    target = f"/invoke/{function}"
    async with proxied(lab, "responder", plan.responders) as proxy:
        ours, theirs = (
            wrk_loop("wrk-gateway", f"gateway, {CLIENTS} clients, wrk", gateway.address, target, plan),
            wrk_loop("wrk-nginx", f"nginx, {CLIENTS} clients, wrk", proxy, target, plan),
        )
        await warm_up([ours, theirs], gateway, [(gateway.address, target), (proxy, target)])
        await by_turns([ours, theirs], plan.wrk_rounds, step)
    result = Result([ours[0], theirs[0]])
    result.compare_rates("warm_to_nginx", "warm / nginx", ours[0], theirs[0], "req/s", "warm_to_nginx")
    return result


async def http_image(gateway: Gateway, handler: str, image: str, plan: Plan, step: Step) -> Result:
    """Warm calls of an HTTP image without a network, beside those of a handler that does the same."""
    places = [(gateway.address, f"/invoke/{name}") for name in (image, handler)]
    loops = [
        wrk_loop("http-image", f"HTTP image, {CLIENTS} clients", *places[0], plan),
        wrk_loop("http-handler", f"handler, {CLIENTS} clients", *places[1], plan),
    ]
    await warm_up(loops, gateway, places)
    return await compared(loops, plan, step, "http_to_handler", "HTTP image / handler")


WITHOUT_RIGHTS = ("setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all")
"""Command that runs a gateway which may not enter network namespaces."""


def why_not_both_ways() -> str | None:
    """Return why a gateway with the right to enter namespaces, and one without, cannot both be started here."""
    if shutil.which(WITHOUT_RIGHTS[0]) is None:
        return f"{WITHOUT_RIGHTS[0]} is not installed: it is part of util-linux"
    return None if netns.permitted() else "network namespaces cannot be entered: run it as root"


async def http_connect(entering: Gateway, connecting: Gateway, image: str, plan: Plan, step: Step) -> Result:
    """Warm calls of an HTTP image over its container's init, beside those straight into its namespace."""
    target = f"/invoke/{image}"
    loops = []
    for gateway, name, title in (
        (connecting, "http-connect", f"HTTP image over init, {CLIENTS} clients"),
        (entering, "http-namespace", f"HTTP image in its namespace, {CLIENTS} clients"),
    ):
        loops.append(wrk_loop(name, title, gateway.address, target, plan))
        await warm_up(loops[-1:], gateway, [(gateway.address, target)])
    title = "HTTP image, over init / in its namespace"
    return await compared(loops, plan, step, "connect_to_namespace", title)


async def compared(loops: list[Loop], plan: Plan, step: Step, name: str, title: str) -> Result:
    """Run two loops by turns, and compare the rate of the first with that of the second."""
    await by_turns(loops, plan.wrk_rounds, step)
    result = Result([series for series, _ in loops])
    first, second = result.series
    result.compare_rates(name, title, first, second, "req/s", name)
    return result


def wrk_loop(name: str, title: str, address: Address, target: str, plan: Plan) -> Loop:
    """A closed loop of wrk's."""
    return Series(name, title), partial(wrk.load, address, target, CLIENTS, plan.seconds)


async def warm_up(loops: list[Loop], gateway: Gateway, places: list[tuple[Address, str]]) -> None:
    """Load every side for a moment, so that all have their instances; their faults count, their times do not."""
    for (series, _), (address, target) in zip(loops, places, strict=True):
        series.faults.update((await wrk.load(address, target, CLIENTS, WARM_UP)).faults)
    await gateway.quiet()


async def open_loop(gateway: Gateway, function: str, lab: Lab, plan: Plan, step: Step) -> Result:
    """Calls at half of the rate that a closed loop reaches, timed from when each was due.

    Beside it the same through nginx, if it is there: how long its tail is, is the machine's doing.
    """
    async with AsyncExitStack() as stack:
        proxy = None
        if references.missing() is None:
            proxy = await stack.enter_async_context(proxied(lab, "responder", plan.responders))
        workers = Workers()
        stack.push_async_callback(workers.stop)
        await workers.start(1, None)
        return await _open_loop(gateway.address, proxy, f"/invoke/{function}", workers, plan, step)


async def _open_loop(
    gateway: Address, proxy: Address | None, target: str, workers: Workers, plan: Plan, step: Step
) -> Result:
    highest = Series("open-loop-maximum", f"closed loop, {CLIENTS} clients")
    series = Series("open-loop", "open loop, half the maximum")
    through_nginx = Series("open-loop-nginx", "nginx at the same rate")
    bounds = Bounds(max(plan.warm_up, 0.2), plan.open_seconds)
    closed = Job(CLIENTS, Bounds(0.2, max(0.3, plan.seconds / 2)), gateway, target)
    await workers.run(closed)
    tails: list[float] = []
    for turn in range(plan.open_rounds):
        # The maximum by the same client on the same machine, anew each round: half of it must be half of it.
        await by_turns([(highest, partial(workers.run, closed))], 1, step)
        if not highest.rates:
            break
        step.show(f"{series.title}, round {turn + 1}", turn / plan.open_rounds)
        rate = highest.rates[-1] / 2
        sides = [(series, gateway)] + ([(through_nginx, proxy)] if proxy else [])
        for side, address in rotated(sides, turn):
            outcome = await workers.run(Job(OPEN_CLIENTS, bounds, address, target, rate))
            side.add(outcome)
            if side is series and len(outcome.latencies):
                tails.append(outcome.latencies.percentile(99) / outcome.latencies.percentile(50))
    result = Result([series, highest] + ([through_nginx] if proxy else []))
    result.judge_median("open_loop", tails)
    return result
