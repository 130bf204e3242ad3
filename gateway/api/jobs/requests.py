"""The body of POST /jobs: the name of a job of functions.yaml, or a job described there and then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from gateway.http.problems import Problem
from scheduler.definitions.jobs import KEYS, JobDefinition
from scheduler.definitions.language.located_model import message_of
from scheduler.json_steps import loads

LARGEST = 16 * 2**20
"""Bytes of a request that starts a job, its inputs included."""
OVERRIDES = ("count", "inputs", "parallel", "retries")
"""Keys that may be given with the name of a job of functions.yaml."""
ONLY_IN_THE_FILE = {"volumes": "mount folders of the host", "capabilities": "have capabilities"}
"""Keys that only a job of functions.yaml may have, and what each would allow."""

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "job": {
            "type": "string",
            "description": "A job of functions.yaml; with it only the keys below that say so",
        },
        "image": {"type": "string", "description": "Each task is one container of this image"},
        "command": {
            "type": "array",
            "items": {"type": "string"},
            "minItems": 1,
            "description": "Replaces the image's CMD",
        },
        "function": {
            "type": "string",
            "description": "A deployed function instead: each task is one call of it",
        },
        "count": {
            "type": "integer",
            "minimum": 1,
            "maximum": 1_000_000,
            "description": "Tasks; each is given its index (also with `job`)",
        },
        "inputs": {
            "type": "array",
            "minItems": 1,
            "items": {},
            "description": "One task each (also with `job`)",
        },
        "parallel": {
            "type": "integer",
            "minimum": 1,
            "maximum": 1000,
            "description": "Tasks at once (also with `job`)",
        },
        "retries": {
            "type": "integer",
            "minimum": 0,
            "maximum": 1000,
            "description": "Further runs of a task that fails (also with `job`)",
        },
        "memory": {"type": "string", "examples": ["100MB"]},
        "cpu_shares": {"type": "integer", "minimum": 2, "maximum": 262144},
        "timeout": {"type": "string", "examples": ["10m"], "description": "Of one run"},
        "remove": {"enum": ["all", "succeeded", "none"]},
    },
}
"""For the OpenAPI document: the keys that are used most. All of them: docs/jobs.md."""
EXAMPLES = {
    "an image": {
        "value": {
            "image": "hearth-example/busybox:latest",
            "command": ["sh", "-c", "echo task $HEARTH_TASK_INDEX of $HEARTH_TASK_COUNT"],
            "count": 3,
        }
    },
    "a function": {"value": {"function": "hello", "inputs": [{"name": "Ada"}, {"name": "Bob"}]}},
}


def object_of(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body. Raises `Problem`."""
    try:
        data = loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem("bad-request", f"the body is no JSON: {error}") from None
    if not isinstance(data, dict):
        raise Problem("bad-request", 'the body must be a JSON object, like {"function": "hello", "count": 3}')
    return data


def job_of(data: Mapping[str, Any], declared: Mapping[str, JobDefinition]) -> tuple[str, JobDefinition]:
    """Return a job's name, or '' if it has none, and its definition with `count` or `inputs`. Raises `Problem`."""
    if "job" not in data:
        for key in ONLY_IN_THE_FILE.keys() & data.keys():
            raise Problem("invalid-input", f"{key}: only jobs of functions.yaml may {ONLY_IN_THE_FILE[key]}")
        definition = checked(data)
        name = ""
    else:
        name = data["job"]
        known = declared.get(name) if isinstance(name, str) else None
        if known is None:
            raise Problem("not-found", f"there is no job {name!r} in functions.yaml; GET /jobs lists them")
        given = {key: value for key, value in data.items() if key != "job"}
        foreign = [key for key in given if key not in OVERRIDES]
        if foreign:
            allowed = ", ".join(OVERRIDES)
            raise Problem(
                "invalid-input", f"{foreign[0]}: is said in functions.yaml; with a job's name go {allowed}"
            )
        definition = overridden(known, given)
    if definition.tasks is None:
        raise Problem("invalid-input", "how many tasks? give `count`, or `inputs` with one for each")
    return name, definition


def overridden(known: JobDefinition, given: Mapping[str, Any]) -> JobDefinition:
    """Return a declared job with the keys that its starter has given. Raises `Problem`."""
    new = checked({"function": "any", **given})
    update = {key: getattr(new, key) for key in given}
    if new.tasks is not None:
        update |= {"count": new.count, "inputs": new.inputs}
    return known.model_copy(update=update)


def checked(data: Mapping[str, Any]) -> JobDefinition:
    """Return a job as it is described. Raises `Problem` with everything that is wrong."""
    for key in data:
        if key not in KEYS:
            raise Problem("invalid-input", f"{key}: there is no such key; there are {', '.join(KEYS)}")
    try:
        return JobDefinition.model_validate(dict(data))
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, detail['loc']))}: {message_of(detail)}".removeprefix(": ")
            for detail in error.errors()
        ]
        raise Problem("invalid-input", "; ".join(faults)) from None
