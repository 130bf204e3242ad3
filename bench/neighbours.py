"""Calls of a function while a hostile one is called beside it: what its neighbours pay for an attack."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from bench.closed_loop import Bounds
from bench.figures import Series, paired_ratio
from bench.gateways import POLL, ROOT, Gateway
from bench.scenarios import Plan, Result, rotated
from bench.targets import judge
from bench.worker import Job, Workers
from gateway.setup.progress import Step

ATTACKS_FOLDER = ROOT / "tests/hostile/attacks"
ATTACKS: dict[str, object] = {
    "cpu-spin": None,
    "fork-bomb": None,
    "memory-bomb": None,
    "fill-tmp": None,
    "open-descriptors": None,
    "print-gibibyte": None,
    "write-gibibyte": None,
    "tiny-chunks": 100,
    "dial-storm": 2,
}
"""Those of the catalogue in `tests/hostile` that use something up for a while, and what they are called with."""
PATIENCE = 60.0
PAUSE = 0.05
"""Seconds that the caller of an attack waits after an answer: the attack is the load, not its calls."""


def declared(folder: Path) -> dict[str, str]:
    """Put the attacks into a folder beside functions.yaml; their names and keys: defaults, but for the timeout, since
    an attack that nobody waits for any more goes on until then."""
    for name in ATTACKS:
        place = folder / name
        place.mkdir(parents=True)
        (place / "handler.py").write_text((ATTACKS_FOLDER / f"{name.replace('-', '_')}.py").read_text())
    return {
        name: f"runtime: python, source: {name}, handler: 'handler:handle', timeout: 3s" for name in ATTACKS
    }


@asynccontextmanager
async def under_attack(gateway: Gateway, attack: str) -> AsyncIterator[None]:
    """One client calls a hostile function again and again; at the end its instances are removed."""
    async with httpx.AsyncClient(base_url=gateway.address.url, timeout=PATIENCE, trust_env=False) as client:

        async def call() -> None:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    await client.post(f"/invoke/{attack}", json=ATTACKS[attack])
                await asyncio.sleep(PAUSE)

        calling = asyncio.ensure_future(call())
        try:
            while not any(i["function"] == attack for i in await gateway.get("/pool/instances")):
                await asyncio.sleep(POLL)
            yield
        finally:
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
    await gateway.forget([attack])
    await gateway.quiet()


async def neighbours(gateway: Gateway, function: str, plan: Plan, step: Step) -> Result:
    """Warm calls of one client beside each attack, and alone in the same round: the ratio of their p99."""
    bounds = Bounds(plan.warm_up, plan.seconds)
    job = Job(1, bounds, gateway.address, f"/invoke/{function}")
    alone = Series("neighbour-alone", "a neighbour alone")
    attacks = list(ATTACKS)[: plan.attacks]
    beside = {name: Series(f"neighbour-{name}", f"beside {name}") for name in attacks}
    tails: dict[str, list[float]] = {name: [] for name in ("", *attacks)}
    workers = Workers()
    try:
        await workers.start(1, None)
        for turn in range(plan.neighbour_rounds):
            for at, name in enumerate(rotated(["", *attacks], turn)):
                series = beside[name] if name else alone
                done = (turn * len(tails) + at) / (plan.neighbour_rounds * len(tails))
                step.show(f"{series.title}, round {turn + 1}", done)
                async with under_attack(gateway, name) if name else contextlib.nullcontext():
                    outcome = await workers.run(job)
                series.add(outcome)
                tails[name].append(outcome.latencies.percentile(99) if len(outcome.latencies) else 0.0)
    finally:
        await workers.stop()
    result = Result([alone, *beside.values()])
    ratios = [
        paired_ratio(f"neighbour_{name}", f"p99 beside {name} / alone", tails[name], tails[""])
        for name in attacks
    ]
    result.ratios += [ratio for ratio in ratios if ratio is not None]
    if result.ratios:
        worst = max(result.ratios, key=lambda ratio: ratio.value)
        result.findings.append(judge("neighbours", worst.value, worst.low, worst.high))
    return result
