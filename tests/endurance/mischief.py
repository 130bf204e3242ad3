"""Random faults under load: instances killed, stopped and removed, code changed, the gateway killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
from callers import World
from harness import Gateway
from mix import SLOTS, TIMEOUT, Answer, functions

HANDLERS = ("echo", "packed", "once", "stream", "large")
"""Whose a generic instance may become."""
SERVING = ("idle", "frozen", "busy", "draining")
"""States of an instance whose end hurts its own calls only; all may wait for one that is not ready yet."""


class Mischief:
    """One fault after the other, each at a random instance. Only containers of `gateway` are touched."""

    def __init__(self, gateway: Gateway, world: World, chance: random.Random, pause: float) -> None:
        self.gateway, self.world, self._chance, self._pause = gateway, world, chance, pause
        self.done: Counter[str] = Counter()
        """How often each kind of fault was made."""
        self.hurt: Counter[str] = Counter()
        """Calls, by function, that the faults since the beginning can have hurt at most."""
        self.recoveries: list[float] = []
        """Seconds from each kill of the gateway until it was ready again."""

    async def run(self, seconds: float) -> None:
        """Make faults for so long, some hundred milliseconds apart."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            await asyncio.sleep(min(left, self._chance.uniform(0.3, 1.7) * self._pause))
            faults = (
                self._kill,
                self._kill,
                self._stop,
                self._stop,
                self._remove,
                self._ask_away,
                self._change,
            )
            await self._chance.choice(faults)()

    async def restart(self) -> None:
        """SIGKILL the gateway in the middle of its calls, and start it again."""
        await asyncio.sleep(self._chance.uniform(0.3, 1))  # calls shall be under way
        self.world.falls()
        began = time.monotonic()

        def work() -> None:
            self.gateway.stop(signal.SIGKILL)
            self.gateway.launch()
            self.gateway.wait_until_ready()

        await asyncio.to_thread(work)
        self.recoveries.append(time.monotonic() - began)
        self.done["gateway killed"] += 1
        self.world.rises(int(self.gateway.url.rpartition(":")[2]))
        await self._in_service(self.world.declared)

    # -- the faults -----------------------------------------------------------------------------------------

    async def _kill(self) -> None:
        """SIGKILL of an instance, between its calls or in the middle of one."""
        async with self._victim("killed") as signalled:
            signalled(signal.SIGKILL)

    async def _stop(self) -> None:
        """SIGSTOP of an instance, for a moment or for longer than its calls may take, then SIGCONT."""
        seconds = self._chance.choice((0.05, 0.3, 1, TIMEOUT + 1))
        async with self._victim("stopped") as signalled:
            signalled(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            signalled(signal.SIGCONT)

    async def _remove(self) -> None:
        """`docker rm -f`."""
        if instance := await self._pick("removed by docker rm -f"):
            path = f"/containers/{instance['container']}"
            with contextlib.suppress(httpx.HTTPStatusError):  # its removal is under way already
                await asyncio.to_thread(self.gateway.engine.request, "DELETE", path, force="1")

    async def _ask_away(self) -> None:
        """`DELETE /pool/instances/{id}`: it hurts no call."""
        instances = await asyncio.to_thread(self.gateway.instances)
        if instances:
            id = self._chance.choice(instances)["id"]
            await asyncio.to_thread(self.gateway.http.delete, f"/pool/instances/{id}")
            self.done["removed by DELETE /pool/instances"] += 1

    async def _change(self) -> None:
        """A new version of `echo`: from when it is in service no other may answer."""
        self.world.declared += 1
        await asyncio.to_thread(self.gateway.declare, functions(self.world.declared), {"python": 1})
        await self._in_service(self.world.declared)
        self.done["code changed"] += 1

    # -- helpers --------------------------------------------------------------------------------------------

    async def _in_service(self, version: int) -> None:
        """Wait until a call of `echo` is answered by the version that was declared last."""
        event = {"nonce": "which", "print": False, "sleep": 0}
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            while True:
                answer = await client.post(f"{self.gateway.url}/invoke/echo", json=event)
                self.world.count("echo", Answer(answer.status_code, dict(answer.headers), answer.content))
                if answer.status_code == 200 and answer.json()["version"] == version:
                    self.world.in_service = version
                    return
                await asyncio.sleep(0.05)

    async def _pick(self, fault: str) -> dict[str, Any] | None:
        """An instance that has a container, noted as a victim of this fault; mostly one that has a call."""
        shown = await asyncio.to_thread(self.gateway.instances)
        instances = [i for i in shown if i["container"] is not None]
        if self._chance.random() < 0.8:
            instances = [i for i in instances if i["in_use"]] or instances
        if not instances:
            return None
        instance: dict[str, Any] = self._chance.choice(instances)
        self.done[fault] += 1
        function, serves = instance["function"], instance["state"] in SERVING
        for name in [function] if function else HANDLERS:
            self.hurt[name] += SLOTS[name] if serves else self.world.clients
        return instance

    @contextlib.asynccontextmanager
    async def _victim(self, fault: str) -> AsyncIterator[Callable[[int], None]]:
        """What sends a signal to an instance's first process, if it is still there, and never to another process."""
        instance = await self._pick(fault)
        process = await self._open(instance["container"]) if instance else None

        def signalled(number: int) -> None:
            with contextlib.suppress(ProcessLookupError):
                if process is not None:
                    signal.pidfd_send_signal(process, number)

        try:
            yield signalled
        finally:
            if process is not None:
                os.close(process)

    async def _open(self, container: str) -> int | None:
        """The first process of a container as a file descriptor; None if it has ended, or was not started yet."""
        shown = await asyncio.to_thread(self.gateway.engine.request, "GET", f"/containers/{container}/json")
        pid = shown.get("State", {}).get("Pid", 0)
        if not pid:
            return None
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if container in Path(f"/proc/{pid}/cgroup").read_text():
                return process
        os.close(process)
        return None
