"""Scenario of a function with a requirements.txt: its first call when an instance is kept ready, and when none is."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench.client import CallFailed
from bench.figures import Series
from bench.gateways import AT_REST, POLL, QUIET_TIMEOUT, ROOT, SETTLE, Gateway, GatewayFault
from bench.scenarios import Plan, Result, note, rotated
from gateway.setup.progress import Step

PACKED = "bench-packed"


def declared(folder: Path, package: str) -> dict[str, str]:
    """Write a function that greets and imports a package; returns its keys. Without a package it imports none."""
    place = folder / PACKED
    shutil.copytree(ROOT / "functions/hello", place)
    handler = place / "handler.py"
    if package:
        handler.write_text(f"import {package}\n\n{handler.read_text()}")
    (place / "requirements.txt").write_text(f"{package}\n")
    return {PACKED: f"runtime: python, source: {PACKED}, handler: 'handler:handle', memory: 256MiB"}


async def first_calls(gateway: Gateway, plan: Plan, step: Step) -> Result:
    """By turns: a call that finds a spare, and one that comes when there is no instance."""
    what = plan.package or "nothing"
    kept = Series("ready", f"first call, {what} imported ahead")
    none = Series("not-ready", f"first call, {what} imported for it")
    kinds: list[tuple[Series, Callable[[], Awaitable[None]], str]] = [
        (kept, lambda: spare_of(gateway), "prewarmed"),
        (none, lambda: remove(gateway), "cold"),
    ]
    for turn in range(plan.ready_samples):
        for at, (series, prepare, expected) in enumerate(rotated(kinds, turn)):
            done = (turn * len(kinds) + at) / (plan.ready_samples * len(kinds))
            step.show(f"{series.title}, {turn + 1} of {plan.ready_samples}", done)
            await remove(gateway)
            await prepare()
            try:
                took, start = await gateway.first_call(PACKED)
            except CallFailed as error:
                series.faults[str(error)] += 1
                continue
            series.starts[start] += 1
            if start == expected:
                note(series, took)
            else:
                series.faults[f"started {start or 'in no known way'}, not {expected}"] += 1
    result = Result([kept, none])
    result.compare("ready_to_not_ready", "kept ready / not ready", kept, none)
    result.judge_median("ready", kept.samples)
    return result


async def spare_of(gateway: Gateway) -> None:
    """Wait until the function has an instance that nobody has called. Raises `GatewayFault`."""
    ends = time.monotonic() + QUIET_TIMEOUT
    while time.monotonic() < ends:
        if any(i["state"] in AT_REST and not i["served"] for i in await instances(gateway)):
            await gateway.quiet()
            return
        await asyncio.sleep(POLL)
    raise GatewayFault(f"{PACKED} has had no spare for {QUIET_TIMEOUT:g} s")


async def remove(gateway: Gateway) -> None:
    """Have the function's instances removed, and wait until these are gone; a spare may follow."""
    gone = {i["id"] for i in await instances(gateway)}
    for id in gone:
        await gateway.remove(id)
    while gone & {i["id"] for i in await instances(gateway)}:
        await asyncio.sleep(SETTLE / 10)


async def instances(gateway: Gateway) -> list[dict[str, Any]]:
    """The function's instances, in every state."""
    found: list[dict[str, Any]] = await gateway.get(f"/pool/instances?function={PACKED}")
    return found
