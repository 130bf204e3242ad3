"""Makes warm calls through the invoke endpoint with nothing behind it: no socket, no container, no other work.

`python -m tests.unit.warm_call_loop N` makes N calls; run under callgrind, the difference of two runs is what a
call costs. Instructions do not depend on what else the machine does.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

import uvloop

from gateway.invoke import InvokeEndpoint
from gateway.outcome import Outcomes
from pool.clock import LoopClock
from pool.engine.base import ContainerSpec
from pool.instance import Instance
from pool.logs import LogStore
from pool.metrics import Metrics
from pool.pool import Pool
from pool.workload import Kind, Workload
from scheduler.dispatcher import Dispatcher
from scheduler.function import Limits

BODY = b'{"name":"Ada"}'
ANSWER = b'{"message":"Hello, Ada!"}'


class Connection:
    """Answers at once."""

    status = 200
    complete = True
    reusable = True

    def __init__(self) -> None:
        self.headers = [(b"content-type", b"application/json"), (b"content-length", b"25")]

    async def exchange(self, call: Any) -> Connection:
        return self

    def take(self) -> bytes:
        return ANSWER


class Link:
    """One slot."""

    alive = True

    def __init__(self) -> None:
        self._free = [Connection()]

    def free_slots(self, in_use: int) -> int:
        return len(self._free)

    def take(self) -> Connection:
        return self._free.pop()

    def give(self, connection: Connection) -> None:
        self._free.append(connection)

    def drain_log(self) -> None:
        pass

    async def close(self) -> None:
        pass


class Launcher:
    """Starts at once."""

    async def launch(self, instance: Instance, prototype: ContainerSpec) -> None:
        instance.link = Link()  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        async def nothing(*_: object) -> None:
            pass

        return nothing


class NoFaults:
    def fault_of(self, function: str) -> str | None:
        return None


async def no_obituary(instance: Instance) -> str:
    return ""


class WarmCall:
    """A gateway's invoke endpoint with one warm function. Made inside a running loop."""

    def __init__(self) -> None:
        clock, metrics, logs = LoopClock(), Metrics(), LogStore()
        self.pool = Pool(Launcher(), clock, metrics, logs, 2**34)  # type: ignore[arg-type]
        dispatcher = Dispatcher(self.pool, clock, 2)
        container = ContainerSpec(name="", image="image")
        dispatcher.deploy(
            Workload(function="hello", version="1", kind=Kind.HANDLER, container=container), Limits()
        )
        self.endpoint = InvokeEndpoint(dispatcher, NoFaults(), Outcomes(metrics), logs, clock, no_obituary)
        self.sent: list[Any] = []
        self._scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": "/invoke/hello",
            "raw_path": b"/invoke/hello",
            "query_string": b"",
            "scheme": "http",
            "client": ("127.0.0.1", 40000),
            "server": ("127.0.0.1", 8080),
            "headers": [(b"host", b"127.0.0.1:8080"), (b"content-length", b"14"), (b"accept", b"*/*")],
        }

    async def __call__(self) -> None:
        self.sent.clear()
        await self.endpoint(self._scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


async def main(calls: int) -> None:
    call = WarmCall()
    gc.disable()  # when it runs depends on what was imported; the gateway keeps all that from it
    for _ in range(200 + calls):
        await call()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
