"""Workflows as pictures: sound SVG that says how each step stands, boxes apart, lines from left to right."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.workflows.drawing import LOOKS, draw
from gateway.api.workflows.layout import layout
from gateway.api.workflows.views import ItemCounts, StepView
from scheduler.definitions.workflows import WorkflowDefinition
from scheduler.workflows.model import StepStatus

SVG = "{http://www.w3.org/2000/svg}"
DIAMOND = WorkflowDefinition.model_validate(
    {
        "steps": {
            "a": {"function": "f"},
            "b": {"function": "g", "needs": ["a"], "map": "input.x"},
            "c": {"function": "g", "needs": ["a"], "when": "input.y"},
            "d": {"function": "f", "needs": ["a", "b", "c"]},
        }
    }
)


def boxes_of(picture: bytes) -> dict[str, tuple[str | None, list[str | None]]]:
    """Each step's state and texts, as they stand in the picture."""
    return {
        group.attrib["data-step"]: (
            group.get("data-status"),
            [text.text for text in group.iter(f"{SVG}text")],
        )
        for group in ElementTree.fromstring(picture).iter(f"{SVG}g")
        if "data-step" in group.attrib
    }


def test_a_workflow_is_drawn_with_its_steps_and_lines() -> None:
    picture = draw("diamond", DIAMOND)
    assert boxes_of(picture) == {
        "a": (None, ["a", "f", None]),
        "b": (None, ["b", "g · each item", None]),
        "c": (None, ["c", "g", "when input.y"]),
        "d": (None, ["d", "f", None]),
    }
    paths = [path for path in ElementTree.fromstring(picture).iter(f"{SVG}path") if path.get("marker-end")]
    assert len(paths) == 5


@pytest.mark.parametrize("status", StepStatus)
def test_each_state_has_a_word_a_sign_and_a_colour(status: StepStatus) -> None:
    counts = ItemCounts(waiting=1, running=2, succeeded=3, failed=4)
    steps = [StepView(name="b", function="g", status=status, items=counts)]
    shown = boxes_of(draw("diamond", DIAMOND, steps))["b"]
    assert shown == (status.value, ["b", "g · each item", f"{LOOKS[status][2]} {status.value} 3/10"])
    assert all(len({look[part] for look in LOOKS.values()}) == len(StepStatus) for part in range(3))


def test_what_a_step_says_cannot_leave_its_place() -> None:
    nasty = "</title><script>alert(1)</script>&\x00\ud800"
    steps = [StepView(name="a", function="f", status=StepStatus.FAILED, error="x", detail=nasty)]
    picture = draw("diamond", DIAMOND, steps)
    root = ElementTree.fromstring(picture)
    assert not list(root.iter(f"{SVG}script")) and b"<script" not in picture
    assert any("<script>alert(1)</script>&��" in (title.text or "") for title in root.iter(f"{SVG}title"))


def test_long_names_are_cut_and_whole_in_the_tooltip() -> None:
    name = "s" * 63
    picture = draw("w", WorkflowDefinition.model_validate({"steps": {name: {"function": "f"}}}))
    assert boxes_of(picture)[name][1][0] == "s" * 25 + "…"
    assert name in [
        (title.text or "").partition(":")[0] for title in ElementTree.fromstring(picture).iter(f"{SVG}title")
    ]


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Sequence[str]]:
    needs: dict[str, Sequence[str]] = {}
    for number in range(draw(st.integers(1, 12))):
        needs[f"s{number}"] = (
            draw(st.lists(st.sampled_from(sorted(needs)), unique=True, max_size=4)) if needs else []
        )
    return needs


@given(graphs())
def test_boxes_lie_apart_and_lines_go_to_the_right(needs: dict[str, Sequence[str]]) -> None:
    widths = {name: 60.0 + 9 * len(needed) for name, needed in needs.items()}
    placed = layout(needs, widths, 40.0)
    assert placed.boxes.keys() == needs.keys()
    for one, other in combinations(placed.boxes.values(), 2):
        beside = one.x + one.width <= other.x or other.x + other.width <= one.x
        assert beside or one.y + one.height <= other.y or other.y + other.height <= one.y
    for box in placed.boxes.values():
        assert box.x >= 0 and box.x + box.width <= placed.width
        assert box.y >= 0 and box.y + box.height <= placed.height
    assert placed.lines.keys() == {(needed, name) for name, all in needs.items() for needed in all}
    for (start, end), points in placed.lines.items():
        assert points[0][0] == placed.boxes[start].x + placed.boxes[start].width
        assert points[-1][0] == placed.boxes[end].x
        assert [x for x, _ in points] == sorted(x for x, _ in points)


def test_a_graph_with_very_many_lines_is_laid_out_all_the_same() -> None:
    needs: dict[str, Sequence[str]] = {f"s{n}": [f"s{m}" for m in range(n)] for n in range(60)}
    placed = layout(needs, dict.fromkeys(needs, 50.0), 40.0)
    assert len(placed.boxes) == 60 and len(placed.lines) == 60 * 59 // 2
    assert {len(points) for points in placed.lines.values()} == {2}, "no lanes: they would be 34,220"
