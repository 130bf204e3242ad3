"""Places the boxes and lines of a graph: columns by the longest way from a start, few crossings. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

GAP_X, GAP_Y = 56.0, 22.0
"""Pixels between columns, and between boxes of a column."""
LANE = 10.0
"""Pixels of height that a line takes where it passes through a column."""
SWEEPS = 8
MOST_LANES = 5000
"""Places where lines pass through columns. In a graph that would need more, lines go straight to their ends."""

Node = str | tuple[str, str, int]
"""A step, or the place where the line from one step to another passes through a column."""


@dataclass(frozen=True, slots=True)
class Box:
    """A step's place in pixels."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Layout:
    """Places of all steps, the points of each line from a step to one that needs it, and the size of the whole."""

    boxes: Mapping[str, Box]
    lines: Mapping[tuple[str, str], Sequence[tuple[float, float]]]
    width: float
    height: float


def layout(needs: Mapping[str, Sequence[str]], widths: Mapping[str, float], height: float) -> Layout:
    """Return the layout of steps as boxes of these widths and one height.

    `needs` names the steps that each step needs; there is no circle.
    """
    ranks = _ranks(needs)
    columns, ways = _columns(needs, ranks)
    _untangle(columns, ways)
    return _place(columns, ways, widths, height)


def _ranks(needs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return the column of each step: one behind the last of those that it needs."""
    ranks: dict[str, int] = {}
    left = list(needs)
    while left:
        ready = [name for name in left if all(needed in ranks for needed in needs[name])]
        for name in ready:
            ranks[name] = max((ranks[needed] + 1 for needed in needs[name]), default=0)
        left = [name for name in left if name not in ranks]
    return ranks


def _columns(
    needs: Mapping[str, Sequence[str]], ranks: Mapping[str, int]
) -> tuple[list[list[Node]], dict[tuple[str, str], list[Node]]]:
    """Return the nodes of each column, and the nodes of each line with both its ends."""
    columns: list[list[Node]] = [[] for _ in range(max(ranks.values()) + 1)]
    for name, rank in ranks.items():
        columns[rank].append(name)
    ways: dict[tuple[str, str], list[Node]] = {}
    lanes = sum(
        ranks[name] - ranks[needed] - 1 for name, all_needed in needs.items() for needed in all_needed
    )
    for name, needed_steps in needs.items():
        for needed in needed_steps:
            way: list[Node] = [needed]
            for rank in range(ranks[needed] + 1, ranks[name]) if lanes <= MOST_LANES else ():
                way.append((needed, name, rank))
                columns[rank].append(way[-1])
            ways[needed, name] = [*way, name]
    return columns, ways


def _untangle(columns: list[list[Node]], ways: Mapping[tuple[str, str], Sequence[Node]]) -> None:
    """Sort each column by the places of its neighbours, to and fro."""
    before: dict[Node, list[Node]] = {}
    after: dict[Node, list[Node]] = {}
    for way in ways.values():
        for one, other in pairwise(way):
            before.setdefault(other, []).append(one)
            after.setdefault(one, []).append(other)
    for sweep in range(SWEEPS):
        neighbours = before if sweep % 2 == 0 else after
        order = columns if sweep % 2 == 0 else list(reversed(columns))
        for beside, column in pairwise(order):
            places = {node: (index + 0.5) / len(beside) for index, node in enumerate(beside)}
            own = {node: (index + 0.5) / len(column) for index, node in enumerate(column)}

            def wish(
                node: Node,
                places: Mapping[Node, float] = places,
                own: Mapping[Node, float] = own,
                neighbours: Mapping[Node, list[Node]] = neighbours,
            ) -> float:
                near = [places[other] for other in neighbours.get(node, ()) if other in places]
                return sum(near) / len(near) if near else own[node]

            column.sort(key=wish)


def _place(
    columns: Sequence[Sequence[Node]],
    ways: Mapping[tuple[str, str], Sequence[Node]],
    widths: Mapping[str, float],
    height: float,
) -> Layout:
    heights = [sum(height if isinstance(n, str) else LANE for n in c) + GAP_Y * (len(c) - 1) for c in columns]
    tallest = max(heights)
    boxes: dict[str, Box] = {}
    lanes: dict[Node, tuple[float, float, float]] = {}
    """Where a line passes: its left end, its right end, its height."""
    x = 0.0
    for column, tall in zip(columns, heights, strict=True):
        wide = max((widths[node] for node in column if isinstance(node, str)), default=0.0)
        y = (tallest - tall) / 2
        for node in column:
            if isinstance(node, str):
                boxes[node] = Box(x + (wide - widths[node]) / 2, y, widths[node], height)
                box = boxes[node]
                lanes[node] = (box.x, box.x + box.width, y + height / 2)
                y += height + GAP_Y
            else:
                lanes[node] = (x, x + wide, y + LANE / 2)
                y += LANE + GAP_Y
        x += wide + GAP_X
    lines = {ends: _points([lanes[node] for node in way]) for ends, way in ways.items()}
    return Layout(boxes, lines, x - GAP_X, tallest)


def _points(lanes: Sequence[tuple[float, float, float]]) -> list[tuple[float, float]]:
    """Return a line from the right end of the first lane, through those between, to the left end of the last."""
    (_, start, y), *between, (end, _, end_y) = lanes
    passed = [point for left, right, height in between for point in ((left, height), (right, height))]
    return [(start, y), *passed, (end, end_y)]
