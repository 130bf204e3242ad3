"""Pictures of a run, as PNG: latency by percentile, a burst as it is answered, and the targets."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.figures import Latencies

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GOOD, BAD, GREY = "#1b7f5c", "#c2571a", "#8a8f98"
COLOURS = {"prewarmed": "#1b7f5c", "cold": "#2f6fb3", "warm": "#d9a21b", "raw": GREY}
CURVES = (
    ("warm-1", "gateway, 1 client", "#2f6fb3", "-"),
    ("wrk-gateway", "gateway, 16 clients", "#2f6fb3", "--"),
    ("open-loop", "gateway, open loop at half its maximum", "#d9a21b", "-"),
    ("open-loop-nginx", "nginx at the same rate", GREY, "-"),
    ("warm-direct", "direct, 1 client", GOOD, "-"),
    ("wrk-nginx", "nginx, 16 clients", GREY, "--"),
)
PLATE = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
"""Behind text, so that no line crosses it."""
NINES = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999)


class NoPlots(Exception):
    """matplotlib is not installed: `pip install hearth-faas[bench]`."""


def draw(result: dict[str, Any], stem: Path) -> list[Path]:
    """Draw what a result file's content has the figures for, beside it: `stem`-latency.png and so on.

    Raises `NoPlots` and OSError.
    """
    try:
        import matplotlib
    except ImportError:
        raise NoPlots(NoPlots.__doc__) from None
    matplotlib.use("agg")
    from matplotlib import pyplot

    style: Any = {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e6e8eb",
        "axes.edgecolor": "#b5bac2",
        "axes.axisbelow": True,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "legend.frameon": False,
        "figure.dpi": 150,
    }
    pictures: dict[str, tuple[bool, Callable[[Axes, dict[str, Any]], None], float]] = {
        "latency": (any(name in result["series"] for name, *_ in CURVES), latency, 4.6),
        "burst": (bool(result["series"].get("burst", {}).get("timeline")), burst, 4.2),
        "targets": (bool(result["targets"]), targets, 1.4 + 0.32 * len(result["targets"])),
    }
    drawn = []
    for name, (possible, picture, height) in pictures.items():
        if not possible:
            continue
        with pyplot.rc_context(style):
            figure, axes = pyplot.subplots(figsize=(8.6, height), layout="constrained")
            picture(axes, result)
            file = stem.with_name(f"{stem.name}-{name}.png")
            figure.savefig(file)
            pyplot.close(figure)
        drawn.append(file)
    return drawn


def latency(axes: Axes, result: dict[str, Any]) -> None:
    """Latency by percentile; the axis has as much room for each further nine."""
    nines = 1.0
    for name, title, colour, line in CURVES:
        if (series := result["series"].get(name)) is None or not series["count"]:
            continue
        found = Latencies.decode(series["histogram"])
        last = math.log10(series["count"])  # beyond, single calls would be taken for percentiles
        steps = [last * step / 300 for step in range(301)]
        values = [found.percentile(100 * (1 - 10**-step)) for step in steps]
        axes.plot(steps, values, line, color=colour, label=title, linewidth=1.7)
        nines = max(nines, last)
    marks = [percent for percent in NINES if nines_of(percent) <= nines]
    axes.set_xticks([nines_of(percent) for percent in marks], [f"{percent:g} %" for percent in marks])
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlim(0, nines)
    axes.set_xlabel("percentile of calls")
    axes.set_ylabel("latency, ms")
    axes.set_title("Warm calls: latency by percentile")
    axes.legend()


def nines_of(percent: float) -> float:
    """Where a percentile stands on the axis: 90 % at 1, 99 % at 2."""
    return -math.log10(1 - percent / 100)


def burst(axes: Axes, result: dict[str, Any]) -> None:
    """How many calls of the last burst were answered by when, coloured by the kind of their start."""
    series = result["series"]
    raw = sorted(series.get("burst-raw", {}).get("timeline", []))
    if raw:
        times = [0.0, *(when for when, _ in raw)]
        axes.step(times, range(len(times)), where="post", color=GREY, label="raw starts", linewidth=1.5)
    answered = sorted(series["burst"]["timeline"])
    for kind in ("warm", "prewarmed", "cold"):
        points = [(when, number) for number, (when, how) in enumerate(answered, 1) if how == kind]
        if points:
            whens, numbers = zip(*points, strict=True)
            axes.scatter(whens, numbers, s=26, color=COLOURS[kind], label=kind, zorder=3)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("ms since the calls were sent")
    axes.set_ylabel("answered")
    axes.set_title(f"{len(answered)} first calls at once, by how their instance started")
    axes.legend(loc="lower right")


def targets(axes: Axes, result: dict[str, Any]) -> None:
    """How much of what each target allows is used: to the line it is met. The scale is logarithmic."""
    found = list(result["targets"].values())[::-1]
    used = [share(target) for target in found]
    lowest = 0.02
    colours = [GOOD if target["met"] else BAD for target in found]
    # A bar begins at the axis' left end: on a logarithmic scale there is no zero.
    widths = [max(value, lowest * 1.02) - lowest for value in used]
    axes.barh(range(len(found)), widths, left=lowest, color=colours, height=0.62)
    for at, (target, value) in enumerate(zip(found, used, strict=True)):
        unit = f" {target['unit']}" if target["unit"] else ""
        sign = "≥" if target["at_least"] else "≤"
        text = f"{target['value']:.3g}{unit}  ({sign} {target['limit']:.3g})"
        axes.text(max(value, lowest) * 1.06, at, text, va="center", fontsize=8, color="#3a3f47", bbox=PLATE)
    axes.axvline(1, color="#3a3f47", linewidth=1.2, zorder=1.5)
    axes.set_xscale("log")
    axes.set_xlim(lowest, max(4.0, 4 * max(used)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_yticks(range(len(found)), [target["title"] for target in found])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(
        "measured / target, or target / measured where more is better; 1 or less is met", loc="right"
    )
    axes.set_title("Targets")


def share(target: dict[str, Any]) -> float:
    """How much of what a target allows is used; 1 meets it exactly."""
    value, limit = target["value"], target["limit"]
    if target["at_least"]:
        return float(limit / value) if value > 0 else math.inf
    return float(max(0.0, value / limit))
