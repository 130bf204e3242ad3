"""Jobs, from `jobs` of functions.yaml or from POST /jobs: many runs of an image or of a deployed function."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from scheduler.definitions.container_keys import ContainerKeys
from scheduler.definitions.language import key_types as types
from scheduler.definitions.language import rules
from scheduler.definitions.language.faults import shown
from scheduler.definitions.language.located_model import Reader, no_such
from scheduler.definitions.language.located_yaml import KeyPath
from scheduler.definitions.language.units import Duration, duration_between
from scheduler.json_steps import dumps

MAX_TASKS = 1_000_000
"""Tasks of one job. Only the next few are in the queue at a time, so a job of this size holds up no other work."""
IMAGE_TIMEOUT_SECONDS = 3600.0
"""Timeout of a task that runs an image, if the job sets none."""


def checked_inputs(value: object) -> tuple[object, ...]:
    """Return a list of JSON values as a tuple. Raises ValueError for anything else."""
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_TASKS:
        raise ValueError(f"must be a list of 1 to {MAX_TASKS} inputs, like [1, 2, 3], not {shown(value)}")
    try:
        dumps(value, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"must be a list of JSON values: {error}") from None
    return tuple(value)


class JobDefinition(ContainerKeys):
    """A job as it is declared: what it runs, how often, and what follows a failure."""

    image: types.ImageReference | None = None
    """Image to run: each task is one container with the input on stdin and the result on stdout."""
    command: types.Command | None = None
    """Replaces the image's CMD; its ENTRYPOINT stays."""
    function: types.FunctionName | None = None
    """Deployed function to call instead: each task is one call."""
    count: Annotated[int, types.whole(1, MAX_TASKS)] | None = None
    """Number of tasks; each gets its index as input."""
    inputs: Annotated[tuple[Any, ...], BeforeValidator(checked_inputs)] | None = None
    """Inputs, one for each task."""
    parallel: Annotated[int, types.whole(1, 1000)] | None = None
    """Tasks that run at once, at most; None lets the machine's room decide."""
    retries: Annotated[int, types.whole(0, 1000)] = 0
    """Further runs of a task that fails."""
    backoff: Annotated[Duration, duration_between("1ms", "24h")] = 0.1
    """Seconds of pause after a task's first failure; each further failure doubles it."""
    max_backoff: Annotated[Duration, duration_between("1ms", "24h")] = 2.0
    max_event_age: Annotated[Duration, duration_between("1s", "30d")] = 86400.0
    """Seconds after a task was queued at which it is not run again."""
    timeout: Annotated[Duration, duration_between("1ms", "24h")] | None = None
    """Seconds that a run may take; None takes the function's timeout, or `IMAGE_TIMEOUT_SECONDS` for an image."""
    remove: Literal["all", "succeeded", "none"] = "all"
    """Ended containers that are removed at once; the others are kept for inspection."""
    on_success: types.FunctionName | None = None
    """Function that is called when every task has succeeded."""
    on_failure: types.FunctionName | None = None
    """Function that is called when the job has ended otherwise."""

    @property
    def tasks(self) -> int | None:
        """Return the number of tasks, or None if it is given at the start of the job."""
        return len(self.inputs) if self.inputs is not None else self.count

    @classmethod
    def rule_faults(cls, keys: Mapping[str, Any]) -> Iterator[rules.Blame]:
        """Yield the faults between these keys."""
        if "image" in keys and "function" in keys:
            yield "function", "a job has either `image` or `function`; remove one of the two"
        elif "image" not in keys and "function" not in keys:
            yield "", "has nothing to run; write `image`, or `function` for a deployed one"
        elif "function" in keys:
            for key in IMAGE_KEYS:
                if key in keys:
                    yield key, "belongs to a job with `image`; the function has its own"
        if "count" in keys and "inputs" in keys:
            yield "count", "`inputs` has one task for each; remove one of the two"
        yield from rules.container_faults(keys)


KEYS = tuple(JobDefinition.model_fields)
IMAGE_KEYS = ("command", "remove", *ContainerKeys.model_fields)
"""Keys for the container of an image; a deployed function has its own."""


def read_jobs(reader: Reader, given: dict[str, Any], functions: Collection[str]) -> dict[str, JobDefinition]:
    """Return the jobs of a definitions file that have no fault. `functions` are the names of its functions."""
    read = {name: _read_job(reader, name, keys, functions) for name, keys in given.items()}
    return {name: job for name, job in read.items() if job is not None}


def _read_job(reader: Reader, name: str, keys: object, functions: Collection[str]) -> JobDefinition | None:
    path: KeyPath = ("jobs", name)
    if not re.fullmatch(types.NAME, name):
        reader.fault(
            path, f"{shown(name)} must be 1 to 63 lower-case letters, digits, - or _ with a letter first"
        )
    if not isinstance(keys, dict):
        reader.fault(path, f"must be a mapping with the job's keys, not {shown(keys)}")
        return None
    own = reader.known(keys, KEYS, path)
    for key in ("function", "on_success", "on_failure"):
        named = own.get(key)
        if isinstance(named, str) and re.fullmatch(types.NAME, named) and named not in functions:
            reader.fault((*path, key), no_such("function", named, sorted(functions)))
    return reader.model(JobDefinition, own, own, path)[0]
