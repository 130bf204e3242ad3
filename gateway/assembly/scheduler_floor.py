"""Builds the scheduler floor: dispatching and deploying, and everything that is kept in the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from gateway.assembly.foundation import Foundation
from gateway.assembly.pool_floor import PoolFloor
from pool.host.etc_files import EtcFiles
from pool.host.kept_calls import KeptCalls
from pool.observe.metrics import label_of
from pool.reaper import Reaper
from scheduler.calls.callback_store import CallbackStore
from scheduler.calls.callbacks import Callbacks
from scheduler.calls.destinations import Destinations
from scheduler.calls.leases import LeaseStore
from scheduler.calls.plans import Plans
from scheduler.calls.running.lease_keeper import LeaseKeeper, StoreSettings
from scheduler.calls.running.worker import Worker
from scheduler.calls.store import CallStore
from scheduler.calls.targets import FunctionTarget, Target
from scheduler.definitions.language.callback_allow import Allowed
from scheduler.deploy.code_store import CodeStore
from scheduler.deploy.images.function_images import PackageRoom
from scheduler.deploy.images.image_users import ImageUsers
from scheduler.deploy.images.image_volumes import ImageVolumes
from scheduler.deploy.images.shared_builds import SharedBuilds
from scheduler.deploy.images.volume_images import VolumeImages
from scheduler.deploy.registry import Registry
from scheduler.deploy.workloads import WorkloadBuilder
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.dispatch.eviction import KeepAlivePolicy
from scheduler.dispatch.spares.plan import Keeping, SpareSettings
from scheduler.jobs.jobs import Jobs
from scheduler.jobs.kept_containers import KeptContainers
from scheduler.jobs.model import KIND as JOB
from scheduler.jobs.starting import JobStarts, JobTarget
from scheduler.jobs.store import JobStore
from scheduler.store.sqlite.callbacks import SqliteCallbackStore
from scheduler.store.sqlite.calls import SqliteCallStore
from scheduler.store.sqlite.jobs import SqliteJobStore
from scheduler.store.sqlite.leases import SqliteLeaseStore
from scheduler.store.sqlite.runs import SqliteRunStore
from scheduler.store.sqlite.triggers import SqliteTriggerStore
from scheduler.store.sqlite.writer import Writer
from scheduler.triggers.emitted import EmittedEvents
from scheduler.triggers.schedules import Schedules
from scheduler.triggers.secret_names import SecretNames
from scheduler.triggers.store import TriggerStore
from scheduler.triggers.triggers import Triggers
from scheduler.workflows.runs import WorkflowRuns
from scheduler.workflows.store import RunStore
from scheduler.workflows.target import WorkflowTarget, call_of_failure


@dataclass(frozen=True)
class Stores:
    """All that one gateway keeps in its database."""

    writer: Writer
    leases: LeaseStore
    calls: CallStore
    callbacks: CallbackStore
    runs: RunStore
    jobs: JobStore
    triggers: TriggerStore


@dataclass(frozen=True)
class SchedulerFloor:
    """The parts of one gateway that decide what runs, and when."""

    dispatcher: Dispatcher
    registry: Registry
    reaper: Reaper
    stores: Stores
    leases: LeaseKeeper
    worker: Worker
    runs: WorkflowRuns
    jobs: Jobs
    job_starts: JobStarts
    kept_containers: KeptContainers
    targets: dict[str, Target]
    """Start the actions of triggers, by kind."""
    triggers: Triggers
    schedules: Schedules


def build_scheduler_floor(foundation: Foundation, pool_floor: PoolFloor) -> SchedulerFloor:
    """Build the scheduler floor on the pool floor."""
    settings, clock, closing = foundation.settings, foundation.clock, foundation.closing
    dispatcher = build_dispatcher(foundation, pool_floor)
    reaper = build_reaper(foundation, pool_floor, dispatcher)
    registry = build_registry(foundation, pool_floor, dispatcher)
    stores = build_stores(foundation)
    plans = Plans(registry, dispatcher)
    store_settings = build_store_settings(foundation, stores)
    worker = build_worker(foundation, stores, plans, store_settings)
    folder = foundation.folder
    kept = KeptContainers(pool_floor.engine, folder.id, EtcFiles(folder.etc), KeptCalls(folder.run))
    jobs = build_jobs(foundation, stores, worker, registry, kept, store_settings)
    runs = build_runs(foundation, stores, worker, registry, store_settings)
    closing.push("jobs", jobs.close)
    closing.push("worker", worker.close)  # before jobs: a task that ends is recorded with its job
    closing.push("workflow runs", runs.close)
    foundation.metrics.waiting.read = partial(who_waits, stores.writer, worker, runs)
    job_starts = JobStarts(jobs, registry, plans, foundation.cores, lambda: dispatcher.draining)
    targets: dict[str, Target] = {
        "function": FunctionTarget(registry.declared.keys, worker.notify, stores.calls),
        "workflow": WorkflowTarget(runs),
        JOB: JobTarget(job_starts, jobs),
    }
    secrets = SecretNames(tuple(settings.allowed_secrets))
    triggers = Triggers(stores.triggers, targets, clock, foundation.metrics, secrets)
    registry.on_declared.append(lambda definitions: triggers.declare(definitions.triggers))
    schedules = Schedules(triggers, targets, clock, store_settings.leases)
    closing.push("schedules", schedules.stop)
    connect_triggers(triggers, worker, runs, jobs)
    return SchedulerFloor(
        dispatcher=dispatcher,
        registry=registry,
        reaper=reaper,
        stores=stores,
        leases=store_settings.leases,
        worker=worker,
        runs=runs,
        jobs=jobs,
        job_starts=job_starts,
        kept_containers=kept,
        targets=targets,
        triggers=triggers,
        schedules=schedules,
    )


def build_dispatcher(foundation: Foundation, pool_floor: PoolFloor) -> Dispatcher:
    """Build the dispatcher. It starts what is missing when the engine answers again."""
    engine = pool_floor.engine
    settings = foundation.settings
    spares = SpareSettings(settings.spare_memory, settings.spare_time)
    keeping = Keeping(KeepAlivePolicy(settings.keep_alive_policy), spares)
    dispatcher = Dispatcher(pool_floor.pool, foundation.clock, foundation.cores, keeping, engine.down)
    engine.on_recovery.append(dispatcher.engine_back)
    foundation.metrics.queue_depth.read = partial(queue_depths, dispatcher)
    foundation.metrics.spare_memory.read = lambda: [((), dispatcher.spares.now().memory)]
    return dispatcher


def build_reaper(foundation: Foundation, pool_floor: PoolFloor, dispatcher: Dispatcher) -> Reaper:
    """Build the reaper, which looks after the instances that the dispatcher has started."""
    engine = pool_floor.engine
    reaper = Reaper(
        pool_floor.pool,
        engine,
        foundation.clock,
        foundation.folder.id,
        dispatcher.is_provisioned,
        engine.down,
    )
    foundation.closing.push("reaper", reaper.close)
    return reaper


def build_registry(foundation: Foundation, pool_floor: PoolFloor, dispatcher: Dispatcher) -> Registry:
    """Build the registry. It sets failed functions up again when the engine answers, or an image is gone."""
    settings, folder, engine = foundation.settings, foundation.folder, pool_floor.engine
    builder = WorkloadBuilder(
        engine=engine,
        clock=foundation.clock,
        code=CodeStore(folder.code),
        volumes=ImageVolumes(engine, folder.id),
        volume_images=VolumeImages(engine, folder.id, SharedBuilds()),
        users=ImageUsers(engine, folder.id),
        gateway_id=folder.id,
        packages=PackageRoom(folder.work, settings.package_size),
        log_limit=settings.log_limit,
    )
    registry = Registry(engine, pool_floor.egress, dispatcher, pool_floor.adoption, foundation.clock, builder)
    engine.on_recovery.append(registry.try_again)
    engine.on_no_image.append(registry.image_gone)
    foundation.closing.push("registry", registry.close)
    return registry


def build_stores(foundation: Foundation) -> Stores:
    """Build the stores. All of them are in one file, which does not exist until something is kept."""
    folder = foundation.folder
    writer = Writer(folder.path / "calls.db", folder.fault)
    calls = SqliteCallStore(writer, foundation.settings.async_size)
    foundation.closing.push("store", calls.close)
    return Stores(
        writer=writer,
        leases=SqliteLeaseStore(writer),
        calls=calls,
        callbacks=SqliteCallbackStore(writer),
        runs=SqliteRunStore(writer, calls.room),
        jobs=SqliteJobStore(writer, calls.room),
        triggers=SqliteTriggerStore(writer, calls.room),
    )


def build_store_settings(foundation: Foundation, stores: Stores) -> StoreSettings:
    """Build the settings of this process on the store, with the keeper of its leases."""
    keeper = LeaseKeeper(stores.leases, foundation.clock, foundation.metrics, foundation.folder.id)
    foundation.closing.push("leases", keeper.close)
    return StoreSettings(keeper, foundation.settings.async_retention)


def build_worker(
    foundation: Foundation, stores: Stores, plans: Plans, store_settings: StoreSettings
) -> Worker:
    """Build the worker of accepted calls. It needs its `run` before it starts."""
    settings = foundation.settings
    worker = Worker(stores.calls, foundation.clock, foundation.metrics, plans.of, store_settings)
    worker.followers.append(Destinations(plans.declared))
    worker.followers.append(Callbacks(plans.declared, Allowed(settings.callback_allow)))
    return worker


def build_jobs(
    foundation: Foundation,
    stores: Stores,
    worker: Worker,
    registry: Registry,
    kept: KeptContainers,
    store_settings: StoreSettings,
) -> Jobs:
    """Build the jobs, which are told of the calls that are their tasks."""
    jobs = Jobs(
        stores.jobs,
        worker,
        registry,
        foundation.clock,
        foundation.metrics,
        store_settings,
        kept,
    )
    worker.on_ended[JOB] = jobs.note
    return jobs


def build_runs(
    foundation: Foundation,
    stores: Stores,
    worker: Worker,
    registry: Registry,
    store_settings: StoreSettings,
) -> WorkflowRuns:
    """Build the runs of workflows, which are told of the calls that are their steps."""
    runs = WorkflowRuns(
        stores.runs,
        foundation.clock,
        foundation.metrics,
        lambda: registry.definitions.workflows,
        worker.notify,
        worker.cancel,
        store_settings,
    )
    runs.followers.append(call_of_failure)
    worker.on_ended["run"] = runs.call_ended
    return runs


def connect_triggers(triggers: Triggers, worker: Worker, runs: WorkflowRuns, jobs: Jobs) -> None:
    """Have the end of a call, a run and a job be an event for the triggers."""
    emitted = EmittedEvents(triggers)
    worker.followers.append(emitted.after_call)
    runs.followers.append(emitted.after_run)
    jobs.on_job_ended.append(emitted.after_job)
    for owner in (worker, runs, jobs):
        owner.on_followed.append(triggers.begun)


def queue_depths(dispatcher: Dispatcher) -> Iterator[tuple[tuple[str, ...], float]]:
    """Return for the metrics how many calls of each function wait for an instance."""
    waiting = Counter[str]()
    for name, function in dispatcher.functions.items():
        waiting[label_of(name, function.private)] += function.waiting
    return (((label,), depth) for label, depth in waiting.items())


def who_waits(writer: Writer, worker: Worker, runs: WorkflowRuns) -> Iterator[tuple[tuple[str, ...], float]]:
    """Return for the metrics how many callers wait for the store, and for the end of calls and runs."""
    waits = {**writer.waiting, "call": worker.waiting, "run": runs.waiting}
    return (((what,), count) for what, count in waits.items())
