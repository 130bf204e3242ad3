"""Builds the gateway floor: who may call, how calls are served, callbacks and brokers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.access.access import Access
from gateway.access.guard import Guard
from gateway.access.key_file import KeyFile
from gateway.api.calls.accept import AcceptEndpoint
from gateway.api.parts import ApiParts
from gateway.assembly.foundation import Foundation
from gateway.assembly.pool_floor import PoolFloor
from gateway.assembly.scheduler_floor import SchedulerFloor
from gateway.brokers.direct import DirectPublish
from gateway.brokers.manager import BrokerManager
from gateway.callbacks.deliverer import Deliverer
from gateway.callbacks.sender import Sender
from gateway.callbacks.signing import load_or_create_secret
from gateway.calls.caller import Caller
from gateway.edge.app import EdgeParts
from gateway.http.loopback import is_loopback
from gateway.invoke.deaths import Deaths
from gateway.invoke.endpoint import InvokeEndpoint
from gateway.invoke.fast_call import FastPath
from gateway.invoke.outcome import Outcomes
from gateway.invoke.recent_calls import RecentCalls
from gateway.memory.budget import BodyBudget
from gateway.webhooks.hooks import Hooks
from pool.observe.journal.reading import OutputReading
from scheduler.definitions.brokers import BrokerDefinition
from scheduler.definitions.language.callback_allow import Allowed
from scheduler.triggers.event import Publish


@dataclass(frozen=True)
class GatewayFloor:
    """The parts of one gateway that speak to others over the network."""

    access: Access
    bodies: BodyBudget
    outcomes: Outcomes
    fast: FastPath
    """Serves warm calls ahead of `edge`, for the protocol of the clients' connections."""
    edge: EdgeParts
    deliverer: Deliverer
    brokers: BrokerManager


def build_gateway_floor(
    foundation: Foundation, pool_floor: PoolFloor, scheduler_floor: SchedulerFloor
) -> GatewayFloor:
    """Build the gateway floor on the two others. Raises `KeyFileFault`."""
    settings, clock, metrics = foundation.settings, foundation.clock, foundation.metrics
    dispatcher, registry, worker = (
        scheduler_floor.dispatcher,
        scheduler_floor.registry,
        scheduler_floor.worker,
    )
    calls = scheduler_floor.stores.calls
    keys, key_file = settings.api_keys, KeyFile(foundation.folder.path)
    access = Access(clock, metrics, keys, key_file, closed=not is_loopback(settings.host))
    bodies = build_body_budget(foundation, access)
    guard = Guard(settings.host, settings.allowed_hosts)
    outcomes = Outcomes(metrics, RecentCalls(clock))
    allowed = Allowed(settings.callback_allow)
    deaths = Deaths(pool_floor.pool.printed, pool_floor.launcher.obituary)
    invoke = InvokeEndpoint(dispatcher, registry, outcomes, clock, deaths)
    fast = FastPath(invoke, guard, access, dispatcher, outcomes, pool_floor.logs, clock, bodies)
    accept = AcceptEndpoint(invoke, registry, dispatcher, calls, worker, clock, metrics, allowed)
    worker.run = Caller(invoke, fast, calls)
    return GatewayFloor(
        access=access,
        bodies=bodies,
        outcomes=outcomes,
        fast=fast,
        edge=EdgeParts(guard, access, bodies, invoke, accept),
        deliverer=build_deliverer(foundation, scheduler_floor, allowed),
        brokers=build_brokers(foundation, scheduler_floor),
    )


def build_body_budget(foundation: Foundation, access: Access) -> BodyBudget:
    """Build the budget for requests and answers, with its metrics."""
    metrics = foundation.metrics

    def count(what: str) -> None:
        metrics.busy.labels(what).value += 1

    budget = BodyBudget(foundation.settings.body_memory, lambda: access.closed, count, foundation.clock)
    metrics.body_memory.read = lambda: (((holder,), held) for holder, held in budget.by_holder().items())
    metrics.body_memory_limit.read = lambda: [((), budget.total)]
    return budget


def build_deliverer(foundation: Foundation, scheduler_floor: SchedulerFloor, allowed: Allowed) -> Deliverer:
    """Build the deliverer of callbacks, which is told when the worker has recorded some."""
    clock, closing = foundation.clock, foundation.closing
    sender = Sender(allowed, callback_secret(foundation), clock)
    closing.push("sender of callbacks", sender.close)
    deliverer = Deliverer(
        scheduler_floor.stores.callbacks, clock, foundation.metrics, sender, scheduler_floor.leases
    )
    closing.push("deliverer of callbacks", deliverer.close)
    scheduler_floor.worker.on_followed.append(deliverer.begun)
    return deliverer


def callback_secret(foundation: Foundation) -> bytes:
    """Return the secret that signs callbacks, or nothing where there can be none.

    It is made before the first callback, so that its receiver can be told.
    """
    settings = foundation.settings
    if settings.callback_secret is not None:
        return settings.callback_secret.get_secret_value()
    return load_or_create_secret(foundation.folder.path) if settings.callback_allow else b""


def build_brokers(foundation: Foundation, scheduler_floor: SchedulerFloor) -> BrokerManager:
    """Build the connections to message brokers, which follow the definitions file."""
    calls, functions = scheduler_floor.stores.calls, scheduler_floor.targets["function"]

    def publish_to(source: BrokerDefinition) -> Publish:
        if source.function is None:
            return scheduler_floor.triggers.publish
        return DirectPublish(source.name, source.function, functions, calls, foundation.clock)

    clock, metrics, supervisor = foundation.clock, foundation.metrics, foundation.supervisor
    brokers = BrokerManager(publish_to, foundation.folder.id, clock, metrics, supervisor)
    scheduler_floor.registry.on_declared.append(lambda definitions: brokers.declare(definitions.sources))
    foundation.closing.push("brokers", brokers.close)
    return brokers


def build_api_parts(
    foundation: Foundation,
    pool_floor: PoolFloor,
    scheduler_floor: SchedulerFloor,
    gateway_floor: GatewayFloor,
    why_not_ready: Callable[[], Awaitable[str | None]],
) -> ApiParts:
    """Return the parts that the HTTP API shows and changes."""
    return ApiParts(
        clock=foundation.clock,
        metrics=foundation.metrics,
        access=gateway_floor.access,
        outcomes=gateway_floor.outcomes,
        logs=pool_floor.logs,
        output=OutputReading(pool_floor.journal, foundation.clock),
        pool=pool_floor.pool,
        launcher=pool_floor.launcher,
        dispatcher=scheduler_floor.dispatcher,
        registry=scheduler_floor.registry,
        calls=scheduler_floor.stores.calls,
        callbacks=scheduler_floor.stores.callbacks,
        worker=scheduler_floor.worker,
        runs=scheduler_floor.runs,
        jobs=scheduler_floor.jobs,
        job_starts=scheduler_floor.job_starts,
        kept_containers=scheduler_floor.kept_containers,
        triggers=scheduler_floor.triggers,
        schedules=scheduler_floor.schedules,
        hooks=Hooks(scheduler_floor.triggers, foundation.clock),
        brokers=gateway_floor.brokers,
        why_not_ready=why_not_ready,
    )
