"""What is declared, as far as it matters to accepted calls. Also of functions that are not declared (any more)."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.dispatcher import Dispatcher
from scheduler.durable.terms import Policy
from scheduler.registry import Registry

DEFAULT = Policy()


@dataclass(frozen=True, slots=True)
class FunctionPlan:
    """`slots`: calls that it can serve at once. `exec_seconds`: how long one takes; None: not known."""

    policy: Policy = DEFAULT
    slots: int = 1
    exec_seconds: float | None = None
    on_success: str | None = None
    on_failure: str | None = None


class Plans:
    """Looks a function's plan up as it is now."""

    def __init__(self, registry: Registry, dispatcher: Dispatcher) -> None:
        self._registry = registry
        self._dispatcher = dispatcher

    def of(self, function: str) -> FunctionPlan:
        """The plan of a function."""
        declared = self._registry.known(function)
        if declared is None:
            return FunctionPlan()
        definition, deployed = declared.definition, self._dispatcher.functions.get(function)
        retries = definition.retries
        policy = Policy(
            retries.attempts,
            retries.backoff,
            retries.max_backoff,
            frozenset(retries.on),
            definition.max_event_age,
        )
        slots = definition.max_instances * definition.concurrency
        if function in self._registry.guests:
            slots *= 2  # half of them is all: nobody calls it directly
        return FunctionPlan(
            policy,
            slots,
            deployed.exec_seconds if deployed else None,
            definition.on_success,
            definition.on_failure,
        )
