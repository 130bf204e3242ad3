"""Load made by wrk, where a client in Python would be the limit: beside nginx it would take more time than what it
measures. Every answer is checked: status 200 and the greeting of the one name that all calls of a loop carry."""

from __future__ import annotations

import asyncio
import json
import shutil
from asyncio.subprocess import PIPE
from collections import Counter
from pathlib import Path

from bench.client import Address
from bench.figures import Latencies, Outcome
from bench.worker import WorkerFailed

SCRIPT = Path(__file__).with_name("wrk.lua")
TIMEOUT = 5
"""Seconds after which wrk counts an answer as missing."""
LATE = 30.0
"""Seconds that wrk gets beyond its time."""


def missing() -> str | None:
    """Why wrk cannot be used; None if it can."""
    return None if shutil.which("wrk") else "wrk is not installed: as root, `make bench` installs it"


async def load(address: Address, target: str, clients: int, seconds: float, accept: bool = False) -> Outcome:
    """A closed loop of `clients`, for `seconds` rounded up to whole ones. `accept`: the calls are to be run later.
    Raises `WorkerFailed`."""
    whole = max(1, round(seconds + 0.499))
    command = ["wrk", "--threads", "1", "--connections", str(clients), "--duration", f"{whole}s"]
    command += ["--timeout", f"{TIMEOUT}s", "--script", str(SCRIPT), address.url + target]
    command += ["--", "accept"] if accept else []
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, start_new_session=True)
    try:
        async with asyncio.timeout(whole + TIMEOUT + LATE):
            output, errors = await process.communicate()
    except TimeoutError:
        raise WorkerFailed("wrk has not ended in time") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return outcome_of(output.decode(), errors.decode())


def outcome_of(output: str, errors: str = "") -> Outcome:
    """What wrk's script has printed on its last line. Raises `WorkerFailed` if there is no such line."""
    try:
        found = json.loads(output.strip().splitlines()[-1])
        latencies = Latencies()
        for microseconds, count in found["latencies"]:
            latencies.record(microseconds / 1e6, count)
    except (IndexError, ValueError, KeyError, TypeError):
        raise WorkerFailed(f"wrk has failed: {errors.strip() or output.strip()[-500:]}") from None
    faults = Counter({name: count for name, count in found["faults"].items() if count})
    right = found["requests"] - faults["wrong answer"]
    return Outcome(latencies, right / found["seconds"], found["requests"], faults, Counter())
