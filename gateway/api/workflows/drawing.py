"""Draws a workflow as a picture (SVG): its steps, what they need, and their status in a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from gateway.api.workflows.layout import Box, layout
from gateway.api.workflows.views import StepView
from scheduler.definitions.workflows import StepDefinition, WorkflowDefinition
from scheduler.workflows.model import StepStatus

MARGIN, TITLE = 24.0, 30.0
HEIGHT = 58.0
LETTER = 7.4
"""Pixels of a letter, about: there is no browser here to ask."""
LONGEST = 26
"""Letters of a name; longer ones are cut, and whole in the box's tooltip."""
NARROWEST = 120.0
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
_NO_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
PLAIN = ("#5b6470", "#f3f4f6", "")
LOOKS: Mapping[StepStatus, tuple[str, str, str]] = {
    StepStatus.PENDING: ("#6b7280", "#f3f4f6", "○"),
    StepStatus.RUNNING: ("#1d5fbf", "#e3eefc", "▶"),
    StepStatus.SUCCEEDED: ("#1a7f43", "#e2f5e9", "✓"),
    StepStatus.FAILED: ("#b42318", "#fde8e6", "✕"),
    StepStatus.SKIPPED: ("#8a6d1c", "#fbf3d9", "↷"),
    StepStatus.CANCELLED: ("#6b4fa0", "#efe9f9", "⊘"),
}
"""Line, fill and sign of a step with this status. The word is beside the sign: colour alone tells nothing."""


def draw(name: str, definition: WorkflowDefinition, steps: Sequence[StepView] = ()) -> bytes:
    """Return the picture of a workflow, or of a run with these `steps`."""
    states = {step.name: step for step in steps}
    texts = {n: _texts(n, step, states.get(n)) for n, step in definition.steps.items()}
    widths = {n: max(NARROWEST, 28 + LETTER * max(map(len, lines))) for n, lines in texts.items()}
    placed = layout({n: step.needs for n, step in definition.steps.items()}, widths, HEIGHT)
    width = max(placed.width, LETTER * 1.2 * len(name)) + 2 * MARGIN
    height = placed.height + 2 * MARGIN + TITLE
    svg = Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width:g} {height:g}",
            "width": f"{width:g}",
            "height": f"{height:g}",
            "role": "img",
            "font-family": FONT,
        },
    )
    SubElement(svg, "title").text = f"workflow {name}"
    _tip(svg)
    SubElement(svg, "rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    _text(svg, MARGIN, MARGIN + 12, name, 16, "#1f2937", bold=True)
    graph = SubElement(svg, "g", {"transform": f"translate({MARGIN:g} {MARGIN + TITLE:g})"})
    for points in placed.lines.values():
        attributes = {"d": _curve(points), "fill": "none", "stroke": "#8b95a3", "stroke-width": "1.6"}
        SubElement(graph, "path", {**attributes, "marker-end": "url(#tip)"})
    for step_name, box in placed.boxes.items():
        step = definition.steps[step_name]
        _box(graph, box, step_name, step, states.get(step_name), texts[step_name])
    return bytes(tostring(svg, encoding="utf-8", xml_declaration=True))


def _texts(name: str, step: StepDefinition, state: StepView | None) -> tuple[str, str, str]:
    """Return the lines of a box: the step, its function, and its status."""
    function = step.function if step.map is None else f"{step.function} · each item"
    if state is None:
        return _cut(name), _cut(function), _cut(f"when {step.when}") if step.when is not None else ""
    stands = f"{LOOKS[state.status][2]} {state.status.value}"
    if state.items is not None:
        counts = state.items
        total = counts.waiting + counts.running + counts.succeeded + counts.failed
        stands += f" {counts.succeeded}/{total}"
    return _cut(name), _cut(function), stands


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _box(
    graph: Element, box: Box, name: str, step: StepDefinition, state: StepView | None, texts: Sequence[str]
) -> None:
    line, fill, _ = PLAIN if state is None else LOOKS[state.status]
    group = SubElement(graph, "g", {"class": "step", "data-step": name})
    if state is not None:
        group.set("data-status", state.status.value)
    tip = f"{name}: {step.function}"
    if state is not None and state.detail:
        tip += f"\n{state.error}: {state.detail}"
    SubElement(group, "title").text = _sound(tip)
    frame = {"width": f"{box.width:g}", "height": f"{box.height:g}", "rx": "8", "fill": fill, "stroke": line}
    if step.when is not None:
        frame["stroke-dasharray"] = "5 3"
    if step.map is not None:
        SubElement(group, "rect", {**frame, "x": f"{box.x + 4:g}", "y": f"{box.y + 4:g}", "opacity": "0.6"})
    SubElement(group, "rect", {**frame, "x": f"{box.x:g}", "y": f"{box.y:g}", "stroke-width": "1.5"})
    for index, (text, size) in enumerate(zip(texts, (13, 11, 11), strict=True)):
        colour = line if index == 2 else "#1f2937"
        _text(group, box.x + 14, box.y + 19 + 16 * index, text, size, colour, bold=index == 0)


def _text(parent: Element, x: float, y: float, text: str, size: int, colour: str, bold: bool = False) -> None:
    attributes = {"x": f"{x:g}", "y": f"{y:g}", "font-size": str(size), "fill": colour}
    if bold:
        attributes["font-weight"] = "600"
    SubElement(parent, "text", attributes).text = _sound(text)


def _sound(text: str) -> str:
    """Return text without characters that XML cannot hold; the rest is escaped when it is written."""
    return _NO_XML.sub("�", text)


def _tip(svg: Element) -> None:
    """Add the head of an arrow."""
    marker = {
        "id": "tip",
        "viewBox": "0 0 10 10",
        "refX": "9",
        "refY": "5",
        "markerWidth": "7",
        "markerHeight": "7",
    }
    head = SubElement(SubElement(svg, "defs"), "marker", {**marker, "orient": "auto"})
    SubElement(head, "path", {"d": "M0 0 10 5 0 10z", "fill": "#8b95a3"})


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """Return a line that leaves and arrives level, and is straight where it passes through a column."""
    (x, y), *rest = points
    parts = [f"M{x:g} {y:g}"]
    for index, (to_x, to_y) in enumerate(rest):
        if index % 2:
            parts.append(f"L{to_x:g} {to_y:g}")
        else:
            middle = (x + to_x) / 2
            parts.append(f"C{middle:g} {y:g} {middle:g} {to_y:g} {to_x:g} {to_y:g}")
        x, y = to_x, to_y
    return " ".join(parts)
