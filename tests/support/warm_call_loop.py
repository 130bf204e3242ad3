"""Makes warm calls through the gateway's own protocol, without sockets and containers: whoever calls and whoever
answers is a transport that keeps what is written to it.

`python -m tests.support.warm_call_loop same|changing N` makes N calls, with the same head or with two in turn; run
under callgrind, the difference of two runs is what a call costs. Instructions do not depend on what else the machine
does. Where objects lie in memory changes them by up to 2 %: compare means of runs with different layouts.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import sys
from collections.abc import Callable
from typing import Any

import uvloop
from uvicorn import Config
from uvicorn.server import ServerState

from gateway.access.access import Access
from gateway.access.guard import Guard
from gateway.edge.client_limits import ClientLimits
from gateway.edge.client_protocol import ClientProtocol
from gateway.edge.fast_path import FastPathProtocol
from gateway.invoke.deaths import Deaths
from gateway.invoke.endpoint import InvokeEndpoint
from gateway.invoke.fast_call import FastPath
from gateway.invoke.outcome import Outcomes
from gateway.invoke.recent_calls import RecentCalls
from gateway.memory.budget import BodyBudget
from gateway.memory.connections import ConnectionMemory
from pool.clock import LoopClock
from pool.contracts.handler import HANDLER
from pool.contracts.obituary import Obituary
from pool.engine.base import ContainerSpec
from pool.instance import Instance
from pool.lease import Lease
from pool.observe.logs import LogStore
from pool.observe.metrics import Metrics
from pool.pool import Pool
from pool.transport.connection import HttpConnection
from pool.workload import Workload
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.dispatch.function import Limits
from tests.support.callgrind import counted

REQUEST = (
    b"POST /invoke/hello HTTP/1.1\r\nhost: 127.0.0.1:8080\r\nuser-agent: test\r\naccept: */*\r\n"
    b"content-type: application/json\r\n%bcontent-length: 14\r\n\r\n" + b'{"name":"Ada"}'
)
ANSWER = (
    b"HTTP/1.1 200 \r\nContent-Type: application/json\r\nContent-Length: 25\r\nX-Hearth-Silent: 1\r\n"
    b'X-Hearth-Exec: 0.000123\r\n\r\n{"message":"Hello, Ada!"}'
)
"""As the Python shim writes it; `tests/contract/test_contracts.py` compares."""


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = self.ended = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def write_eof(self) -> None:
        self.ended = True
        self.write = self._refuse  # type: ignore[method-assign]  # a check in `write` would count as a call's cost

    def _refuse(self, data: bytes) -> None:
        raise RuntimeError("Cannot call write() after write_eof()")  # as uvloop does

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> Any:
        return {"peername": ("127.0.0.1", 40000), "sockname": ("127.0.0.1", 8080)}.get(name)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class Link:
    """One slot."""

    alive = True

    def __init__(self) -> None:
        self.transport = Transport()
        self.connection = HttpConnection()
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]
        self._free = [self.connection]

    def free_slots(self, in_use: int) -> int:
        return len(self._free)

    def take(self) -> HttpConnection:
        return self._free.pop()

    def give(self, connection: HttpConnection) -> None:
        if connection.finish():
            self._free.append(connection)

    def drain_log(self) -> None:
        pass

    async def close(self) -> None:
        pass


class Launcher:
    """Starts at once."""

    def __init__(self, new_link: Callable[[], Link]) -> None:
        self._new_link = new_link

    async def launch(self, instance: Instance, prototype: ContainerSpec) -> None:
        instance.link = self._new_link()  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        async def nothing(*_: object) -> None:
            pass

        return nothing


class NoFaults:
    loaded = True

    def fault_of(self, function: str, private: bool = True) -> str | None:
        return None


async def no_obituary(instance: Instance) -> Obituary:
    return Obituary("it closed its connection", ended=True)


def what_uvicorn_gives(endpoint: InvokeEndpoint, memory: ConnectionMemory) -> dict[str, Any]:
    """What a protocol is made with, for a server of its own."""
    config = Config(endpoint, lifespan="off", access_log=False, log_config=None)  # type: ignore[arg-type]
    limits = ClientLimits(10.0, 100, memory)
    return {"limits": limits, "config": config, "server_state": ServerState(), "app_state": {}}


class WarmCall:
    """A gateway's edge with one client and one function. Made inside a running loop; `start` warms it."""

    def __init__(self, new_link: Callable[[], Link] = Link, slots: int = 1, host: str = "127.0.0.1") -> None:
        """`slots`: those of a link. `host`: where it would listen, which says who may speak to it."""
        self.metrics = metrics = Metrics()
        self._clock, self._logs, self._host = LoopClock(), LogStore(), host
        self._slots = slots
        self.pool = Pool(Launcher(new_link), self._clock, metrics, self._logs, 2**34)  # type: ignore[arg-type]
        self.dispatcher = Dispatcher(self.pool, self._clock, 2)
        self.recent = RecentCalls(self._clock)
        self._outcomes = Outcomes(metrics, self.recent)
        self.bodies = BodyBudget(2**30)
        self._memory = ConnectionMemory(self.bodies)
        self.limit()
        self.connect()

    def limit(self, **limits: Any) -> None:
        """Deploy the function with these limits."""
        workload = Workload(
            function="hello",
            version="1",
            contract=HANDLER,
            container=ContainerSpec(name="", image="image"),
            min_instances=1,
            concurrency=self._slots,
        )
        self.dispatcher.deploy(workload, Limits(**limits), max_instances=1)

    def connect(self) -> None:
        """Become the gateway's side of a new client's connection."""
        self.client = Transport()
        self.protocol = self.fast_protocol()
        self.protocol.connection_made(self.client)  # type: ignore[arg-type]

    def fast_protocol(self) -> FastPathProtocol:
        """What speaks to one client, and is to be given its transport."""
        endpoint = self._endpoint()
        fast = FastPath(
            endpoint,
            Guard(self._host),
            Access(self._clock, self.metrics),
            self.dispatcher,
            self._outcomes,
            self._logs,
            self._clock,
            self.bodies,
        )
        return FastPathProtocol(fast, **what_uvicorn_gives(endpoint, self._memory))

    def long_protocol(self) -> ClientProtocol:
        """The same without the fast path."""
        return ClientProtocol(**what_uvicorn_gives(self._endpoint(), self._memory))

    def _endpoint(self) -> InvokeEndpoint:
        deaths = Deaths(self.dispatcher.pool.printed, no_obituary)
        return InvokeEndpoint(self.dispatcher, NoFaults(), self._outcomes, self._clock, deaths)

    def another_client(self) -> WarmCall:
        """Another connection to the same gateway."""
        other = copy.copy(self)
        other.connect()
        return other

    async def start(self) -> None:
        """Return when the instance is ready."""
        while not (link := next((i.link for i in self.pool.ledger.of("hello")), None)):
            await asyncio.sleep(0.01)
        assert isinstance(link, Link)
        self.link = link

    def take_slot(self) -> Lease | None:
        """Lease a slot for nobody, or return None if none is free."""
        revision = self.dispatcher.revision_for("hello")
        assert revision is not None
        return self.dispatcher.try_lease(revision, "", 0.0)

    async def close(self) -> None:
        """Remove the instance, and start no other instead of it."""
        self.dispatcher.close()
        await self.pool.close()

    def __call__(self, request: bytes = REQUEST % b"") -> bytes:
        """One call, from the request's bytes to those of the response."""
        self.client.written.clear()
        self.link.transport.written.clear()
        self.protocol.data_received(request)
        assert self.link.transport.written, "nothing was sent to the instance"
        self.link.connection.data_received(ANSWER)
        return b"".join(self.client.written)


async def main(calls: int, changing: bool) -> None:
    call = WarmCall()
    await call.start()
    gc.disable()  # when it runs depends on what was imported; the gateway keeps all that from it
    heads = [REQUEST % b"", REQUEST % (b"x-n: 1\r\n" if changing else b"")]
    for _ in range(200):
        call(heads[0])
    with counted():
        for n in range(calls):
            call(heads[n % 2])


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[2]), sys.argv[1] == "changing"))
