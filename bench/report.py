"""What a run has found, as tables for people and as a file for programs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.figures import Ratio, Series

SCHEMA = 1
"""Of the result file; grows when a reader of the old one could misread the new one."""


@dataclass(slots=True)
class Report:
    """One run."""

    run: str
    """Its id; the containers of its references carry it as a label."""
    began: str
    """ISO 8601, UTC."""
    command: list[str]
    machine: dict[str, Any]
    settings: dict[str, Any]
    gateway: dict[str, Any]
    series: list[Series] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)
    """Scenario to why."""
    seconds: float = 0.0

    @property
    def faults(self) -> Counter[str]:
        """Answers that were not right, all series together."""
        return sum((series.faults for series in self.series), Counter[str]())

    def as_json(self) -> dict[str, Any]:
        """The result file's content; docs/benchmark.md says what it means."""
        return {
            "schema": SCHEMA,
            "run": self.run,
            "began": self.began,
            "seconds": self.seconds,
            "command": self.command,
            "machine": self.machine,
            "settings": self.settings,
            "gateway": self.gateway,
            "ratios": {ratio.name: ratio.as_json() for ratio in self.ratios},
            "series": {series.name: series.as_json() for series in self.series},
            "not_run": self.not_run,
            "faults": dict(self.faults),
        }

    def write(self, file: Path) -> None:
        """Write the result file, whole or not at all. Raises OSError."""
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(file.name + ".new")
        fresh.write_text(json.dumps(self.as_json(), indent=1) + "\n")
        fresh.replace(file)

    def show(self, console: Console) -> None:
        """Print ratios, latencies, and loudly what went wrong."""
        if self.ratios:
            console.print(ratio_table(self.ratios))
        if self.series:
            console.print(series_table(self.series))
        for scenario, why in self.not_run.items():
            console.print(f"[yellow]not run:[/] {scenario}: {escape(why)}", soft_wrap=True)
        for series in self.series:
            for fault, count in series.faults.most_common():
                console.print(f"[bold red]FAULT[/] {series.title}: {count} × {escape(fault)}", soft_wrap=True)
        if self.faults:
            console.print("[bold red]Some answers were not right: these figures are worth nothing.[/]")


def ratio_table(ratios: list[Ratio]) -> Table:
    """The main figures."""
    table = new_table(
        "Ratios: medians of samples taken side by side", "ratio", "quartiles", "ms", "adds ms", "pairs"
    )
    for ratio in ratios:
        table.add_row(
            ratio.title,
            f"[bold]{figure(ratio.value)}[/]",
            f"{figure(ratio.low)}–{figure(ratio.high)}",
            f"{figure(ratio.measured_ms)}/{figure(ratio.reference_ms)}",
            figure(ratio.added_ms, "+"),
            str(ratio.pairs),
        )
    return table


def series_table(series: list[Series]) -> Table:
    """Percentiles of everything that was measured."""
    names = list(series[0].latencies.summary())
    table = new_table("Latencies of single calls, ms", *names, "calls", "req/s")
    for one in series:
        summary = one.latencies.summary()
        table.add_row(
            one.title,
            *(figure(summary[name]) if len(one.latencies) else "–" for name in names),
            f"{len(one.latencies)}",
            f"{one.rate:.0f}" if one.rate is not None else "",
        )
    return table


def new_table(title: str, *headings: str) -> Table:
    """A table whose first column says what each row is, and the others hold numbers."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def figure(value: float, sign: str = "") -> str:
    """A number with three digits that mean something, and never with an exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:{sign}.{digits}f}"
