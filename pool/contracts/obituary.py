"""Obituaries: the ends of instances that have just closed their connection, in words."""

from __future__ import annotations

import contextlib
import signal
from typing import NamedTuple, cast

from pool.clock import Clock
from pool.engine.base import Engine, EngineError
from pool.instance import Instance
from pool.transport.run import SIGNAL_BASE, signal_name

END_WAIT_SECONDS = 1.0
"""Bounds how long the engine may take to notice that a container has ended: it learns of an end after we do."""
LIVING_LOOKS, LOOK_SECONDS = 5, 0.05
"""Looks at a container's processes, and the pause between two. If there are some each time, it lives on."""
KILLED = SIGNAL_BASE + signal.SIGKILL
KILLED_LOOKS = 4
"""Looks at a killed container, `LOOK_SECONDS` apart: the engine learns of a want of memory apart from the end."""


class Obituary(NamedTuple):
    """An account of the end of an instance that closed its connection."""

    words: str
    """A sentence."""
    ended: bool
    """False if its container seems to run on."""


def status_words(status: int) -> str:
    """Return an exit status in words, with the name of the signal that it stands for."""
    return f"exit status {status}{signal_name(status - SIGNAL_BASE)}"


def memory_words(instance: Instance) -> str:
    """Return the reason of an end for want of memory, and what to do."""
    return f"for want of memory ({instance.memory >> 20} MiB; raise `memory`)"


async def obituary_of(engine: Engine, clock: Clock, instance: Instance) -> Obituary:
    """Return how an instance ended. Waits a moment for its end, unless its processes can be seen to run."""
    closed = "it closed its connection"
    if await lives_on(clock, instance):
        if killed := killed_processes(instance):
            closed += f"; so far the kernel has killed {killed} of its processes {memory_words(instance)}"
        return Obituary(closed, ended=False)
    with contextlib.suppress(EngineError, TimeoutError):
        async with clock.timeout(END_WAIT_SECONDS):
            status = await engine.wait(cast(str, instance.container))
        return Obituary(await ended_words(engine, clock, instance, status), ended=True)
    return Obituary(closed, ended=False)


async def ended_words(engine: Engine, clock: Clock, instance: Instance, status: int) -> str:
    """Return how a container ended that has this exit status."""
    with contextlib.suppress(EngineError):
        for look in range(KILLED_LOOKS if status == KILLED else 1):
            if look:
                await clock.sleep(LOOK_SECONDS)
            if (await engine.inspect(cast(str, instance.container))).oom_killed:
                return f"it was killed {memory_words(instance)}"
    return f"its process ended with {status_words(status)}"


async def lives_on(clock: Clock, instance: Instance) -> bool:
    """Return whether an instance's processes can be seen to run on. False if they cannot be seen at all."""
    if instance.cgroup is None:
        return False
    for _ in range(LIVING_LOOKS):
        try:
            if not instance.cgroup.processes():
                return False
        except OSError:
            return False
        await clock.sleep(LOOK_SECONDS)
    return True


def killed_processes(instance: Instance) -> int | None:
    """Return how many processes of an instance were killed for want of memory, or None if nobody can tell."""
    with contextlib.suppress(OSError):
        return instance.cgroup.memory_kills() if instance.cgroup is not None else None
    return None
