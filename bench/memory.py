"""What a gateway and its instances hold in memory, and how long it takes to load many functions.

  python -m bench.memory                        a gateway with 1 function, one with 1,000, and an instance
  python -m bench.memory --functions 100 --code 64KiB

Both gateways are started for this and stopped at the end; the engine must run. RSS counts pages that are shared with
other processes; *anonymous* are a process's own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.client import CallFailed
from bench.gateways import Gateway, GatewayFault, declare, own_gateway
from bench.processes import anonymous, peak_resident, resident
from pool.engine.base import Engine, EngineError
from pool.engine.docker import DockerEngine
from pool.observe.metrics import Metrics
from scheduler.definitions.language.units import format_size, parse_size

MIB = 2**20
BUDGET = 2**30
CALLS = 100


@dataclass(frozen=True, slots=True)
class Held:
    """Memory of a process, bytes."""

    what: str
    resident: int
    anonymous: int
    peak: int

    @classmethod
    def by(cls, pid: int, what: str) -> Held:
        """What a process holds now. Raises OSError if it is gone."""
        return cls(what, resident(pid), anonymous(pid), peak_resident(pid))

    def __str__(self) -> str:
        sizes = f"{self.resident / MIB:8.1f} {self.anonymous / MIB:10.1f} {self.peak / MIB:8.1f}"
        return f"{self.what:<44}{sizes}"


async def measure(engine: Engine, folder: Path, functions: int, code: int) -> list[Held]:
    """Start the gateways, one after the other, and look. Raises `GatewayFault`, `CallFailed` and `EngineError`."""
    few = declare(folder / "few", ["hello"], prewarm=1)
    (folder / "one").mkdir()
    async with own_gateway(engine, few, folder / "one", BUDGET) as gateway:
        await gateway.quiet()
        found = [Held.by(await _process(engine, gateway), "instance, prewarmed")]
        await gateway.call("hello")
        called = await _process(engine, gateway, "hello")
        found.append(Held.by(called, "instance, after its first call"))
        for _ in range(CALLS):
            await gateway.call("hello")
        found.append(Held.by(called, f"instance, after {CALLS} more"))
        found.append(Held.by(gateway.own_pid, "gateway, 1 function"))
    names = [f"hello-{number:04}" for number in range(functions)]
    file = _with_code(folder / "code", names, code) if code else declare(folder / "many", names, prewarm=0)
    (folder / "all").mkdir()
    began = time.monotonic()
    async with own_gateway(engine, file, folder / "all", BUDGET) as gateway:
        ready = time.monotonic() - began
        for _ in range(CALLS):
            await gateway.call(names[0])
        found.append(Held.by(gateway.own_pid, f"gateway, {functions:,} functions, ready after {ready:.1f} s"))
    return found


async def _process(engine: Engine, gateway: Gateway, function: str | None = None) -> int:
    instances = [i for i in await gateway.get("/pool/instances") if i["function"] == function]
    return (await engine.inspect(instances[0]["container"])).pid


def _with_code(folder: Path, names: list[str], size: int) -> Path:
    """A functions.yaml of functions with code of their own, `size` bytes each that do not compress."""
    file = declare(folder, [], prewarm=0)
    hello = (folder / "hello/handler.py").read_bytes()
    lines = ["version: 1", "functions:"]
    for name in names:
        (folder / name).mkdir()
        (folder / name / "handler.py").write_bytes(hello)
        (folder / name / "data.bin").write_bytes(os.urandom(size))
        lines.append(f"  {name}: {{runtime: python, source: {name}, handler: 'handler:handle'}}")
    file.write_text("\n".join(lines) + "\n")
    return file


async def run(functions: int, code: int) -> list[Held]:
    """The same on the engine of `DOCKER_HOST`, in a folder of its own."""
    engine = DockerEngine(None, Metrics())
    try:
        with tempfile.TemporaryDirectory(prefix="hearth-memory-") as folder:
            return await measure(engine, Path(folder), functions, code)
    finally:
        await engine.close()


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--functions", type=int, default=1000, help="how many are registered (1000)")
    parser.add_argument(
        "--code",
        type=parse_size,
        default=0,
        help="code that each has of its own; default: all share one source",
    )
    options = parser.parse_args(arguments)
    try:
        found = asyncio.run(run(options.functions, options.code))
    except (GatewayFault, CallFailed, EngineError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{'MiB':<44}{'RSS':>8} {'anonymous':>10} {'peak':>8}")
    for held in found:
        print(held)
    few, many = found[-2:]
    print(f"{options.functions:,} functions / 1: {many.resident / few.resident:.3f}", end="")
    print(f", with {format_size(options.code)} of code each" if options.code else "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
