"""The composition root: every part of a gateway, made once and put together."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Iterator

from gateway.access.access import Access
from gateway.access.guard import is_loopback
from gateway.access.key_file import KeyFile
from gateway.assembly.settings import Settings
from gateway.brokers.direct import Direct
from gateway.brokers.manager import Sources
from gateway.callbacks.deliverer import Deliverer
from gateway.callbacks.sender import Sender
from gateway.callbacks.signing import kept_secret
from gateway.invoke.outcome import Outcomes
from gateway.memory.budget import BodyBudget
from pool.adoption.adoption import Adoption
from pool.adoption.records import Records
from pool.clock import LoopClock
from pool.data_folder import DataFolder
from pool.engine.base import Engine, EngineError
from pool.engine.docker import DockerEngine
from pool.engine.guarded import GuardedEngine
from pool.host.egress import Egress
from pool.host.hosts_files import HostsFiles
from pool.host.uids import usable_range
from pool.launcher import Launcher, LaunchSettings
from pool.observe.logs import LogStore
from pool.observe.metrics import Metrics, label_of
from pool.pool import Pool
from pool.reaper import Reaper
from pool.supervise import Supervisor
from scheduler.calls.callbacks import Callbacks
from scheduler.calls.destinations import Destinations
from scheduler.calls.plans import Plans
from scheduler.calls.running.worker import Worker
from scheduler.calls.targets import FunctionTarget, Target
from scheduler.definitions.brokers import SourceDefinition
from scheduler.definitions.file import Definitions
from scheduler.definitions.language.callback_allow import Allowed
from scheduler.deploy.code_store import CodeStore
from scheduler.deploy.images.image_users import ImageUsers
from scheduler.deploy.images.image_volumes import ImageVolumes
from scheduler.deploy.registry import Registry
from scheduler.deploy.workloads import WorkloadBuilder
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.dispatch.eviction import KeepAlivePolicy
from scheduler.jobs.jobs import Jobs
from scheduler.jobs.kept_containers import KeptContainers
from scheduler.jobs.model import KIND as JOB
from scheduler.jobs.starting import JobStarts, JobTarget
from scheduler.store.sqlite.calls import SqliteStore
from scheduler.store.sqlite.jobs import JobStore
from scheduler.store.sqlite.rows.callback_rows import CallbackStore
from scheduler.store.sqlite.runs import RunStore
from scheduler.store.sqlite.triggers import TriggerStore
from scheduler.store.sqlite.writer import Writer
from scheduler.triggers.emitted import Emitted
from scheduler.triggers.event import Publish
from scheduler.triggers.schedules import Schedules
from scheduler.triggers.secret_names import SecretNames
from scheduler.triggers.triggers import Triggers
from scheduler.workflows.runs import Runs
from scheduler.workflows.target import WorkflowTarget, call_of_failure

log = logging.getLogger("hearth")

ENGINE_RETRY = 1.0
DRAIN_POLL = 0.05
TRUSTED_FOR = 1.0
"""Seconds for which an answer of the engine counts: `/readyz` needs no key, and is no way to flood it."""
REMOVAL_TIMEOUT = 30.0
"""Seconds that the engine gets to remove every instance when the gateway stops."""


def body_budget(total: int, access: Access, metrics: Metrics) -> BodyBudget:
    """The budget for requests and answers of a gateway, with its metrics. `total` is in bytes."""

    def count(what: str) -> None:
        metrics.busy.labels(what).value += 1

    budget = BodyBudget(total, lambda: access.closed, count)
    metrics.body_memory.read = lambda: (((holder,), held) for holder, held in budget.by_holder().items())
    metrics.body_memory_limit.read = lambda: [((), budget.total)]
    return budget


class Runtime:
    """A gateway without its HTTP edge. Made inside a running loop; `start`, then `drain` and `close`.

    Raises `KeyFileFault`.
    """

    def __init__(self, settings: Settings, folder: DataFolder, engine: Engine | None = None) -> None:
        self.settings = settings
        self.folder = folder
        self.clock = LoopClock()
        self.metrics = Metrics()
        self.supervisor = Supervisor(self.clock, self.metrics)
        inner = engine or DockerEngine(None, self.metrics, self.clock)
        self.engine = GuardedEngine(inner, self.clock, self.metrics, self.supervisor)
        self.logs = LogStore(per_invocation=settings.log_limit)
        self.outcomes = Outcomes(self.metrics)
        self.access = Access(
            self.clock,
            self.metrics,
            settings.api_keys,
            KeyFile(folder.path),
            closed=not is_loopback(settings.host),
        )
        self.bodies = body_budget(settings.body_memory, self.access, self.metrics)
        self.egress = Egress(self.engine, folder.id)
        cores = os.cpu_count() or 1
        self.launcher = Launcher(
            self.engine,
            self.clock,
            LaunchSettings(
                gateway_id=folder.id,
                run_folder=folder.run,
                hosts_folder=folder.hosts,
                start_timeout=settings.start_timeout,
                parallel_starts=cores,
                network_fallback=settings.allow_network_fallback,
            ),
            self.egress,
            on_slots=lambda instance: self.pool.slots_changed(instance),
            on_output=lambda instance, data: self.pool.output(instance, data),
            on_running=lambda instance: self.pool.running(instance),
        )
        records = Records(folder.records, self.clock)
        self.pool = Pool(self.launcher, self.clock, self.metrics, self.logs, settings.memory_budget, records)
        self.adoption = Adoption(self.engine, self.pool, records, folder, self.clock)
        policy = KeepAlivePolicy(settings.keep_alive_policy)
        self.dispatcher = Dispatcher(self.pool, self.clock, cores, policy, self.engine.down)
        self.engine.on_recovery.append(self.dispatcher.engine_back)
        self.metrics.queue_depth.read = self._queue_depths
        self.metrics.waiting.read = self._who_waits
        builder = WorkloadBuilder(
            engine=self.engine,
            code=CodeStore(folder.code),
            volumes=ImageVolumes(self.engine, folder.id),
            users=ImageUsers(self.engine, folder.id),
            gateway_id=folder.id,
            work_folder=folder.work,
            log_limit=settings.log_limit,
        )
        self.registry = Registry(
            self.engine, self.egress, self.dispatcher, self.adoption, self.clock, builder
        )
        self.engine.on_recovery.append(self.registry.try_again)
        self.engine.on_no_image.append(self.registry.image_gone)
        self.reaper = Reaper(
            self.pool,
            self.engine,
            self.clock,
            folder.id,
            self.dispatcher.is_provisioned,
            self.engine.down,
        )
        writer = self.writer = Writer(folder.path / "calls.db", folder.fault)
        self.store = SqliteStore(writer, settings.async_size)
        plans = Plans(self.registry, self.dispatcher)
        self.worker = Worker(self.store, self.clock, self.metrics, plans.of, settings.async_retention)
        self.worker.followers.append(Destinations(plans.declared))
        allowed = Allowed(settings.callback_allow)
        self.worker.followers.append(Callbacks(plans.declared, allowed))
        self.callback_store = CallbackStore(writer)
        self.sender = Sender(allowed, self._callback_secret(), self.clock)
        self.deliverer = Deliverer(self.callback_store, self.clock, self.metrics, self.sender)
        self.worker.on_followed.append(self.deliverer.begun)
        self.runs = Runs(
            RunStore(writer, self.store.room),
            self.clock,
            self.metrics,
            lambda: self.registry.definitions.workflows,
            self.worker.notify,
            self.worker.cancel,
            settings.async_retention,
        )
        self.runs.followers.append(call_of_failure)
        self.worker.on_ended["run"] = self.runs.call_ended
        self.kept = KeptContainers(self.engine, folder.id, HostsFiles(folder.hosts))
        self.jobs = Jobs(
            JobStore(writer, self.store.room),
            self.worker,
            self.registry,
            self.clock,
            self.metrics,
            settings.async_retention,
            self.kept,
        )
        self.worker.on_ended[JOB] = self.jobs.note
        self.job_starts = JobStarts(self.jobs, self.registry, plans, cores, lambda: self.dispatcher.draining)
        self.targets: dict[str, Target] = {
            "function": FunctionTarget(self.registry.declared.keys, self.worker.notify, self.store),
            "workflow": WorkflowTarget(self.runs),
            JOB: JobTarget(self.job_starts, self.jobs),
        }
        """What triggers can start, by kind."""
        trigger_store = TriggerStore(writer, self.store.room)
        self.triggers = Triggers(
            trigger_store,
            self.targets,
            self.clock,
            self.metrics,
            SecretNames(tuple(settings.allowed_secrets)),
        )
        self.schedules = Schedules(self.triggers, self.targets, self.clock)
        emitted = Emitted(self.triggers)
        self.worker.followers.append(emitted.by_call)
        self.runs.followers.append(emitted.by_run)
        self.jobs.on_job_ended.append(emitted.by_job)
        for owner in (self.worker, self.runs, self.jobs):
            owner.on_followed.append(self.triggers.begun)
        self.registry.on_declared.append(lambda definitions: self.triggers.declare(definitions.triggers))
        self._durable: asyncio.Task[None] | None = None
        self.sources = Sources(self._publish_to, folder.id, self.clock, self.metrics)
        self.registry.on_declared.append(lambda definitions: self.sources.declare(definitions.sources))
        self._looked = False
        self._engine_answered = float("-inf")

    def _callback_secret(self) -> bytes:
        """Made only where there can be callbacks: before the first, so that its receiver can be told."""
        if (given := self.settings.callback_secret) is not None:
            return given.get_secret_value()
        return kept_secret(self.folder.path) if self.settings.callback_allow else b""

    def _queue_depths(self) -> Iterator[tuple[tuple[str, ...], float]]:
        waiting = Counter[str]()
        for name, function in self.dispatcher.functions.items():
            waiting[label_of(name)] += function.waiting
        return (((label,), depth) for label, depth in waiting.items())

    def _who_waits(self) -> Iterator[tuple[tuple[str, ...], float]]:
        waits = {**self.writer.waiting, "call": self.worker.waiting, "run": self.runs.waiting}
        return (((what,), count) for what, count in waits.items())

    def _publish_to(self, source: SourceDefinition) -> Publish:
        if source.function is None:
            return self.triggers.publish
        return Direct(source.name, source.function, self.targets["function"], self.store, self.clock)

    async def start(self, definitions: Definitions) -> None:
        """Adopt or remove what an earlier process left, and bring the functions into service."""
        told = False
        while not self._looked:
            try:
                await self._learn_of_engine()
                await self.adoption.look()
                self._looked = True
            except EngineError as error:
                if not told:
                    log.warning(
                        "the engine does not answer, trying again every %g s: %s", ENGINE_RETRY, error
                    )
                told = True
                await asyncio.sleep(ENGINE_RETRY)
        self.reaper.start()
        await self.jobs.start()
        self._durable = asyncio.ensure_future(self._start_durable())
        await self.registry.apply(definitions)

    async def _learn_of_engine(self) -> None:
        """Ask the engine what decides how containers are made. Raises `EngineError`."""
        maps_uids = (await self.engine.info()).user_namespaces
        uids = usable_range(self.settings.uids, maps_uids)
        if uids != self.settings.uids:
            log.info("the engine has user namespaces: uids %s are used, not %s", uids, self.settings.uids)
        self.launcher.maps_uids = maps_uids
        self.pool.ledger.uids.use(uids)

    async def _start_durable(self) -> None:
        """Go on with what is in the store. The end of a call may fire triggers: they are known before any ends."""
        try:
            await self.triggers.load()
        except Exception:  # calls go on
            log.exception("what is kept of triggers could not be read: none fires")
        self.worker.start()
        self.runs.start()
        self.schedules.start()
        self.deliverer.start()

    async def why_not_ready(self) -> str | None:
        """Why the gateway cannot run functions now; None if it can."""
        if self.dispatcher.draining:
            return "the gateway is shutting down"
        if (unkept := self.folder.fault() or self.store.fault) is not None:
            return unkept
        if (failing := self.supervisor.why_not_ready()) is not None:
            return failing
        if (fault := self.engine.down()) is not None:
            return str(fault)
        if self.clock.now() - self._engine_answered >= TRUSTED_FOR:
            try:
                await self.engine.ping()
            except EngineError as error:
                return str(error)
            self._engine_answered = self.clock.now()
        if not self._looked or not self.registry.loaded:
            return "the functions are being loaded"
        if self.adoption.under_way:
            return "warm containers are being adopted"
        if not self.registry.settled():
            return "min_instances are being started"
        return None

    async def drain(self, hurry: asyncio.Event) -> None:
        """Accept nothing new, and wait until what runs has finished: `drain_timeout` at most, or until `hurry`."""
        self.dispatcher.draining = True
        await self.sources.close()
        if self._durable is not None:
            self._durable.cancel()
            await asyncio.gather(self._durable, return_exceptions=True)
        await self.schedules.stop()
        await self.worker.stop()
        give_up = self.clock.now() + self.settings.drain_timeout
        while self._calls_run() and not hurry.is_set():
            if self.clock.now() >= give_up:
                log.warning(
                    "calls still run after %g s (drain_timeout); they are ended", self.settings.drain_timeout
                )
                return
            await self.clock.sleep(DRAIN_POLL)

    def _calls_run(self) -> bool:
        return any(i.in_use for i in self.pool.ledger.instances.values()) or any(
            f.waiting for f in self.dispatcher.functions.values()
        )

    async def close(self) -> None:
        """Let go of the engine and the data folder. Every instance, network and socket folder is removed, but, with
        `keep_warm`, for what the next start can adopt."""
        self.dispatcher.close()
        await self.sources.close()
        await self.runs.close()
        await self.worker.close()
        await self.jobs.close()
        await self.deliverer.close()
        await self.sender.close()
        await self.store.close()
        await self.registry.close()
        await self.reaper.close()
        keep = self.settings.keep_warm
        try:
            async with asyncio.timeout(REMOVAL_TIMEOUT):
                left = await self.pool.close(keep)
                if left:
                    log.info("%d warm containers are left for the next start", left)
                else:
                    keep = False
                    await self.egress.remove()
        except TimeoutError:
            log.error("the engine has not removed everything in time; the next start, or hearth prune, does")
        except EngineError as error:
            log.warning("the gateway's networks could not be removed: %s", error)
        if keep:
            self.folder.clear_own()
        else:
            self.folder.clear()
        await self.engine.close()
        self.folder.close()
