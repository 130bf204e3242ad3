"""Inputs of steps and output of a run: expressions evaluated over the bodies of the run. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scheduler.definitions.language.expressions import ExpressionError, evaluate, is_true, steps_named
from scheduler.definitions.workflows import ITEM_ROOTS, RUN_ROOTS, StepDefinition, WorkflowDefinition
from scheduler.work import Body
from scheduler.workflows.model import StepStatus
from scheduler.workflows.values import EMPTY_BODY, body_to_value, value_to_body

MAX_ITEMS = 10_000
"""Items of one `map`; each is a call."""
MAX_STEP_BYTES = 64 * 2**20
"""All answers of one step together, and all inputs of one step together. They are in memory during evaluation."""


class StepFault(Exception):
    """An expression failed over the values of a run. The message tells the workflow's owner what to change."""


@dataclass(frozen=True, slots=True)
class EndedStep:
    """A step as expressions see it. `answers` has one entry for each call, None for one that has not succeeded."""

    status: StepStatus
    answers: Sequence[Body | None] = ()
    is_list: bool = False
    """True if it has a `map`; then its output is a list."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The values that expressions read: the run's input and the outputs of steps."""

    input: Body
    steps: Mapping[str, EndedStep]


def needed_outputs(step: StepDefinition) -> frozenset[str]:
    """Return the steps whose outputs must be known before this one begins."""
    named: set[str] = set() if step.input or step.map else set(step.needs)
    for text, names in ((step.input, ITEM_ROOTS), (step.when, RUN_ROOTS), (step.map, RUN_ROOTS)):
        named |= steps_named(text, names) if text is not None else frozenset()
    return frozenset(named)


def outputs_for_result(definition: WorkflowDefinition) -> frozenset[str]:
    """Return the steps whose outputs the run's output is made of."""
    return (
        frozenset(definition.last())
        if definition.output is None
        else steps_named(definition.output, RUN_ROOTS)
    )


def evaluate_step(step: StepDefinition, facts: RunFacts) -> tuple[Body, ...] | None:
    """Return the inputs of a step's calls, or None if the step is skipped. Raises `StepFault`."""
    values = _Values(facts)
    if step.when is not None and not is_true(values.of(step.when)):
        return None
    if step.map is not None:
        return _of_items(step, values)
    if step.input is not None:
        return (_sent(values.of(step.input), "input"),)
    return (_as_answered(step.needs, facts, values, "input"),) if step.needs else (facts.input,)


def evaluate_output(definition: WorkflowDefinition, facts: RunFacts) -> Body:
    """Return the output of a run. Raises `StepFault`."""
    values = _Values(facts)
    if definition.output is not None:
        return _sent(values.of(definition.output), "output")
    return _as_answered(definition.last(), facts, values, "output")


def _as_answered(steps: Sequence[str], facts: RunFacts, values: _Values, what: str) -> Body:
    """Return the answer of one step unchanged, or as JSON: the list of a `map`, or several steps' outputs by name."""
    only = facts.steps[steps[0]]
    if len(steps) == 1 and not only.is_list:
        return (only.answers[0] if only.answers else None) or EMPTY_BODY
    return _sent(values.together(steps), what)


def _of_items(step: StepDefinition, values: _Values) -> tuple[Body, ...]:
    assert step.map is not None
    items = values.of(step.map)
    if not isinstance(items, list):
        raise StepFault(f"map: {step.map} does not give a list")
    if len(items) > MAX_ITEMS:
        raise StepFault(f"map: {step.map} gives {len(items)} items, and {MAX_ITEMS} is the most")
    bodies: list[Body] = []
    size = 0
    for index, item in enumerate(items):
        value = item if step.input is None else values.of(step.input, {"item": item, "index": index})
        bodies.append(_sent(value, f"item {index}"))
        size += len(bodies[-1].data)
        if size > MAX_STEP_BYTES:
            raise StepFault(
                f"map: the items have over {MAX_STEP_BYTES} bytes together; make them smaller or fewer"
            )
    return tuple(bodies)


class _Values:
    """The bodies of a run as values. They are parsed when the first expression is evaluated."""

    def __init__(self, facts: RunFacts) -> None:
        self._facts = facts
        self._known: dict[str, Any] | None = None

    def of(self, text: str, more: Mapping[str, object] | None = None) -> Any:
        """Return the value of an expression. Raises `StepFault`."""
        try:
            return evaluate(text, {**self._all(), **(more or {})})
        except ExpressionError as error:
            raise StepFault(str(error)) from error

    def together(self, steps: Sequence[str]) -> Any:
        """Return the output of one step, or the outputs of several by name."""
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


def _output(name: str, step: EndedStep) -> Any:
    if step.status is not StepStatus.SUCCEEDED:
        return None
    values = [None if body is None else _looked_at(body, f"the answer of {name}") for body in step.answers]
    return values if step.is_list else values[0]


def _sent(value: Any, what: str) -> Body:
    try:
        return value_to_body(value)
    except ValueError as error:
        raise StepFault(f"{what} {error}") from error


def _looked_at(body: Body, what: str) -> Any:
    try:
        return body_to_value(body)
    except ValueError as error:
        raise StepFault(f"{what} {error}") from error
