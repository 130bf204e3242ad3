"""What must be so before a job is kept; and jobs as something that triggers can start."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain

from pool.contracts import problem_slugs as slugs
from pool.engine.base import EngineError, NotFound
from scheduler.calls.model import Idempotency
from scheduler.calls.plans import Plans
from scheduler.calls.running.fairness import places
from scheduler.calls.targets import Start
from scheduler.definitions.jobs import JobDefinition, checked_inputs
from scheduler.definitions.language.units import format_size
from scheduler.deploy.images.image_volumes import VolumeRefused
from scheduler.deploy.registry import Registry
from scheduler.jobs.decisions import fitting_parallel
from scheduler.jobs.jobs import Jobs
from scheduler.jobs.model import Job
from scheduler.json_steps import loads
from scheduler.work import NewJob


class NotStarted(Exception):
    """A job cannot be started; `slug` names the kind of problem that it is."""

    def __init__(self, slug: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.slug = slug
        self.retry_after = retry_after


class JobStarts:
    """Starts jobs on one gateway."""

    def __init__(
        self, jobs: Jobs, registry: Registry, plans: Plans, cores: int, draining: Callable[[], bool]
    ) -> None:
        self._jobs = jobs
        self._registry = registry
        self._plans = plans
        self._cores = cores
        self.draining = draining
        """Whether the gateway is about to end."""

    def declared(self) -> Mapping[str, JobDefinition]:
        """The jobs of functions.yaml."""
        return self._registry.definitions.jobs

    def names(self) -> Iterable[str]:
        """Every function that is declared, and every job: a job starts one of them, or an image."""
        return chain(self._registry.declared, self._registry.definitions.jobs)

    async def start(
        self,
        id: str,
        name: str,
        definition: JobDefinition,
        key: Idempotency | None = None,
        caller: str = "",
    ) -> Job:
        """Begin a job that has `count` or `inputs` and counts to `caller`; with a known idempotency key, show the
        job that it was first used for. Raises `NotStarted`, `KeyReused` and `StoreError`."""
        if self.draining():
            raise NotStarted(slugs.DRAINING, "the gateway is shutting down", 5.0)
        await self._check(definition)
        return await self._jobs.begin(self.new_job(id, name, definition), key, caller)

    async def _check(self, definition: JobDefinition) -> None:
        for function in (definition.function, definition.on_success, definition.on_failure):
            if function is not None and function not in self._registry.declared:
                raise NotStarted(
                    slugs.NO_SUCH_FUNCTION, f"there is no function {function!r}; GET /functions lists them"
                )
        if definition.image is None:
            return
        budget = self._registry.memory_budget
        if definition.memory > budget:
            raise NotStarted(
                slugs.INVALID_INPUT,
                f"memory: {format_size(definition.memory)} is over the gateway's whole memory budget, "
                f"{format_size(budget)} (HEARTH_MEMORY_BUDGET)",
            )
        try:
            await self._registry.find_image(definition.image, definition)
        except NotFound as error:
            raise NotStarted(slugs.NOT_FOUND, str(error)) from error
        except VolumeRefused as error:
            raise NotStarted(slugs.INVALID_INPUT, str(error)) from error
        except EngineError as error:
            raise NotStarted(slugs.ENGINE_DOWN, str(error), 5.0) from error

    def new_job(
        self,
        id: str,
        name: str,
        definition: JobDefinition,
        each: bytes | None = None,
        depth: int = 0,
        context: tuple[tuple[str, str], ...] = (),
    ) -> NewJob:
        """Return the job to be begun."""
        assert definition.tasks is not None
        parallel = definition.parallel or self._fitting(definition, definition.tasks)
        return NewJob(
            id=id,
            name=name,
            definition=definition,
            parallel=parallel,
            each=each,
            depth=depth,
            context=context,
        )

    def _fitting(self, definition: JobDefinition, count: int) -> int:
        if definition.function is not None:
            plan = self._plans.of(definition.function)
            return places(plan.slots, plan.exec_seconds)
        return fitting_parallel(count, self._cores, self._registry.memory_budget // definition.memory)


class JobTarget:
    """The jobs of functions.yaml, for triggers. A body that comes with the start is every task's input, where the job
    has a `count`; where it has neither `count` nor `inputs`, a JSON list has one input for each task."""

    def __init__(self, starts: JobStarts, jobs: Jobs) -> None:
        self._starts = starts
        self._store = jobs.store
        self.begun = jobs.begun

    def names(self) -> Collection[str]:
        """What there is, now."""
        return self._starts.declared().keys()

    def functions(self, name: str) -> Collection[str]:
        """The function that its tasks call; an image is called by the job's own name."""
        return (self._starts.declared()[name].function or name,)

    async def running(self, id: str) -> bool:
        """Whether the job has not ended."""
        found = await self._store.show(id)
        return found is not None and not found[0].status.ended

    def work(self, start: Start) -> NewJob:
        """The job. Raises ValueError for a body that says no tasks."""
        definition, each = self._starts.declared()[start.name], None
        if definition.tasks is None:
            try:
                inputs = loads(start.body)
            except (ValueError, RecursionError):
                inputs = None
            if not isinstance(inputs, list):
                raise ValueError(f"the job {start.name} is started with a JSON list of inputs")
            definition = definition.model_copy(update={"inputs": checked_inputs(inputs)})
        elif definition.count is not None and start.body:
            each = start.body
        return self._starts.new_job(
            start.id, start.name, definition, each, start.depth, start.overrides.context
        )
