"""Runs accepted calls through the gateway's own worker, store and fast path, on a file, without sockets and
containers: the instance is a transport that answers what is written to it in the loop's next turn.

`python -m tests.support.accepted_run_loop FILE keep|run` accepts calls and runs them, or not; under callgrind, the
difference of the two is what leasing, running and recording them costs.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path

import uvloop

from gateway.calls.caller import Caller
from pool.clock import LoopClock
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor
from pool.transport.connection import HttpConnection
from scheduler.calls.callbacks import Callbacks
from scheduler.calls.destinations import Destinations
from scheduler.calls.model import Status
from scheduler.calls.plans import FunctionPlan
from scheduler.calls.running.lease_keeper import LeaseKeeper, StoreSettings
from scheduler.calls.running.worker import Worker
from scheduler.definitions.language.call_overrides import CallOverrides, RetryPolicy
from scheduler.definitions.language.callback_allow import Allowed
from scheduler.store.sqlite.calls import SqliteCallStore
from scheduler.store.sqlite.leases import SqliteLeaseStore
from scheduler.store.sqlite.rows.batch_rows import insert_all
from scheduler.store.sqlite.writer import Writer
from scheduler.triggers.cloud_events import binary_headers
from scheduler.triggers.event import Event
from scheduler.work import NewCall, Request
from tests.support.callgrind import counted
from tests.support.warm_call_loop import ANSWER, Link, Transport, WarmCall

SLOTS = 16
WARM_UP = 400
MEASURED = 1000


class Answering(Transport):
    """The far end of a connection to an instance."""

    connection: HttpConnection

    def write(self, data: bytes) -> None:
        asyncio.get_running_loop().call_soon(self.connection.data_received, ANSWER)


class ManySlots(Link):
    """As many slots as it has connections."""

    def __init__(self) -> None:
        super().__init__()
        self._free = []
        for _ in range(SLOTS):
            transport = Answering()
            transport.connection = HttpConnection()
            transport.connection.connection_made(transport)  # type: ignore[arg-type]
            self._free.append(transport.connection)


def call_of_event(number: int) -> NewCall:
    """What an event starts: no two have the same head."""
    attributes = {
        "specversion": "1.0",
        "type": "com.example.order.paid",
        "source": "/shop",
        "id": str(number),
        "time": f"2026-11-28T14:00:00.{number:06}Z",
        "datacontenttype": "application/json",
    }
    headers = binary_headers(Event(attributes))
    request = Request(headers=[*headers, (b"content-length", b"14")])
    overrides = CallOverrides(context=(("Trigger", "paid"),))
    return NewCall(f"{number:032x}", "hello", request, b'{"name":"Ada"}', overrides=overrides)


class AcceptedRuns:
    """A gateway's floor of accepted calls, with one function. Made inside a running loop; `start` comes first."""

    def __init__(self, file: Path) -> None:
        self.edge = WarmCall(ManySlots, SLOTS)
        self.metrics = Metrics()
        self.writer = Writer(file)
        self.store = SqliteCallStore(self.writer, 2**30)
        self._clock = LoopClock()
        plan = FunctionPlan(RetryPolicy(attempts=1), SLOTS, exec_seconds=0.000123)
        leases = LeaseKeeper(SqliteLeaseStore(self.writer), self._clock, self.metrics, "node")
        settings = StoreSettings(leases, 3600.0)
        self.worker = Worker(self.store, self._clock, self.metrics, lambda _: plan, settings)
        self.worker.followers += [Destinations(lambda _: plan), Callbacks(lambda _: plan, Allowed(()))]
        fast = self.edge.fast_protocol().fast
        self.worker.run = Caller(fast.endpoint, fast, self.store)
        self._accepted = 0

    async def start(self) -> None:
        """Return when the instance is ready and its first calls have been run."""
        await self.edge.start()
        await self.accept(WARM_UP)
        self.worker.start(Supervisor(self._clock, self.metrics))
        await self.until_all_have_run()

    async def accept(self, count: int) -> None:
        """Keep so many calls; the worker is not told."""
        first, now = self._accepted, self._clock.wall()
        self._accepted += count
        calls = [(call_of_event(number), now) for number in range(first, self._accepted)]
        await self.writer.do(lambda db: insert_all(db, calls))

    async def until_all_have_run(self, last: Status = Status.SUCCEEDED) -> None:
        """Have all run that were accepted, and return when that is on disk. The last one may end in another way."""
        self.worker.notify()
        ended = self.metrics.async_ended
        while ended.value_of("hello", "succeeded") < self._accepted - (
            last is not Status.SUCCEEDED
        ) or not ended.value_of("hello", last):
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Leave nothing behind."""
        await self.worker.close()
        await self.store.close()
        await self.edge.close()


async def main(file: Path) -> None:
    floor = AcceptedRuns(file)
    await floor.start()
    gc.disable()  # when it runs depends on what was imported; the gateway keeps all that from it
    await floor.accept(MEASURED)
    with counted():
        await floor.until_all_have_run()
    await floor.close()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
