"""The scenario of long bodies: MiB a second through the gateway and through nginx, and the memory they take."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

from bench.client import Address
from bench.figures import Latencies, Outcome, Series
from bench.gateways import Gateway
from bench.processes import forget_peak, peak_resident, resident
from bench.scenarios import Lab, Loop, Plan, Result, by_turns
from bench.streamer import BLOCK, is_pattern, pattern
from bench.throughput import proxied
from gateway.setup.progress import Step

MIB = 2**20
TIMEOUT = 60.0


async def stream(gateway: Gateway, function: str, lab: Lab, plan: Plan, step: Step) -> Result:
    """Long bodies either way, through the gateway and through nginx, to equal containers."""
    result, target = Result(), f"/invoke/{function}"
    async with proxied(lab, "streamer", 1) as proxy:
        loops: list[Loop] = []
        for name, transfer in (("download", download), ("upload", upload)):
            for whose, address in (("gateway", gateway.address), ("nginx", proxy)):
                # Instances are there, and what streaming imports is imported, before memory is looked at.
                faults = (await timed(transfer, address, target, BLOCK)).faults
                series = Series(f"{name}-{whose}", f"{name}, {whose}", faults=faults)
                loops.append((series, partial(timed, transfer, address, target, plan.stream_size)))
        before = resident(gateway.own_pid)
        forget_peak(gateway.own_pid)
        await by_turns(loops, plan.stream_rounds, step)
        grown = (peak_resident(gateway.own_pid) - before) / MIB
    result.series = [series for series, _ in loops]
    for at, name in ((0, "download"), (2, "upload")):
        ours, theirs = result.series[at : at + 2]
        result.compare_rates(f"{name}_to_nginx", f"{name} / nginx", ours, theirs, "MiB/s", f"{name}_to_nginx")
    result.judge_median("stream_memory", [max(0.0, grown)])
    return result


Transfer = Callable[[http.client.HTTPConnection, str, int, bytes], str | None]


async def timed(transfer: Transfer, address: Address, target: str, size: int) -> Outcome:
    """One transfer, in a thread. Its rate is in MiB/s; connecting does not count."""
    return await asyncio.to_thread(_timed, transfer, address, target, size)


def _timed(transfer: Transfer, address: Address, target: str, size: int) -> Outcome:
    outcome = Outcome(Latencies(), 0.0, 1, Counter(), Counter())
    connection = http.client.HTTPConnection(address.host, address.port, TIMEOUT)
    twice = pattern()
    try:
        connection.connect()
        began = time.perf_counter()
        fault = transfer(connection, target, size, twice)
        took = time.perf_counter() - began
    except (OSError, http.client.HTTPException) as error:
        fault, took = f"stream broken: {type(error).__name__}", 0.0
    finally:
        connection.close()
    if fault is not None:
        outcome.faults[fault] += 1
    else:
        outcome.latencies.record(took)
        outcome.rate = size / MIB / took
    return outcome


def download(connection: http.client.HTTPConnection, target: str, size: int, twice: bytes) -> str | None:
    """Take a long body; what was wrong with it, or None."""
    connection.request("GET", f"{target}/{size}")
    answer = connection.getresponse()
    if answer.status != 200:
        return f"status {answer.status}"
    at, right = 0, True
    while piece := answer.read1(BLOCK):
        right = right and is_pattern(piece, at, twice)
        at += len(piece)
    return None if right and at == size else "wrong body"


def upload(connection: http.client.HTTPConnection, target: str, size: int, twice: bytes) -> str | None:
    """Send a long body; what was wrong with the answer, or None."""
    connection.putrequest("POST", target)
    connection.putheader("Content-Type", "application/octet-stream")
    connection.putheader("Content-Length", str(size))
    connection.endheaders()
    for at in range(0, size, BLOCK):
        connection.send(twice[: min(BLOCK, size - at)])
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        return f"status {answer.status}"
    return None if body == str(size).encode() else "wrong body"
