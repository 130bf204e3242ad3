"""Plans: the declared values of functions that accepted calls need. Undeclared functions have a default plan."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.definitions.file import FunctionDefinition
from scheduler.definitions.language.call_overrides import RetryPolicy
from scheduler.deploy.registry import Registry
from scheduler.dispatch.dispatcher import Dispatcher

DEFAULT = RetryPolicy()
MAX_PLANS = 4096
"""Functions whose plans are cached."""


@dataclass(slots=True)
class FunctionPlan:
    """The plan of one function. `slots` is the calls that it serves at once; `exec_seconds` is None if not known."""

    policy: RetryPolicy = DEFAULT
    slots: int = 1
    exec_seconds: float | None = None
    on_success: str | None = None
    on_failure: str | None = None
    callback: str | None = None


class Plans:
    """The plans of all functions. A plan is made once for each definition: each call asks several times."""

    def __init__(self, registry: Registry, dispatcher: Dispatcher) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._known: dict[str, tuple[FunctionDefinition, FunctionPlan]] = {}

    def of(self, function: str) -> FunctionPlan:
        """Return the plan of a function, with its current execution time."""
        plan, revision = self.declared(function), self._dispatcher.revision_for(function)
        plan.exec_seconds = revision.exec_seconds if revision else None
        return plan

    def declared(self, function: str) -> FunctionPlan:
        """Return the plan of a function; its execution time may be out of date."""
        declared = self._registry.known(function)
        if declared is None:
            return FunctionPlan()
        definition, known = declared.definition, self._known.get(function)
        if known is not None and known[0] is definition:
            return known[1]
        if len(self._known) > MAX_PLANS:
            self._known.clear()
        plan = self._made(definition)
        self._known[function] = definition, plan
        return plan

    def _made(self, definition: FunctionDefinition) -> FunctionPlan:
        retries = definition.retries
        slots = definition.max_instances * definition.concurrency
        if definition.name in self._registry.private_functions:
            # Half of them is all: nobody calls it directly. What has no memory would take places only to wait.
            slots = 2 * min(slots, max(1, self._registry.memory_budget // definition.memory))
        return FunctionPlan(
            RetryPolicy(
                retries.attempts,
                retries.backoff,
                retries.max_backoff,
                frozenset(retries.on),
                definition.max_event_age,
            ),
            slots,
            on_success=definition.on_success,
            on_failure=definition.on_failure,
            callback=definition.callback,
        )
