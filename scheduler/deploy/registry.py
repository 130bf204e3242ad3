"""Registry: the declared functions, their states, and the faults of those that are not in service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from pool.adoption.adoption import Adoption
from pool.clock import Clock
from pool.engine.base import Engine, EngineError, NotFound
from pool.host.egress import Egress
from pool.host.passwd import number_of
from pool.supervise import Supervisor
from pool.workload import Keep, Workload
from scheduler.definitions.container_keys import ContainerKeys
from scheduler.definitions.file import Definitions, FunctionDefinition, Kind
from scheduler.definitions.language.faults import shown
from scheduler.definitions.source_folder import SourceError
from scheduler.deploy.declared import Declared, fault_of
from scheduler.deploy.images.function_images import ImageBuildError
from scheduler.deploy.images.image_lookup import ImageLookup, RuntimeImages
from scheduler.deploy.images.image_volumes import VolumeRefused
from scheduler.deploy.images.runtimes import RUNTIMES
from scheduler.deploy.trials import Trial, TrialFault, Trials
from scheduler.deploy.workloads import WorkloadBuilder, limits_of
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.dispatch.function import Prewarm

log = logging.getLogger("hearth.registry")

RETRY_SECONDS = 5.0
"""Time until a function whose image was missing, or whose engine was away, is set up again."""
OLD_SERVES = "the version before it stays in service"
"""End of the fault of a function whose new revision does not work."""
LOGGED_LINES = 12
"""Last lines of an instance's output that the log shows after a failed import: the end of its traceback."""
SET_UP_AT_ONCE = 8
"""Functions whose code is read side by side."""


