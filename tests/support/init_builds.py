"""The init program of this checkout in the builds that tests run, each built when a test first needs it."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from gateway.setup.native import init_build
from pool.host.init_program import INSTALLED, installed_init

Program = tuple[str, ...]
"""Words of a command that runs init."""
SANITIZERS = (
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-static-libasan",
    "-static-libubsan",
)
"""With their library inside, so that an image needs a libc only."""
OTHER_MACHINE = "aarch64"
"""Runs under qemu-user. On such a machine it is simply built a second time."""


@contextmanager
def builders_lock() -> Iterator[None]:
    """Let one process of the tests build at a time."""
    sources = os.open(INSTALLED.parent, os.O_RDONLY)
    try:
        fcntl.flock(sources, fcntl.LOCK_EX)
        yield
    finally:
        os.close(sources)


def built_init() -> Path:
    """Return init for this machine, made of the sources as they are now."""
    with builders_lock():
        if not init_build.is_current(platform.machine()):
            init_build.build()
    return installed_init()


def native() -> Program:
    """Return init as it is installed."""
    return (str(built_init()),)


def sanitized() -> Program:
    """Return a build that ends with a report at the first wrong access or undefined operation."""
    flags = ("-std=c11", "-g", "-O1", "-DWITH_LIBC", "-Wall", "-Wextra", "-Werror", *SANITIZERS)
    return (str(_built("sanitized", ("gcc",), flags)),)


def emulated() -> Program:
    """Return the build for aarch64, under qemu-user."""
    compiler = ("aarch64-linux-gnu-gcc", init_build.LOOP_FLAG)
    made = str(_built(OTHER_MACHINE, compiler, init_build.FLAGS))
    return (made,) if platform.machine() == OTHER_MACHINE else (str(shutil.which("qemu-aarch64")), made)


BUILDS: dict[str, Callable[[], Program]] = {"native": native, "sanitized": sanitized, "aarch64": emulated}


def _built(name: str, compiler: Program, flags: Program) -> Path:
    digest = sha256(repr((init_build.sources_digest(), compiler, flags)).encode()).hexdigest()[:16]
    folder = INSTALLED.parents[2] / "build" / "init" / digest
    target = folder / name
    with builders_lock():
        if not target.exists():
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = target.with_suffix(".unfinished")
            init_build.compile_with(compiler, flags, unfinished)
            unfinished.rename(target)
    return target
