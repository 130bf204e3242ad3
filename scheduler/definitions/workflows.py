"""Workflows, from `workflows` of functions.yaml: their steps, needs and expressions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any

from pydantic import BeforeValidator

from scheduler.definitions.language import key_types as types
from scheduler.definitions.language import rules
from scheduler.definitions.language.expressions import ExpressionError, steps_named
from scheduler.definitions.language.faults import shown
from scheduler.definitions.language.located_model import Keys, Reader, listed, no_such
from scheduler.definitions.language.located_yaml import KeyPath
from scheduler.definitions.language.units import Duration, duration_between

MAX_STEPS = 1000
"""Steps of one workflow. `advance` looks at all of them after each end of a call."""
RUN_ROOTS = frozenset({"input"})
"""Names that every expression may begin with, besides `steps.NAME`."""
ITEM_ROOTS = RUN_ROOTS | {"item", "index"}
"""Names that `input` may begin with in a step with `map`."""


def _names(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a list of steps, like [fetch], not {shown(value)}")
    return tuple(value)


def _expression(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f"must be a JMESPath expression in text, like steps.fetch.output, not {shown(value)}"
        )
    return value


Expression = Annotated[str, BeforeValidator(_expression)]
StepName = Annotated[
    str,
    types.text(
        types.NAME, "1 to 63 lower-case letters, digits, - or _ with a letter first, to be a step's name"
    ),
]


class StepDefinition(Keys):
    """One step of a workflow."""

    function: types.FunctionName
    needs: Annotated[tuple[StepName, ...], BeforeValidator(_names)] = ()
    """Steps that must have ended before this one begins."""
    input: Expression | None = None
    """Input of the function. None gives the item of `map`; else the output of `needs`; else the run's input."""
    when: Expression | None = None
    """The step is skipped unless this is true."""
    map: Expression | None = None
    """A list; the function is called once for each item."""
    parallel: Annotated[int, types.whole(1, 1000)] = 8
    """Items in flight at once, at most."""
    retries: types.RetryKeys | None = None
    """None takes the function's."""
    timeout: Annotated[Duration, duration_between("1ms", "24h")] | None = None
    """Seconds that one run of the function may take; None takes the function's."""
    may_fail: types.Switch = False
    """True lets the run go on after a failure of this step; its output is null then."""

    @classmethod
    def rule_faults(cls, keys: Mapping[str, Any]) -> Iterator[rules.Blame]:
        """Yield the faults between these keys."""
        if "parallel" in keys and "map" not in keys:
            yield "parallel", "is for a step with `map`, which calls its function many times"


class WorkflowDefinition(Keys):
    """One workflow as functions.yaml declares it. Each run keeps a copy."""

    steps: dict[StepName, StepDefinition]
    output: Expression | None = None
    """Output of a run; None takes the output of the steps that no other step needs."""
    on_failure: types.FunctionName | None = None
    """Function that is called when a run has failed."""

    def functions(self) -> list[str]:
        """Return every function that a run may call, each once."""
        names = [step.function for step in self.steps.values()]
        return list(dict.fromkeys([*names, self.on_failure] if self.on_failure else names))

    def last(self) -> list[str]:
        """Return the steps that no other step needs."""
        needed = {name for step in self.steps.values() for name in step.needs}
        return [name for name in self.steps if name not in needed]


_STEP_KEYS = tuple(StepDefinition.model_fields)
_WORKFLOW_KEYS = tuple(WorkflowDefinition.model_fields)


def read_workflows(
    reader: Reader, given: Mapping[str, object], functions: Collection[str]
) -> dict[str, WorkflowDefinition]:
    """Return the workflows of `given` that have no fault. `functions` are the names that they may call."""
    found = {}
    for name, keys in given.items():
        path: KeyPath = ("workflows", name)
        if not re.fullmatch(types.NAME, name):
            wanted = "1 to 63 lower-case letters, digits, - or _ with a letter first"
            reader.fault(path, f"{shown(name)} must be {wanted}, to be a workflow's name")
        workflow = _Workflow(reader, path, functions).read(keys)
        if workflow is not None:
            found[name] = workflow
    return found


