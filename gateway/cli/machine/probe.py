"""A short-lived container like one of a function: can it start, and does it see the data folder as we do?"""

from __future__ import annotations

import re
import secrets
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pool.clock import LoopClock
from pool.engine.base import Attachment, ContainerSpec, Engine, EngineError, Mount
from pool.host.uids import OWN_USER, with_uid
from scheduler.deploy.images.runtimes import BASE_IMAGE

PROBE_LABEL = "org.hearth.doctor"
MARKER = "marker"
TARGET = "/run/hearth"
PROGRAM = f"""\
import os, time
try:
    found = open("{TARGET}/{MARKER}", "rb").read()
except OSError:
    found = b"none"
os.write(1, found + b"\\n")
time.sleep(60)
"""
ANSWER_SECONDS = 20.0
"""Bounds the wait for the container's one line. It comes some 50 ms after the start."""
OF_A_CONTAINER = re.compile(r"containers/([0-9a-f]{64})/")
"""The id in the path of the files that an engine mounts into each container, such as /etc/hosts."""


@dataclass(frozen=True)
class Probe:
    """The short-lived container while it runs."""

    pid: int
    sees_marker: bool
    """True if the folder that it has is the one that we mean."""


@asynccontextmanager
async def probe_container(engine: Engine, uid: int, folder: Path | None) -> AsyncIterator[Probe]:
    """Run a container during the block, with a part of this folder mounted as an instance has it.

    Raises `EngineError`, and OSError if we cannot write to the folder.
    """
    with marked(folder) as (place, marker):
        name = f"hearth-doctor-{uuid.uuid4().hex[:8]}"
        spec = ContainerSpec(
            name=name,
            image=BASE_IMAGE,
            command=("python3", "-c", PROGRAM),
            user=OWN_USER,
            labels={PROBE_LABEL: name},
            memory=32 * 2**20,
            mounts=(Mount(str(place), TARGET),) if place else (),
        )
        try:
            container = await engine.create(with_uid(spec, uid))
            output = await engine.attach(container, stdin=False)
            try:
                await engine.start(container)
                said = await first_line(output)
            finally:
                await output.close()
            yield Probe((await engine.inspect(container)).pid, said == marker)
        finally:
            await engine.remove(name)


@contextmanager
def marked(folder: Path | None) -> Iterator[tuple[Path | None, str]]:
    """Make a place with a marker in a folder, or in the nearest one above it that exists. Yield place and marker."""
    marker = secrets.token_hex(16)
    if folder is None:
        yield None, marker
        return
    with tempfile.TemporaryDirectory(prefix=".hearth-doctor-", dir=nearest(folder)) as name:
        place = Path(name)
        place.chmod(0o755)  # the container has another uid
        (place / MARKER).write_text(marker)
        (place / MARKER).chmod(0o644)
        yield place, marker


def nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    existing = folder.resolve()
    while not existing.exists():
        existing = existing.parent
    return existing


async def first_line(output: Attachment) -> str:
    """Return the first line that a container prints, or all of it. Raises `EngineError` if none comes."""
    said = b""
    try:
        async with LoopClock().timeout(ANSWER_SECONDS):
            while b"\n" not in said and (piece := await output.read()) is not None:
                said += piece[1]
    except TimeoutError:
        raise EngineError(f"a container did not say a word within {ANSWER_SECONDS:g} s") from None
    return said.decode(errors="replace").strip()


def own_container(mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """Return the id of the container that this process runs in, or None if there is none, or it is not known."""
    try:
        found = OF_A_CONTAINER.search(mounts.read_text())
    except OSError:
        return None
    return found[1] if found else None
