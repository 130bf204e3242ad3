"""The parts of a gateway that the HTTP API works with, and how a route asks for one of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fastapi import FastAPI

from gateway.access.access import Access
from gateway.brokers.manager import BrokerManager
from gateway.http.pieces import WorkQueue
from gateway.invoke.outcome import Outcomes
from gateway.webhooks.hooks import Hooks
from pool.clock import Clock
from pool.launcher import Launcher
from pool.observe.journal.reading import OutputReading
from pool.observe.logs import LogStore
from pool.observe.metrics import Metrics
from pool.pool import Pool
from scheduler.calls.callback_store import CallbackStore
from scheduler.calls.running.worker import Worker
from scheduler.calls.store import CallStore
from scheduler.deploy.registry import Registry
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.jobs.jobs import Jobs
from scheduler.jobs.kept_containers import KeptContainers
from scheduler.jobs.starting import JobStarts
from scheduler.triggers.schedules import Schedules
from scheduler.triggers.triggers import Triggers
from scheduler.workflows.runs import WorkflowRuns


@dataclass(frozen=True)
class WorkQueues:
    """Queues for large work of one gateway, one for each kind of request. So kinds do not wait for each other."""

    events: WorkQueue = field(default_factory=WorkQueue)
    hooks: WorkQueue = field(default_factory=WorkQueue)
    jobs: WorkQueue = field(default_factory=WorkQueue)
    triggers: WorkQueue = field(default_factory=WorkQueue)
    workflows: WorkQueue = field(default_factory=WorkQueue)


@dataclass(frozen=True, kw_only=True)
class ApiParts:
    """The parts of one gateway that its HTTP API shows and changes."""

    clock: Clock
    metrics: Metrics
    access: Access
    outcomes: Outcomes
    logs: LogStore
    output: OutputReading
    pool: Pool
    launcher: Launcher
    dispatcher: Dispatcher
    registry: Registry
    calls: CallStore
    callbacks: CallbackStore
    worker: Worker
    runs: WorkflowRuns
    jobs: Jobs
    job_starts: JobStarts
    kept_containers: KeptContainers
    triggers: Triggers
    schedules: Schedules
    hooks: Hooks
    brokers: BrokerManager
    work_queues: WorkQueues = field(default_factory=WorkQueues)
    why_not_ready: Callable[[], Awaitable[str | None]]
    """Return why the gateway cannot run functions now, or None if it can."""


def api_parts_of(app: FastAPI) -> ApiParts:
    """Return the parts that an app was built with."""
    parts: ApiParts = app.state.parts
    return parts