class _Workflow:
    """One pass over one workflow's keys."""

    def __init__(self, reader: Reader, path: KeyPath, functions: Collection[str]) -> None:
        self._reader = reader
        self._path = path
        self._functions = functions
        self._needs: dict[str, tuple[str, ...]] = {}

    def read(self, keys: object) -> WorkflowDefinition | None:
        """Return the workflow, or None if it has a fault that leaves nothing to build."""
        if isinstance(keys, list):
            return self._pipeline(keys)
        if not isinstance(keys, dict):
            self._fault((), f"must be a list of functions, or a mapping with `steps`, not {shown(keys)}")
            return None
        own = self._reader.known(keys, _WORKFLOW_KEYS, self._path)
        given = own.get("steps")
        if not isinstance(given, dict) or not given or len(given) > MAX_STEPS:
            self._fault(
                ("steps",), f"must be a mapping of 1 to {MAX_STEPS} steps by name, not {shown(given)}"
            )
            return None
        steps = {name: self._step(name, step, given) for name, step in given.items()}
        self._function(("on_failure",), own.get("on_failure"))
        before = self._all_before()
        if before is not None:
            for name, step in given.items():
                self._expressions(name, step, before.get(name, frozenset()))
            self._expression(("output",), own.get("output"), frozenset(given), RUN_ROOTS)
        sound = {name: step for name, step in steps.items() if step is not None}
        made, _ = self._reader.model(WorkflowDefinition, {**own, "steps": sound}, own, self._path)
        return made

    def _pipeline(self, functions: list[object]) -> WorkflowDefinition | None:
        """Read the short form, a list of functions: each gets the answer of the one before."""
        if not 1 <= len(functions) <= MAX_STEPS:
            self._fault((), f"must hold 1 to {MAX_STEPS} functions, not {len(functions)}")
        steps: dict[str, StepDefinition] = {}
        for index, function in enumerate(functions):
            if not isinstance(function, str) or not re.fullmatch(types.NAME, function):
                self._fault((index,), f"must be a function's name, not {shown(function)}")
                continue
            self._function((index,), function)
            before = next(reversed(steps), None)
            steps[_free(function, steps)] = StepDefinition(
                function=function, needs=(before,) if before else ()
            )
        return WorkflowDefinition(steps=steps)

    def _step(self, name: str, keys: object, all_steps: Collection[str]) -> StepDefinition | None:
        if not isinstance(keys, dict):
            self._fault(("steps", name), f"must be a mapping with the step's keys, not {shown(keys)}")
            return None
        path = (*self._path, "steps", name)
        own = self._reader.known(keys, _STEP_KEYS, path)
        if "function" not in own:
            self._fault(("steps", name), "`function` is missing; write the name of the function to call")
        self._function(("steps", name, "function"), own.get("function"))
        needs = own.get("needs")
        for index, needed in enumerate(needs if isinstance(needs, list) else []):
            if isinstance(needed, str) and needed not in all_steps:
                self._fault(("steps", name, "needs", index), no_such("step", needed, sorted(all_steps)))
        if isinstance(needs, list):
            self._needs[name] = tuple(n for n in needs if isinstance(n, str) and n in all_steps)
        made, _ = self._reader.model(StepDefinition, {"function": "missing", **own}, own, path)
        return made

    def _function(self, path: KeyPath, name: object) -> None:
        if isinstance(name, str) and re.fullmatch(types.NAME, name) and name not in self._functions:
            self._fault(path, no_such("function", name, sorted(self._functions)))

    def _all_before(self) -> dict[str, frozenset[str]] | None:
        """Return the steps that must have ended before each step, or None if they form a circle."""
        before: dict[str, frozenset[str]] = {}
        try:
            for name in TopologicalSorter(self._needs).static_order():
                needs = self._needs.get(name, ())
                before[name] = frozenset(needs).union(*(before[needed] for needed in needs))
        except CycleError as error:
            circle = [str(name) for name in reversed(error.args[1])]  # each needs the one after it
            start = circle[0]
            index = self._needs[start].index(circle[1])
            self._fault(
                ("steps", start, "needs", index),
                f"is a circle: {' -> '.join(circle)}; remove one of these needs",
            )
            return None
        return before

    def _expressions(self, name: str, keys: object, before: frozenset[str]) -> None:
        if not isinstance(keys, dict):
            return
        for key in ("input", "when", "map"):
            names = ITEM_ROOTS if key == "input" and "map" in keys else RUN_ROOTS
            self._expression(("steps", name, key), keys.get(key), before, names)

    def _expression(self, path: KeyPath, text: object, before: frozenset[str], names: frozenset[str]) -> None:
        if not isinstance(text, str):
            return
        try:
            named = steps_named(text, names)
        except ExpressionError as error:
            self._fault(path, str(error))
            return
        for step in sorted(named - before):
            have = f"it needs {listed(sorted(before))}" if before else "it needs no step"
            self._fault(path, f"reads the step {shown(step)}, which is not in `needs`; {have}")

    def _fault(self, path: KeyPath, message: str) -> None:
        self._reader.fault((*self._path, *path), message)


def _free(name: str, taken: Collection[str]) -> str:
    """Return `name`, numbered if it is taken: a pipeline may have a function twice."""
    number, free = 1, name
    while free in taken:
        number += 1
        ending = f"-{number}"
        free = name[: 63 - len(ending)] + ending
    return free
