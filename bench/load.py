"""Load a gateway and say how fast it answers, beside what the same calls cost without it.

See docs/benchmark.md for what each scenario measures and how to read it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(
    ROOT
)  # run as a file, from anywhere: `bench` and what it measures are found in this checkout

import click  # noqa: E402
import uvloop  # noqa: E402
from rich.console import Console  # noqa: E402

from bench import scenarios  # noqa: E402
from bench.client import Address, BadUrl, CallFailed, loopback_address  # noqa: E402
from bench.gateways import Gateway, GatewayFault, declare, own_gateway, running_gateway  # noqa: E402
from bench.instances import remove_all, workload_of  # noqa: E402
from bench.machine import describe  # noqa: E402
from bench.report import Report  # noqa: E402
from bench.scenarios import QUICK, Lab, Plan, Result  # noqa: E402
from bench.worker import WorkerFailed  # noqa: E402
from deploy.progress import step  # noqa: E402
from pool.engine.base import EngineError  # noqa: E402
from pool.engine.docker import DockerEngine  # noqa: E402
from pool.metrics import Metrics  # noqa: E402
from scheduler.definitions import load  # noqa: E402

SCENARIOS = ("warm", "prewarmed", "cold", "burst")
DEFAULT_URL = "http://127.0.0.1:8080"
MEMORY_PER_FUNCTION = 2**28
"""Bytes that the benchmark's own gateway may declare for each call at once: no sample shall wait for memory."""
REPORT_WIDTH = 110
"""Characters, where the report does not go to a terminal that has a width."""

