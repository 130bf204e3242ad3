"""Load a gateway and say how fast it answers, beside what the same calls cost without it.

See docs/benchmark.md for what each scenario measures and how to read it.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(
    ROOT
)  # run as a file, from anywhere: `bench` and what it measures are found in this checkout

import click  # noqa: E402
import uvloop  # noqa: E402
from rich.console import Console  # noqa: E402

from bench.client import BadUrl, CallFailed, loopback_address  # noqa: E402
from bench.gateways import GatewayFault, declare  # noqa: E402
from bench.plots import NoPlots, draw  # noqa: E402
from bench.report import Report, markdown  # noqa: E402
from bench.runs import SCENARIOS, Choice, fresh_names, run  # noqa: E402
from bench.scenarios import QUICK, Plan  # noqa: E402
from bench.worker import WorkerFailed  # noqa: E402
from pool.engine.base import EngineError  # noqa: E402

DEFAULT_URL = "http://127.0.0.1:8080"
REPORT_WIDTH = 110
"""Characters, where the report does not go to a terminal that has a width."""

EXAMPLES = """\b
Examples:
  python bench/load.py                          the gateway that `make serve` has started
  python bench/load.py --start                  a gateway of its own: all scenarios
  python bench/load.py --start --quick          less than a minute: does everything work?
  python bench/load.py --start --scenario warm --clients 1 --clients 64 --processes 2
  python bench/load.py --start --scenario prewarmed --scenario cold --samples 100
  python bench/load.py --declare /tmp/many      write a functions.yaml whose functions all scenarios can use;
                                                then `hearth serve --functions /tmp/many/functions.yaml`
"""


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The exceptions in a group, and in the groups in it."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error


def open_files() -> None:
    """Allow as many open files as may be: 2,000 idle clients are as many, here and in the gateway."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


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
    open_files()
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
    table = file.with_suffix(".md")
    table.write_text(markdown(outcome))
    print(f"Table: {table}")
    try:
        for picture in draw(outcome.as_json(), file.with_suffix("")):
            print(f"Picture: {picture}")
    except NoPlots as missing:
        print(f"No pictures: {missing}")
    sys.exit(1 if outcome.faults else 0)


if __name__ == "__main__":
    main()
