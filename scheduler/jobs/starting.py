"""Starting jobs: checks before a job is stored, and jobs as a start target of triggers."""

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
from scheduler.jobs.decisions import default_parallel
from scheduler.jobs.jobs import Jobs
from scheduler.jobs.model import Job
from scheduler.json_steps import loads
from scheduler.work import NewJob


class NotStarted(Exception):
    """A job cannot be started; `slug` names the problem."""

    def __init__(self, slug: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.slug = slug
        self.retry_after = retry_after


class JobStarts:
    """Starts the jobs of one gateway."""

    def __init__(
        self, jobs: Jobs, registry: Registry, plans: Plans, cores: int, draining: Callable[[], bool]
    ) -> None:
        self._jobs = jobs
        self._registry = registry
        self._plans = plans
        self._cores = cores
        self.draining = draining
        """Returns whether the gateway is shutting down."""

    def declared(self) -> Mapping[str, JobDefinition]:
        """Return the jobs of functions.yaml, by name."""
        return self._registry.definitions.jobs

    def names(self) -> Iterable[str]:
        """Return the names of all declared functions and jobs."""
        return chain(self._registry.declared, self._registry.definitions.jobs)

    async def start(
        self,
        id: str,
        name: str,
        definition: JobDefinition,
        key: Idempotency | None = None,
        caller: str = "",
    ) -> Job:
        """Begin a job that has `count` or `inputs`; its bytes count to `caller`. Return it.

        With a known idempotency key, return the job that the key was first used for. Raises `NotStarted`,
        `KeyReused` and `StoreError`.
        """
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
                f"{format_size(budget)}; lower it, or raise HEARTH_MEMORY_BUDGET",
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
        """Return the job to begin."""
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
        return default_parallel(count, self._cores, self._registry.memory_budget // definition.memory)


class JobTarget:
    """The start target for the jobs of functions.yaml.

    The body of a start is the input of every task if the job has a `count`. If it has neither `count` nor `inputs`,
    the body is a JSON list with one input for each task.
    """

    def __init__(self, starts: JobStarts, jobs: Jobs) -> None:
        self._starts = starts
        self._store = jobs.store
        self.begun = jobs.begun

    def names(self) -> Collection[str]:
        """Return the names of the declared jobs."""
        return self._starts.declared().keys()

    def functions(self, name: str) -> Collection[str]:
        """Return the function that a job's tasks call, or the job's own name if it runs an image."""
        return (self._starts.declared()[name].function or name,)

    async def running(self, id: str) -> bool:
        """Return whether the job exists and has not ended."""
        found = await self._store.show(id)
        return found is not None and not found[0].status.ended

    def work(self, start: Start) -> NewJob:
        """Return the job to begin. Raises ValueError if the body must give the inputs and does not."""
        definition, each = self._starts.declared()[start.name], None
        if definition.tasks is None:
            try:
                inputs = loads(start.body)
            except (ValueError, RecursionError):
                inputs = None
            if not isinstance(inputs, list):
                raise ValueError(f"the job {start.name} needs a JSON list of inputs as its body")
            definition = definition.model_copy(update={"inputs": checked_inputs(inputs)})
        elif definition.count is not None and start.body:
            each = start.body
        return self._starts.new_job(
            start.id, start.name, definition, each, start.depth, start.overrides.context
        )