EXAMPLES = """\b
Examples:
  python bench/load.py                          the gateway that `make serve` has started
  python bench/load.py --start                  a gateway of its own: all scenarios
  python bench/load.py --start --quick          a few seconds: does everything work?
  python bench/load.py --start --scenario warm --clients 1 --clients 64 --processes 2
  python bench/load.py --start --scenario prewarmed --scenario cold --samples 100
  python bench/load.py --declare /tmp/many      write a functions.yaml whose functions all scenarios can use;
                                                then `hearth serve --functions /tmp/many/functions.yaml`
"""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was asked for on the command line."""

    address: Address | None
    """None: a gateway of our own."""
    function: str
    wanted: tuple[str, ...]
    insist: bool
    """Whether a scenario that cannot be run is a failure: it was asked for by name."""
    plan: Plan


def fresh_names(count: int) -> list[str]:
    """Names of equal functions that are there to be called for the first time."""
    return [f"hello-{number:03}" for number in range(count)]


async def run(choice: Choice, console: Console) -> Report:
    """Run the scenarios. Whatever happens, nothing is left on the engine."""
    began = time.monotonic()
    run_id = uuid.uuid4().hex
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hearth-bench-")))
        engine = DockerEngine(None, Metrics())
        stack.push_async_callback(engine.close)
        stack.push_async_callback(remove_all, engine, run_id)
        report = Report(
            run=run_id,
            began=datetime.now(UTC).isoformat(timespec="seconds"),
            command=sys.argv,
            machine=describe(await engine.info()),
            settings=asdict(choice.plan) | {"function": choice.function, "scenarios": list(choice.wanted)},
            gateway={},
        )
        definition = load(declare(folder / "reference", ["hello"], 0)).functions["hello"]
        workload = await workload_of(engine, definition)
        lab = Lab(engine, workload, folder / "run", run_id)
        if choice.address is None:
            await load_own(choice, lab, report, console)
        else:
            await load_running(choice, choice.address, lab, report, console)
    report.seconds = round(time.monotonic() - began, 3)
    return report


async def load_own(choice: Choice, lab: Lab, report: Report, console: Console) -> None:
    """The scenarios on gateways of our own: one that keeps instances prewarmed, and one that keeps none."""
    plan, wanted = choice.plan, choice.wanted
    names = fresh_names(plan.fresh_functions)
    report.gateway = {"own": True, "prewarm": plan.prewarm}
    memory = MEMORY_PER_FUNCTION * (plan.burst + plan.prewarm + max(plan.clients))
    async with AsyncExitStack() as stack:

        async def start(name: str, prewarm: int) -> Gateway:
            file = declare(lab.folder.parent / f"{name}-functions", [choice.function, *names], prewarm)
            with step(f"Starting a gateway with {prewarm} prewarmed instances", console):
                own = own_gateway(lab.engine, file, Path(tempfile.mkdtemp(dir=file.parent)), memory)
                gateway = await stack.enter_async_context(own)
                await gateway.in_service(names, prewarmed=prewarm > 0)
                await gateway.find_fresh(names)
                await gateway.quiet()
            return gateway

        keeping = await start("keeping", plan.prewarm) if set(wanted) != {"cold"} else None
        empty = await start("empty", 0) if "cold" in wanted else None
        if keeping is not None and "warm" in wanted:
            await do_warm(keeping, choice, lab, report, console)
        if "prewarmed" in wanted or empty is not None:
            await do_first_calls(
                keeping if "prewarmed" in wanted else None, empty, plan, lab, report, console
            )
        if keeping is not None and "burst" in wanted:
            await do_burst(keeping, plan, lab, report, console)


async def load_running(choice: Choice, address: Address, lab: Lab, report: Report, console: Console) -> None:
    """Those scenarios that a gateway that runs already allows. Raises `GatewayFault` if one was insisted on."""
    plan, wanted = choice.plan, choice.wanted
    async with running_gateway(address) as gateway:
        await gateway.find_fresh(fresh_names(1000))
        keeps = await gateway.keeps_prewarmed()
        report.gateway = {"own": False, "url": address.url, "prewarm": keeps}
        report.not_run = reasons_against(choice, keeps, gateway.fresh_count)
        if report.not_run and choice.insist:
            raise GatewayFault("; ".join(f"{name}: {why}" for name, why in report.not_run.items()))
        possible = [name for name in wanted if name not in report.not_run]
        if "warm" in possible:
            await check_greeting(gateway, choice.function)
            await do_warm(gateway, choice, lab, report, console)
        if first := {"prewarmed", "cold"} & set(possible):
            kinds = (gateway if "prewarmed" in first else None, gateway if "cold" in first else None)
            await do_first_calls(*kinds, plan, lab, report, console)
        if "burst" in possible:
            await do_burst(gateway, plan, lab, report, console)


async def check_greeting(gateway: Gateway, function: str) -> None:
    """Raises `GatewayFault` if a function of a running gateway does not answer as it must."""
    try:
        await gateway.first_call(function)
    except CallFailed as error:
        raise GatewayFault(f"{function} does not greet as functions/hello does: {error}") from error


def reasons_against(choice: Choice, keeps_prewarmed: bool, fresh: int) -> dict[str, str]:
    """Why scenarios cannot be run on a running gateway: it has one prewarm setting, and functions of its own."""
    plan, reasons = choice.plan, {}
    for name in choice.wanted:
        needed = {"prewarmed": plan.samples, "cold": plan.samples, "burst": plan.burst * plan.bursts}.get(
            name, 0
        )
        if name == "cold" and keeps_prewarmed:
            reasons[name] = "this gateway keeps prewarmed instances; --start measures both"
        elif name == "prewarmed" and not keeps_prewarmed:
            reasons[name] = "this gateway keeps no prewarmed instances; --start measures both"
        elif fresh < needed:
            reasons[name] = (
                f"needs {needed} functions that were never called, {fresh} are left; "
                "use --start, or serve what --declare writes"
            )
        else:
            fresh -= needed
    return reasons


async def do_warm(gateway: Gateway, choice: Choice, lab: Lab, report: Report, console: Console) -> None:
    """Run the scenario warm and take its result into the report."""
    with step("Warm calls, beside direct ones", console) as shown:
        take(report, await scenarios.warm(gateway, choice.function, lab, choice.plan, shown))


async def do_first_calls(
    prewarmed: Gateway | None, cold: Gateway | None, plan: Plan, lab: Lab, report: Report, console: Console
) -> None:
    """Run the scenarios prewarmed and cold by turns and take their result into the report."""
    with step("First calls, beside raw starts", console) as shown:
        take(report, await scenarios.first_calls(prewarmed, cold, lab, plan, shown))


async def do_burst(gateway: Gateway, plan: Plan, lab: Lab, report: Report, console: Console) -> None:
    """Run the scenario burst and take its result into the report."""
    with step("Bursts of first calls, beside raw starts", console) as shown:
        take(report, await scenarios.burst(gateway, lab, plan, shown))


def take(report: Report, result: Result) -> None:
    """Add a scenario's result."""
    report.series += result.series
    report.ratios += result.ratios


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The exceptions in a group, and in the groups in it."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error


