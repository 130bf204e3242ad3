"""What a step is called with, and what a run answers: expressions over the bodies of a run. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scheduler.definitions.language.expressions import ExpressionError, evaluate, is_true, steps_named
from scheduler.definitions.workflows import ITEM_ROOTS, RUN_ROOTS, StepDefinition, WorkflowDefinition
from scheduler.work import Body
from scheduler.workflows.model import StepStatus
from scheduler.workflows.values import NOTHING, body_of, value_of

MOST_ITEMS = 10_000
"""Items of one `map`."""
LARGEST_TOGETHER = 64 * 2**20
"""Bytes of all answers of one step, and of all bodies that one step is called with."""


class StepFault(Exception):
    """An expression does not hold over what there is; said so that the workflow's owner can mend it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A step as expressions see it. `answers`: one of each call, None where it has not succeeded."""

    status: StepStatus
    answers: Sequence[Body | None] = ()
    is_list: bool = False
    """Whether it has a `map`, so that its output is a list."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What expressions are evaluated over: the run's input, and the steps that they look at."""

    input: Body
    steps: Mapping[str, Ended]


def looks_at(step: StepDefinition) -> frozenset[str]:
    """The steps whose outputs must be known to begin this one."""
    named: set[str] = set() if step.input or step.map else set(step.needs)
    for text, names in ((step.input, ITEM_ROOTS), (step.when, RUN_ROOTS), (step.map, RUN_ROOTS)):
        named |= steps_named(text, names) if text is not None else frozenset()
    return frozenset(named)


def output_looks_at(definition: WorkflowDefinition) -> frozenset[str]:
    """The steps whose outputs must be known to say what the run answers."""
    return (
        frozenset(definition.last())
        if definition.output is None
        else steps_named(definition.output, RUN_ROOTS)
    )


def bodies_of(step: StepDefinition, facts: Facts) -> tuple[Body, ...] | None:
    """What the calls of a step are sent, one each; None: it is skipped. Raises `StepFault`."""
    values = _Values(facts)
    if step.when is not None and not is_true(values.of(step.when)):
        return None
    if step.map is not None:
        return _of_items(step, values)
    if step.input is not None:
        return (_sent(values.of(step.input), "input"),)
    return (_as_answered(step.needs, facts, values, "input"),) if step.needs else (facts.input,)


def output_of(definition: WorkflowDefinition, facts: Facts) -> Body:
    """What a run answers. Raises `StepFault`."""
    values = _Values(facts)
    if definition.output is not None:
        return _sent(values.of(definition.output), "output")
    return _as_answered(definition.last(), facts, values, "output")


def _as_answered(steps: Sequence[str], facts: Facts, values: _Values, what: str) -> Body:
    """What one step has answered as it is, or what several have by their names, or a list of it, as JSON."""
    only = facts.steps[steps[0]]
    if len(steps) == 1 and not only.is_list:
        return (only.answers[0] if only.answers else None) or NOTHING
    return _sent(values.together(steps), what)


def _of_items(step: StepDefinition, values: _Values) -> tuple[Body, ...]:
    assert step.map is not None
    items = values.of(step.map)
    if not isinstance(items, list):
        raise StepFault(f"map: {step.map} gives no list")
    if len(items) > MOST_ITEMS:
        raise StepFault(f"map: {step.map} gives {len(items)} items, and {MOST_ITEMS} is the most")
    bodies: list[Body] = []
    size = 0
    for index, item in enumerate(items):
        value = item if step.input is None else values.of(step.input, {"item": item, "index": index})
        bodies.append(_sent(value, f"item {index}"))
        size += len(bodies[-1].data)
        if size > LARGEST_TOGETHER:
            raise StepFault(f"map: the items have over {LARGEST_TOGETHER} bytes together, which is the most")
    return tuple(bodies)


class _Values:
    """Bodies as values, each read when an expression is first evaluated over it."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._known: dict[str, Any] | None = None

    def of(self, text: str, more: Mapping[str, object] | None = None) -> Any:
        """What an expression gives."""
        try:
            return evaluate(text, {**self._all(), **(more or {})})
        except ExpressionError as error:
            raise StepFault(str(error)) from error

    def together(self, steps: Sequence[str]) -> Any:
        """The output of one step, or those of several by their names."""
        outputs = {name: self._all()["steps"][name]["output"] for name in steps}
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def _all(self) -> dict[str, Any]:
        if self._known is None:
            steps = {
                name: {"status": step.status.value, "output": _output(name, step)}
                for name, step in self._facts.steps.items()
            }
            self._known = {"input": _looked_at(self._facts.input, "the run's input"), "steps": steps}
        return self._known


def _output(name: str, step: Ended) -> Any:
    if step.status is not StepStatus.SUCCEEDED:
        return None
    values = [None if body is None else _looked_at(body, f"the answer of {name}") for body in step.answers]
    return values if step.is_list else values[0]


def _sent(value: Any, what: str) -> Body:
    try:
        return body_of(value)
    except ValueError as error:
        raise StepFault(f"{what} {error}") from error


def _looked_at(body: Body, what: str) -> Any:
    try:
        return value_of(body)
    except ValueError as error:
        raise StepFault(f"{what} {error}") from error
