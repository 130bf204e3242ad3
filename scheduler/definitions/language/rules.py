"""Rules between the keys of a function: keys that need each other, and keys that exclude each other.

Each yields pairs: the key to blame, or "" for the whole function, and a message. Values come as they are written or
from the model. A value of a wrong type is skipped: the key's own type reports it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pool.engine.base import Mount
from scheduler.definitions.language.faults import shown

Blame = tuple[str, str]
"""Key at fault, or "" for the whole mapping, and the message."""


def shared_faults(keys: Mapping[str, Any]) -> Iterator[Blame]:
    """Yield the faults between keys that every kind of function has."""
    least, most = keys.get("min_instances"), keys.get("max_instances", 16)
    if isinstance(least, int) and isinstance(most, int) and least > most:
        yield "min_instances", f"is {least}, more than `max_instances`, {most}; lower it or raise the other"
    if keys.get("reuse") is False and _above_one(keys.get("concurrency")):
        yield "reuse", "false gives each call an instance of its own; `concurrency` must be 1 with it"
    yield from container_faults(keys)


def container_faults(keys: Mapping[str, Any]) -> Iterator[Blame]:
    """Yield the faults between keys of a container, which functions and jobs have."""
    yield from _mount_faults(keys)
    if keys.get("capabilities") and keys.get("user") != "image":
        yield "capabilities", "only root in an image can use them; write `user: image` too, or remove it"


def function_faults(keys: Mapping[str, Any]) -> Iterator[Blame]:
    """Yield the faults between all keys of a function, by its kind."""
    yield from shared_faults(keys)
    if "runtime" in keys and "image" in keys:
        yield "image", "a function has either `runtime` (Python code) or `image`; remove one of the two"
    elif "image" not in keys:
        yield from _handler_faults(keys)
    elif "port" in keys:
        yield from _http_faults(keys)
    else:
        yield from _command_faults(keys)


def _above_one(value: object) -> bool:
    return isinstance(value, int) and value > 1


def _foreign(keys: Mapping[str, Any], names: Sequence[str], owner: str) -> Iterator[tuple[str, str]]:
    yield from ((name, f"belongs to {owner}; remove it") for name in names if name in keys)


def _handler_faults(keys: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "runtime" not in keys:
        if "source" in keys or "handler" in keys:
            yield "", "`runtime` is missing; write `runtime: python`"
        else:
            yield "", "has no code; write `runtime`, `source` and `handler`, or `image`"
            return
    if "source" not in keys:
        yield "", "`source` is missing; write the folder with the code"
    if "handler" not in keys:
        yield "", "`handler` is missing; write module:callable, like handler:handle"
    yield from _foreign(keys, ("port", "command", "health"), "a function with `image`")
    yield from _foreign(keys, ("content_type", "stream"), "a command, an image without `port`")


def _http_faults(keys: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from _foreign(keys, ("source", "handler"), "a function with `runtime`")
    yield from _foreign(keys, ("content_type", "stream"), "a command, an image without `port`")
    if isinstance(env := keys.get("env"), Mapping) and "PORT" in env:
        yield "env", "PORT is set from `port`; remove it"


def _command_faults(keys: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from _foreign(keys, ("source", "handler"), "a function with `runtime`")
    yield from _foreign(keys, ("health",), "a function with `port`")
    if _above_one(keys.get("concurrency")) and "reuse" not in keys:
        yield (
            "concurrency",
            "needs `reuse: true` with a command: else each call has a container of its own",
        )


def _mount_faults(keys: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    writable, volumes = keys.get("writable"), keys.get("volumes")
    taken = set(writable) if isinstance(writable, Mapping) else set()
    for volume in volumes if isinstance(volumes, list | tuple) else ():
        target = (
            volume.target if isinstance(volume, Mount) else str(volume).partition(":")[2].partition(":")[0]
        )
        if target in taken:
            yield "volumes", f"mounts {shown(target)} twice, or it is in `writable` too; remove one"
        taken.add(target)
