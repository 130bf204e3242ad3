"""What is declared, as far as it matters to accepted calls. Also of functions that are not declared (any more)."""

from __future__ import annotations

from typing import NamedTuple

from scheduler.definitions import FunctionDefinition
from scheduler.dispatcher import Dispatcher
from scheduler.durable.terms import Policy
from scheduler.registry import Registry

DEFAULT = Policy()
MOST_KNOWN = 4096
"""Functions whose policies are remembered."""


class FunctionPlan(NamedTuple):
    """`slots`: calls that it can serve at once. `exec_seconds`: how long one takes; None: not known."""

    policy: Policy = DEFAULT
    slots: int = 1
    exec_seconds: float | None = None
    on_success: str | None = None
    on_failure: str | None = None
    callback: str | None = None


class Plans:
    """Looks a function's plan up as it is now."""

    def __init__(self, registry: Registry, dispatcher: Dispatcher) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._policies: dict[str, tuple[FunctionDefinition, Policy]] = {}

    def of(self, function: str) -> FunctionPlan:
        """The plan of a function."""
        declared = self._registry.known(function)
        if declared is None:
            return FunctionPlan()
        definition, deployed = declared.definition, self._dispatcher.functions.get(function)
        slots = definition.max_instances * definition.concurrency
        if function in self._registry.guests:
            # Half of them is all: nobody calls it directly. What has no memory would take places only to wait.
            slots = 2 * min(slots, max(1, self._registry.memory_budget // definition.memory))
        return FunctionPlan(
            self._policy(definition),
            slots,
            deployed.exec_seconds if deployed else None,
            definition.on_success,
            definition.on_failure,
            definition.callback,
        )

    def _policy(self, definition: FunctionDefinition) -> Policy:
        """Made once of each definition: it is asked for at every end of a call."""
        if len(self._policies) > MOST_KNOWN:
            self._policies.clear()
        known = self._policies.get(definition.name)
        if known is None or known[0] is not definition:
            retries = definition.retries
            policy = Policy(
                retries.attempts,
                retries.backoff,
                retries.max_backoff,
                frozenset(retries.on),
                definition.max_event_age,
            )
            known = self._policies[definition.name] = definition, policy
        return known[1]
