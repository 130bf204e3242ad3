"""Where our init lies in a container, and how it becomes the container's first process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pool.engine.base import ContainerSpec, Mount, NotRunnable

INIT_FOLDER = "/.hearth"
"""Folder in the container in which init is mounted, read-only."""
INIT = f"{INIT_FOLDER}/init"


def with_init(spec: ContainerSpec, place: Mount, flags: tuple[str, ...]) -> ContainerSpec:
    """Return a container whose first process is init, with these flags and the container's program as its arguments.

    `place` mounts a folder with the program `init`. docs/init.md lists the flags. Raises `NotRunnable` if there is
    no program: the engine would refuse such a container too.
    """
    if not spec.program:
        raise NotRunnable("the image has neither ENTRYPOINT nor CMD; say `command` in functions.yaml")
    return replace(
        spec,
        entrypoint=(INIT, *copies(spec), *flags, "--", *spec.program),
        command=None,
        mounts=(*spec.mounts, place),
    )


def copies(spec: ContainerSpec) -> Iterator[str]:
    """Yield the flags that have init copy what the image has at its volumes."""
    for volume in spec.volumes:
        if volume.content is not None:
            yield from ("--copy", f"{volume.content}={volume.path}")
