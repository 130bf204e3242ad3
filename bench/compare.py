"""What has changed between two result files of the benchmark.

A figure has changed if its two ranges, from the first to the third quartile of its samples, lie apart: what moves
less than one run's samples differ among themselves is noise.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # run as a file: `bench` is found in this checkout

import click  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from bench.figures import quartiles  # noqa: E402
from bench.report import SCHEMA, figure, new_table  # noqa: E402

Range = tuple[float, float, float]
"""First quartile, median, third quartile."""


@dataclass(frozen=True, slots=True)
class Change:
    """One figure in two runs."""

    title: str
    unit: str
    before: Range
    after: Range
    samples: int
    """Of the run that has fewer; with one there is no noise to be seen, and so nothing is said to have changed."""

    @property
    def ratio(self) -> float | None:
        """After / before, medians; None if there was nothing before."""
        return self.after[1] / self.before[1] if self.before[1] > 0 else None

    @property
    def spread(self) -> tuple[float, float] | None:
        """The ratio at least and at most, from quartile to quartile."""
        if self.samples < 2 or self.before[0] <= 0:
            return None
        return self.after[0] / self.before[2], self.after[2] / self.before[0]

    @property
    def changed(self) -> bool:
        """Whether it is more than the noise."""
        spread = self.spread
        return spread is not None and (spread[0] > 1 or spread[1] < 1)


class NoResult(Exception):
    """A file is not a result of the benchmark that can be compared."""


def read(file: Path) -> dict[str, Any]:
    """A result file's content. Raises `NoResult`."""
    try:
        found = json.loads(file.read_text())
        schema = found["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoResult(f"{file}: not a result file: {error}") from error
    if schema != SCHEMA:
        raise NoResult(f"{file}: its schema is {schema}, and this reads {SCHEMA}")
    return dict(found)


def changes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[Change]:
    """The figures that both runs have: ratios, other targets, and each series' time and rate."""
    for name, old in before["ratios"].items():
        if new := after["ratios"].get(name):
            yield Change(old["title"], "", _range(old), _range(new), min(old["pairs"], new["pairs"]))
    for name, old in before["targets"].items():
        new = after["targets"].get(name)
        if new and old["unit"]:  # those without are ratios
            samples = 2 if old["low"] != old["high"] and new["low"] != new["high"] else 1
            yield Change(old["title"], old["unit"], _range(old), _range(new), samples)
    for name, old in before["series"].items():
        if not (new := after["series"].get(name)):
            continue
        for key, unit in (("samples_ms", "ms"), ("rates", "/s")):
            if old[key] and new[key]:
                few = min(len(old[key]), len(new[key]))
                yield Change(old["title"], unit, quartiles(old[key]), quartiles(new[key]), few)


def _range(found: dict[str, Any]) -> Range:
    return found["low"], found["value"], found["high"]


def table(found: Sequence[Change]) -> Table:
    """As people read it."""
    made = new_table("B / A", "A", "B", "", "B / A", "quartiles", "")
    for change in found:
        ratio, spread = change.ratio, change.spread
        made.add_row(
            change.title,
            figure(change.before[1]),
            figure(change.after[1]),
            change.unit,
            f"[bold]{figure(ratio)}[/]" if ratio is not None else "–",
            f"{figure(spread[0])}–{figure(spread[1])}" if spread else "",
            "[bold yellow]changed[/]" if change.changed else "",
        )
    return made


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What of the machines differs, in words: figures of different machines are hardly comparable."""
    keys = ("cpu", "cores", "memory", "kernel", "engine", "cgroup", "python")
    old, new = before["machine"], after["machine"]
    return [f"{key}: {old[key]} and {new[key]}" for key in keys if old.get(key) != new.get(key)]


@click.command(help=__doc__)
@click.argument("a", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("b", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(a: Path, b: Path) -> None:
    """The command line."""
    try:
        before, after = read(a), read(b)
    except NoResult as error:
        raise click.ClickException(str(error)) from None
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    for file, result in ((a, before), (b, after)):
        console.print(
            f"{file.name}: {result['machine']['revision']}, {result['began']}", markup=False, soft_wrap=True
        )
    for difference in differences(before, after):
        console.print(f"[bold yellow]another machine:[/] {difference}", soft_wrap=True)
    console.print(table(list(changes(before, after))))


if __name__ == "__main__":
    main()
