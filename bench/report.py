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
from bench.targets import TARGETS, Finding

SCHEMA = 2
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
    findings: list[Finding] = field(default_factory=list)
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
            "targets": {finding.target.name: finding.as_json() for finding in self.in_order()},
            "ratios": {ratio.name: ratio.as_json() for ratio in self.ratios},
            "series": {series.name: series.as_json() for series in self.series},
            "not_run": self.not_run,
            "faults": dict(self.faults),
        }

    def in_order(self) -> list[Finding]:
        """The findings, as the targets stand in their table."""
        names = list(TARGETS)
        return sorted(self.findings, key=lambda finding: names.index(finding.target.name))

    def write(self, file: Path) -> None:
        """Write the result file, whole or not at all. Raises OSError."""
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(file.name + ".new")
        fresh.write_text(json.dumps(self.as_json(), indent=1) + "\n")
        fresh.replace(file)

    def show(self, console: Console) -> None:
        """Print targets, ratios, latencies, and loudly what went wrong."""
        if self.findings:
            console.print(target_table(self.in_order()))
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


def target_table(findings: list[Finding]) -> Table:
    """What shall be reached, and what is."""
    table = new_table("Targets", "measured", "quartiles", "target", "")
    for finding in findings:
        target = finding.target
        unit = f" {target.unit}" if target.unit else ""
        table.add_row(
            target.title,
            f"[bold]{figure(finding.value)}{unit}[/]",
            f"{figure(finding.low)}–{figure(finding.high)}" if finding.low != finding.high else "",
            limit_of(finding),
            "met" if finding.met else "[bold yellow]not met[/]",
        )
    return table


def limit_of(finding: Finding) -> str:
    """A target's limit with its direction and unit."""
    target = finding.target
    return (
        f"{'≥' if target.at_least else '≤'} {figure(target.limit)}{' ' + target.unit if target.unit else ''}"
    )


def ratio_table(ratios: list[Ratio]) -> Table:
    """The main figures."""
    table = new_table(
        "Ratios: medians of samples taken side by side",
        "ratio",
        "quartiles",
        "measured/reference",
        "adds",
        "",
        "pairs",
    )
    for ratio in ratios:
        table.add_row(
            ratio.title,
            f"[bold]{figure(ratio.value)}[/]",
            f"{figure(ratio.low)}–{figure(ratio.high)}",
            f"{figure(ratio.measured)}/{figure(ratio.reference)}",
            figure(ratio.added, "+"),
            ratio.unit,
            str(ratio.pairs),
        )
    return table


def series_table(series: list[Series]) -> Table:
    """Percentiles of everything that was measured."""
    names = list(series[0].latencies.summary())
    table = new_table("Latencies of single calls, ms", *names, "calls", "rate/s")
    for one in series:
        summary = one.latencies.summary()
        table.add_row(
            one.title,
            *(figure(summary[name]) if len(one.latencies) else "–" for name in names),
            f"{len(one.latencies)}",
            f"{one.rate:.0f}" if one.rate is not None else "",
        )
    return table


def markdown(report: Report) -> str:
    """The targets and the machine, for a page."""
    machine = report.machine
    lines = [
        "| | measured | quartiles | target | |",
        "|---|---|---|---|---|",
    ]
    for finding in report.in_order():
        unit = f" {finding.target.unit}" if finding.target.unit else ""
        spread = f"{figure(finding.low)}–{figure(finding.high)}" if finding.low != finding.high else ""
        met = "met" if finding.met else "**not met**"
        lines.append(
            f"| {finding.target.title} | {figure(finding.value)}{unit} | {spread} | {limit_of(finding)} | {met} |"
        )
    lines += [
        "",
        f"`{' '.join(command_line(report.command))}` at {machine['revision']}, {report.began}, "
        f"{report.seconds:.0f} s. {machine['cores']} cores ({machine['cpu']}), {machine['memory'] / 2**30:.0f} GiB, "
        f"Linux {machine['kernel']}, engine {machine['engine']}, cgroup v{machine['cgroup']}, "
        f"Python {machine['python']}; load average at the beginning {machine['load_average'][0]:.2f}.",
    ]
    return "\n".join(lines) + "\n"


def command_line(command: list[str]) -> list[str]:
    """A command without the folders of the machine that it ran on."""
    return ["python", "bench/load.py", *command[1:]]


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
