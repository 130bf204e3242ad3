"""Typed dependencies: a route asks for a part of its gateway with `jobs: JobsPart` in its parameters.

FastAPI finds each part in the app that a request came to, so that routes are made once and serve any gateway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request

from gateway.access.access import Access
from gateway.api.parts import ApiParts, WorkQueues, api_parts_of
from gateway.brokers.manager import BrokerManager
from gateway.invoke.recent_calls import RecentCalls
from gateway.webhooks.hooks import Hooks
from pool.clock import Clock
from pool.observe.journal.reading import OutputReading
from pool.observe.logs import LogStore
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

T = TypeVar("T")


def part(find: Callable[[ApiParts], T]) -> Any:
    """Return a dependency on what `find` takes out of a gateway's parts."""

    async def dependency(request: Request) -> T:  # FastAPI runs any other function in a thread
        return find(api_parts_of(request.app))

    return Depends(dependency)


AllParts = Annotated[ApiParts, part(lambda parts: parts)]
AccessPart = Annotated[Access, part(lambda parts: parts.access)]
CallsPart = Annotated[CallStore, part(lambda parts: parts.calls)]
ClockPart = Annotated[Clock, part(lambda parts: parts.clock)]
WorkQueuesPart = Annotated[WorkQueues, part(lambda parts: parts.work_queues)]
DispatcherPart = Annotated[Dispatcher, part(lambda parts: parts.dispatcher)]
HooksPart = Annotated[Hooks, part(lambda parts: parts.hooks)]
JobsPart = Annotated[Jobs, part(lambda parts: parts.jobs)]
JobStartsPart = Annotated[JobStarts, part(lambda parts: parts.job_starts)]
KeptContainersPart = Annotated[KeptContainers, part(lambda parts: parts.kept_containers)]
BrokersPart = Annotated[BrokerManager, part(lambda parts: parts.brokers)]
CallbacksPart = Annotated[CallbackStore, part(lambda parts: parts.callbacks)]
LogsPart = Annotated[LogStore, part(lambda parts: parts.logs)]
OutputPart = Annotated[OutputReading, part(lambda parts: parts.output)]
PoolPart = Annotated[Pool, part(lambda parts: parts.pool)]
RecentCallsPart = Annotated[RecentCalls, part(lambda parts: parts.outcomes.recent)]
RegistryPart = Annotated[Registry, part(lambda parts: parts.registry)]
RunsPart = Annotated[WorkflowRuns, part(lambda parts: parts.runs)]
SchedulesPart = Annotated[Schedules, part(lambda parts: parts.schedules)]
TriggersPart = Annotated[Triggers, part(lambda parts: parts.triggers)]
WorkerPart = Annotated[Worker, part(lambda parts: parts.worker)]