def run_until_signal(choice: Choice, console: Console) -> Report | int:
    """Run to the end, or to the first SIGINT or SIGTERM (its number is returned); later ones change nothing,
    so that what is on the engine is removed in any case."""
    caught: list[int] = []

    async def guarded() -> Report:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(run(choice, console))

        def stop(number: int) -> None:
            if not caught:
                console.print("Stopping: containers are being removed")
                task.cancel()
            caught.append(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        return await task

    try:
        return uvloop.run(guarded())
    except asyncio.CancelledError:
        return caught[0]


PLAN = Plan()
Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def amount(name: str, least: float, most: float, default: float, what: str, **more: Any) -> Decorator:
    """An option that is a number within bounds. No value is None, so that --quick can have its own."""
    kind = click.FloatRange(least, most) if isinstance(default, float) else click.IntRange(least, most)
    text = f"{what}  [default: {more.pop('shown', f'{default:g}')}]"
    return click.option(name, type=kind, metavar="N", help=text, **more)


@click.command(help=__doc__, epilog=EXAMPLES)
@click.option("--url", help=f"A gateway that runs, on this machine's loopback.  [default: {DEFAULT_URL}]")
@click.option(
    "--start", is_flag=True, help="Start gateways of the benchmark's own, and stop them at the end."
)
@click.option(
    "--scenario",
    "wanted",
    multiple=True,
    type=click.Choice(SCENARIOS),
    help="May be repeated.  [default: all, or those that a running gateway allows]",
)
@click.option(
    "--function", default="hello", show_default=True, help="What warm calls; greets as functions/hello does."
)
@amount("--clients", 1, 1000, 1, "warm: at once; may be repeated.", multiple=True, shown="1 and 16")
@amount("--processes", 1, 64, PLAN.processes, "warm: that the clients are spread over.")
@amount("--seconds", 0.05, 600, PLAN.seconds, "warm: of each loop.")
@amount("--rounds", 1, 1000, PLAN.rounds, "warm: loops of each kind, by turns.")
@amount("--samples", 1, 900, PLAN.samples, "prewarmed, cold: first calls of each kind.")
@amount("--burst", 1, 256, PLAN.burst, "burst: calls at once.")
@amount("--bursts", 1, 100, PLAN.bursts, "burst: how often.")
@amount("--prewarm", 1, 64, PLAN.prewarm, "Instances that a gateway of the benchmark's own keeps ready.")
@click.option("--quick", is_flag=True, help="Everything once, in seconds: for CI, not for figures.")
@click.option(
    "--json",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Result file.  [default: a new one in bench/results]",
)
@click.option(
    "--declare",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write a functions.yaml that serves every scenario into a folder, and end.",
)
def main(
    url: str | None,
    start: bool,
    wanted: tuple[str, ...],
    function: str,
    quick: bool,
    file: Path | None,
    folder: Path | None,
    **amounts: object,
) -> None:
    """The command line."""
    given = {name: value for name, value in amounts.items() if value not in (None, ())}
    plan = replace(QUICK if quick else PLAN, **given)  # type: ignore[arg-type]
    if plan.fresh_functions > 1000:
        raise click.UsageError(
            "samples + burst × bursts may be 1000 at most: each needs a function of its own"
        )
    if start and url:
        raise click.UsageError("--start and --url exclude each other")
    if folder is not None:
        print(declare(folder, ["hello", *fresh_names(plan.fresh_functions)], plan.prewarm))
        return
    try:
        address = None if start else loopback_address(url or DEFAULT_URL)
    except BadUrl as error:
        raise click.UsageError(str(error)) from None
    console = Console(stderr=True, highlight=False)
    choice = Choice(
        address, function, tuple(s for s in SCENARIOS if s in (wanted or SCENARIOS)), bool(wanted), plan
    )
    try:
        outcome = run_until_signal(choice, console)
    except* (GatewayFault, WorkerFailed, CallFailed, EngineError, OSError) as group:
        for fault in leaves(group):
            console.print(f"error: {fault}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)
    if isinstance(outcome, int):
        sys.exit(128 + outcome)
    outcome.show(Console(highlight=False, width=None if sys.stdout.isatty() else REPORT_WIDTH))
    file = file or ROOT / "bench/results" / f"{outcome.began.replace(':', '')[:17]}-{os.getpid()}.json"
    outcome.write(file)
    print(f"Result file: {file}")
    sys.exit(1 if outcome.faults else 0)


if __name__ == "__main__":
    main()