class Registry:
    """The declared functions of one gateway. It brings them into service."""

    def __init__(
        self,
        engine: Engine,
        egress: Egress,
        dispatcher: Dispatcher,
        adoption: Adoption,
        clock: Clock,
        builder: WorkloadBuilder,
    ) -> None:
        self.declared: dict[str, Declared] = {}
        self.private_functions: dict[str, Declared] = {}
        """Private functions of jobs, which are in service until their job ends."""
        self.definitions = Definitions()
        """Definitions that were applied last."""
        self.loaded = False
        """True once a definitions file has been applied."""
        self.on_state: Callable[[Declared], None] = lambda declared: None
        """Called when a declared function gets another revision or another fault."""
        self.on_declared: list[Callable[[Definitions], None]] = []
        """Called with each definitions file once its functions are declared; they may not be in service yet."""
        self._engine = engine
        self._egress = egress
        self._dispatcher = dispatcher
        self._adoption = adoption
        self._clock = clock
        self._builder = builder
        self._runtime_images = RuntimeImages(engine, RUNTIMES.values())
        self._trials = Trials(dispatcher, clock)
        self._prewarm: dict[str, int] = {}
        self._retry: asyncio.Task[None] | None = None
        self._gone_images: set[str] = set()
        """Ids of images that the engine has no longer."""
        self._looked_for: dict[str, float] = {}
        """Time at which an image that was reported as gone was last looked for at once, by id."""
        self._prewarm_gone = False
        """True if the image of a prewarm pool is missing."""
        self._littered = False
        """True if unused code, images or networks could not be removed yet, because they were in use."""
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()

    def start(self, supervisor: Supervisor) -> None:
        """Start the loop that sets up again what has failed."""
        self._retry = supervisor.supervise("registry", self._cure)

    async def apply(self, definitions: Definitions) -> None:
        """Bring these definitions into service, and take out what they do not name.

        Returns when every function is ready or failed. Functions are set up side by side; one that takes long
        (its image is built) or fails holds back no other. One that is in service already gets its new revision when
        that has been tried out, maybe later: `tried_out` waits for it.
        """
        async with self._lock:
            for name in [name for name in self.declared if name not in definitions.functions]:
                del self.declared[name]
                self._trials.drop(name)
                self._dispatcher.withdraw(name)
            for name, definition in definitions.functions.items():
                self.declared[name] = Declared.after(self.declared.get(name), definition)
            self._adoption.expect(definitions.functions.keys())
            self._prewarm = dict(definitions.prewarm)
            self.definitions = definitions
            self.loaded = True
            for tell in self.on_declared:
                tell(definitions)
            images = self._runtime_images.assume()
            await asyncio.gather(
                self._set_prewarm(images), self._set_up_all(list(self.declared.values()), images)
            )
            self._runtime_images.note(images)
            if any(self._trials.workloads()):
                self._littered = True  # calls wait for the new revisions, and not for the removal of old code
            else:
                await self._prune()

    async def add(self, definition: FunctionDefinition, keep: Keep = Keep.NONE) -> Declared:
        """Bring a function into service until `remove`, which no definitions file names; `apply` leaves it alone. If
        its image or the engine is missing, it is tried again."""
        declared = self.private_functions[definition.name] = Declared(definition, keep=keep, private=True)
        with ExitStack() as place:
            await self._set_up(declared, ImageLookup(self._engine), place)
        return declared

    def remove(self, name: str) -> None:
        """Take an added function out of service; harmless if it does not exist."""
        if self.private_functions.pop(name, None) is not None:
            self._trials.drop(name)
            self._dispatcher.withdraw(name)

    async def end_trials(self) -> None:
        """End the trials under way: the revisions in service stay."""
        await self._trials.close()

    async def tried_out(self) -> None:
        """Wait until no new revision is being tried out."""
        await self._trials.finished()

    async def find_image(self, reference: str, keys: ContainerKeys) -> None:
        """Check that containers with these keys can be made of an image.

        Raises `NotFound` with advice if the engine does not have it, `VolumeRefused`, and other `EngineError`s.
        """
        try:
            await self._builder.with_volumes(await self._engine.image(reference), keys, copied=True)
        except NotFound as error:
            raise NotFound(fault_of(error, reference)) from error

    def known(self, name: str) -> Declared | None:
        """Return a declared or added function, or None if there is none of this name."""
        return self.declared.get(name) or self.private_functions.get(name)

    async def _set_prewarm(self, images: ImageLookup) -> None:
        wanted: dict[str, Prewarm] = {}
        for runtime, count in self._prewarm.items():
            try:
                image = await images.find(RUNTIMES[runtime])
                prototype = await self._builder.generic(image)
            except (VolumeRefused, EngineError) as error:
                log.warning(
                    "No prewarmed instances of runtime %s: %s", runtime, fault_of(error, RUNTIMES[runtime])
                )
                continue
            wanted[image.id] = Prewarm(prototype, count)
        self._adoption.claim_generic({id: target.prototype for id, target in wanted.items()})
        self._dispatcher.set_prewarm(wanted)

    async def _set_up_all(self, wanted: Iterable[Declared], images: ImageLookup) -> None:
        """Set functions up side by side, a few at a time: memory for a thousand at once would never be given back."""
        room = asyncio.Semaphore(SET_UP_AT_ONCE)

        async def set_up(declared: Declared) -> None:
            with ExitStack() as place:
                place.callback(room.release)
                await self._set_up(declared, images, place)

        async with asyncio.TaskGroup() as group:
            for declared in wanted:
                await room.acquire()
                group.create_task(set_up(declared))

    async def _set_up(self, declared: Declared, images: ImageLookup, place: ExitStack) -> None:
        """Bring one function into service. `place` is closed as soon as the next function may be begun."""
        definition = declared.definition
        before = (declared.version, declared.fault)

        def building() -> None:
            place.close()
            declared.state = "building"
            log.info("function %s: building its image", definition.name)

        try:
            workload = await self._builder.build(definition, images, building)
            workload = replace(workload, keep=declared.keep, private=declared.private)
            if workload.container.memory > self.memory_budget:
                raise SourceError(
                    "its memory is over the gateway's whole memory budget (HEARTH_MEMORY_BUDGET)"
                )
            await self._check_user(definition, workload, images)
        except (SourceError, ImageBuildError, VolumeRefused, EngineError) as error:
            image = definition.image or RUNTIMES[definition.runtime or "python"]
            declared.fault, declared.printed = fault_of(error, image), ""
            declared.curable = isinstance(error, EngineError)
            declared.state = "ready" if declared.version is not None else "failed"
            log.warning("function %s could not be set up: %s", definition.name, declared.fault)
        except Exception:  # an unforeseen fault of one function must not keep the others out of service
            log.exception("function %s could not be set up", definition.name)
            declared.fault, declared.printed = "the gateway has a fault; its log says more", ""
            declared.state = "ready" if declared.version is not None else "failed"
        else:
            if self.known(definition.name) is not declared:
                return  # removed meanwhile
            declared.curable = False
            self._gone_images.discard(workload.container.image)
            if self._trials.needed(workload) and not self._cannot_start(definition.name):
                self._try_out(declared, workload)
                return
            self._trials.drop(definition.name)
            self._put_in_service(declared, workload)
        if declared.fault is not None:
            self._adoption.disown(definition.name)
        if (declared.version, declared.fault) != before:
            self.on_state(declared)

    def _cannot_start(self, name: str) -> bool:
        """Return whether the revision in service has no instance and cannot get one, as its image is gone."""
        revision = self._dispatcher.revision_for(name)
        if revision is None or revision.workload.container.image not in self._gone_images:
            return False
        return not revision.instances(self._dispatcher.pool.ledger)

    def _put_in_service(self, declared: Declared, workload: Workload) -> None:
        declared.fault, declared.printed, declared.curable = None, "", False
        declared.version, declared.state = workload.version, "ready"
        self._adoption.claim(workload)
        definition = declared.definition
        self._dispatcher.deploy(workload, limits_of(definition), definition.max_instances)

    def _try_out(self, declared: Declared, workload: Workload) -> None:
        """Put a revision into service once an instance of it is ready."""
        declared.state = "ready"  # the revision in service serves on
        ended = partial(self._tried, declared, workload)
        self._trials.begin(Trial(workload, limits_of(declared.definition), ended))

    def _tried(self, declared: Declared, workload: Workload, fault: TrialFault | None) -> None:
        """Put a revision into service if its trial succeeded, else record the fault."""
        name, before = declared.definition.name, (declared.version, declared.fault)
        if self.known(name) is not declared:
            return  # a newer set-up is under way
        if fault is None:
            self._put_in_service(declared, workload)
        else:
            declared.fault, declared.curable = f"{fault.message}; {OLD_SERVES}", fault.may_pass
            declared.printed = fault.printed
            if declared.fault != before[1]:
                lines = fault.printed.splitlines()[-LOGGED_LINES:]
                log.warning(
                    "function %s: %s",
                    name,
                    declared.fault,
                    extra={"function": name, "printed": "\n".join(lines)},
                )
        if (declared.version, declared.fault) != before:
            self.on_state(declared)
        if not any(self._trials.workloads()):
            self._littered = True  # code and images of the replaced revision; calls of the new one come first

    async def _check_user(
        self, definition: FunctionDefinition, workload: Workload, images: ImageLookup
    ) -> None:
        """Raise `SourceError` if a function would run as a uid that another's container may have."""
        user = workload.container.user
        uids: Collection[int] | None = (number_of((user or "").partition(":")[0]) or 0,)
        if user is None and definition.image is not None:
            image = await images.find(definition.image)
            user, uids = image.user, await self._builder.users.uids(image)
        if uids is None:
            raise SourceError(
                f"its image runs as {shown(user)}, and its /etc/passwd cannot be read for the uid of that; write "
                "`user` in numbers, or leave it out"
            )
        if any(map(self._dispatcher.pool.ledger.uids.covers, uids)):
            raise SourceError(
                f"it would run as user {user}, but each container has a uid of its own from there (HEARTH_UIDS); "
                "write another `user`, or leave it out"
            )

    async def _prune(self) -> None:
        """Remove code and images of revisions that are gone, and networks that no function uses."""
        used = [*self._dispatcher.workloads(), *self._trials.workloads()]
        try:
            await self._builder.prune(used)
            if self._egress.removable(any(workload.egress for workload in used)):
                await self._egress.remove()
            self._littered = False
        except EngineError as error:  # a draining instance may still use it
            self._littered = True
            log.info("Unused images or networks not removed yet, trying again later: %s", error)

    async def _cure(self) -> None:
        """Set up again the functions that may work by now, because their image or the engine is back."""
        while True:
            timer = self._clock.call_later(RETRY_SECONDS, self._wake.set)
            await self._wake.wait()
            timer.cancel()
            self._wake.clear()
            images = ImageLookup(self._engine)
            async with self._lock:  # otherwise this could bring back what a later file has removed
                await self._check_runtimes(images)
                everyone = (*self.declared.values(), *self.private_functions.values())
                await self._set_up_all([d for d in everyone if d.curable], images)
                if len(self._dispatcher.prewarm) < len(self._prewarm) or self._prewarm_gone:
                    self._prewarm_gone = False
                    await self._set_prewarm(images)
                self._runtime_images.note(images)
                if self._littered:
                    await self._prune()

    async def _check_runtimes(self, images: ImageLookup) -> None:
        """Have handlers and prewarm pools set up again if the engine has another image of a runtime by now."""
        if await self._runtime_images.changed(images):
            self._prewarm_gone = True
            for declared in self.declared.values():
                declared.curable |= declared.definition.kind is Kind.HANDLER

    def try_again(self) -> None:
        """Set up again soon the functions that failed before."""
        self._wake.set()

    def image_gone(self, image: str) -> None:
        """Set up again the functions of a missing image: that builds the image, or records why it cannot."""
        for workload in self._dispatcher.workloads():
            declared = self.known(workload.function)
            if declared is not None and workload.container.image == image:
                declared.curable = True
        self._gone_images.add(image)
        self._runtime_images.forget(image)
        self._prewarm_gone |= image in self._dispatcher.prewarm
        now = self._clock.now()
        if now - self._looked_for.get(image, float("-inf")) >= RETRY_SECONDS:
            self._looked_for[image] = now
            self._wake.set()  # reported again sooner, something else may be missing, such as a network

    def fault_of(self, function: str, private: bool = True) -> str | None:
        """Return why a function is not in service, or None if there is no such function; empty while it is set up.

        `private`: jobs' private functions count, too.
        """
        declared = self.known(function) if private else self.declared.get(function)
        if declared is None:
            return None
        return declared.fault or ""

    @property
    def memory_budget(self) -> int:
        """Return the bytes that all instances may declare together."""
        return self._dispatcher.pool.ledger.memory_budget

    def settled(self) -> bool:
        """Return whether each function is in service with its `min_instances`, has failed, or has its image built."""
        loading = any(d.state == "loading" for d in self.declared.values())
        return self.loaded and not loading and self._dispatcher.settled()

    async def close(self) -> None:
        """End all trials and retries."""
        await self._trials.close()
        if self._retry is not None:
            self._retry.cancel()
            await asyncio.gather(self._retry, return_exceptions=True)
