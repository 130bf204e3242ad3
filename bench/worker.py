"""A process that makes load: told by lines of JSON on stdin, answers by lines of JSON on stdout.

It is a process of its own so that the load takes nothing of the time of whoever measures first calls, and so that
several can be had. It ends when its stdin does.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvloop

from bench.client import Address, CallFailed, Connection, Greeting, connect
from bench.closed_loop import Bounds, ClosedLoop, Measured
from bench.figures import Latencies, Outcome
from bench.open_loop import OpenLoop

ROOT = Path(__file__).resolve().parent.parent
LINE_LIMIT = 2**24
"""Bytes of a line: an encoded histogram is a few thousand."""


class WorkerFailed(Exception):
    """A load process ended, or could not run a loop; the message says why."""


@dataclass(frozen=True, slots=True)
class Job:
    """One loop. `address` None: over the connection to an instance that the process was given.

    `rate` 0: closed; else an open loop of so many requests a second.
    """

    clients: int
    bounds: Bounds
    address: Address | None = None
    target: str = "/"
    rate: float = 0.0

    def as_json(self, number: int) -> dict[str, Any]:
        """For the process `number`, whose nonces must differ from those of the others."""
        bounds = self.bounds
        return {
            "clients": self.clients,
            "number": number,
            "bounds": [bounds.warm_up, bounds.seconds, bounds.requests],
            "address": [self.address.host, self.address.port] if self.address else None,
            "target": self.target,
            "rate": self.rate,
        }


class Workers:
    """Load processes: `start`, `run` as often as needed, `stop`."""

    def __init__(self) -> None:
        self._processes: list[Process] = []

    async def start(self, count: int, instance: int | None) -> None:
        """`instance` is the file descriptor of a connection to an instance; the first process gets it."""
        for number in range(count):
            own = (instance,) if instance is not None and number == 0 else ()
            self._processes.append(
                await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "bench.worker",
                    *map(str, own),
                    stdin=PIPE,
                    stdout=PIPE,
                    pass_fds=own,
                    cwd=ROOT,
                    limit=LINE_LIMIT,
                    start_new_session=True,  # Ctrl-C is for us: we stop them in order
                )
            )

    async def run(self, job: Job) -> Outcome:
        """Run a loop, its clients spread over the processes. Raises `WorkerFailed`."""
        count = 1 if job.address is None else min(len(self._processes), job.clients)
        shares = [job.clients // count + (number < job.clients % count) for number in range(count)]
        answers = await asyncio.gather(
            *(
                self._ask(process, replace(job, clients=share, rate=job.rate / count).as_json(number))
                for number, (process, share) in enumerate(zip(self._processes, shares, strict=False))
            )
        )
        outcome = Outcome(Latencies(), 0.0, 0, Counter(), Counter())
        for answer in answers:
            if "error" in answer:
                raise WorkerFailed(answer["error"])
            outcome.latencies.add_encoded(answer["latencies"])
            outcome.rate += answer["rate"]
            outcome.requests += answer["requests"]
            outcome.faults.update(answer["faults"])
            outcome.starts.update(answer["starts"])
        return outcome

    async def _ask(self, process: Process, job: dict[str, Any]) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
        except ConnectionError:
            line = b""
        if not line:
            raise WorkerFailed("a load process has ended unexpectedly")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def stop(self) -> None:
        """End the processes and wait until they are gone."""
        for process in self._processes:
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*(process.wait() for process in self._processes))
        self._processes.clear()


class _Load:
    """The inside of a load process."""

    def __init__(self, instance: int | None) -> None:
        self._descriptor = instance
        self._instance: Connection | None = None

    async def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run the loop that one line asks for."""
        bounds = Bounds(*job["bounds"])
        try:
            if job["address"] is None:
                measured = await self._load_instance(job, bounds)
            else:
                measured = await self._load_gateway(job, Address(*job["address"]), bounds)
        except CallFailed as error:
            return {"error": str(error)}
        return {
            "latencies": Latencies(measured.latencies).encode(),
            "rate": measured.rate,
            "requests": measured.requests,
            "faults": measured.faults,
            "starts": measured.starts,
        }

    async def _load_gateway(self, job: dict[str, Any], address: Address, bounds: Bounds) -> Measured:
        greetings = [
            Greeting(job["target"], address.authority, prefix=f"{job['number']:x}-{client:x}-")
            for client in range(job["clients"])
        ]
        if job["rate"]:
            return await OpenLoop(lambda: connect(address), greetings, bounds, job["rate"]).run()
        return await ClosedLoop(lambda: connect(address), greetings, bounds).run()

    async def _load_instance(self, job: dict[str, Any], bounds: Bounds) -> Measured:
        return await ClosedLoop(self._to_instance, [Greeting(job["target"], "hearth")], bounds).run(
            keep_open=True
        )

    async def _to_instance(self) -> Connection:
        if self._instance is None and self._descriptor is not None:
            _, self._instance = await asyncio.get_running_loop().create_unix_connection(
                Connection, sock=socket.socket(fileno=self._descriptor)
            )
        if self._instance is None or not self._instance.is_open:
            raise CallFailed("the instance has closed its connection")
        return self._instance


def main(arguments: list[str]) -> None:
    """Serve lines until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    load = _Load(int(arguments[0]) if arguments else None)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            print(json.dumps(runner.run(load.run(json.loads(line)))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
