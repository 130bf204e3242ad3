"""A gateway that ends closes every part, whatever another part raises, and lets go of its folder."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.assembly.closing import Closing
from gateway.assembly.runtime import Runtime
from gateway.assembly.settings import Settings
from gateway.brokers.manager import BrokerManager
from gateway.callbacks.deliverer import Deliverer
from gateway.callbacks.sender import Sender
from pool.clock import LoopClock
from pool.data_folder import DataFolder
from pool.engine.guarded import GuardedEngine
from pool.engine.memory import Latency, MemoryEngine
from pool.host.egress import Egress
from pool.observe.journal.journal import Journal
from pool.pool import Pool
from pool.reaper import Reaper
from scheduler.calls.running.lease_keeper import LeaseKeeper
from scheduler.calls.running.worker import Worker
from scheduler.definitions.file import Definitions, FunctionDefinition
from scheduler.deploy.images.runtimes import RUNTIMES
from scheduler.deploy.registry import Registry
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.jobs.jobs import Jobs
from scheduler.store.sqlite.calls import SqliteCallStore
from scheduler.triggers.schedules import Schedules
from scheduler.workflows.runs import WorkflowRuns

PARTS: list[tuple[type, str, str]] = [
    (Dispatcher, "close", "dispatcher"),
    (Runtime, "_stop_starting", "start of durable work"),
    (BrokerManager, "close", "brokers"),
    (Deliverer, "close", "deliverer of callbacks"),
    (Sender, "close", "sender of callbacks"),
    (Schedules, "stop", "schedules"),
    (WorkflowRuns, "close", "workflow runs"),
    (Worker, "close", "worker"),
    (Jobs, "close", "jobs"),
    (LeaseKeeper, "close", "leases"),
    (SqliteCallStore, "close", "store"),
    (Registry, "close", "registry"),
    (Reaper, "close", "reaper"),
    (Pool, "close", "instances"),
    (Egress, "remove", "networks"),
    (DataFolder, "clear", "data folder's contents"),
    (Egress, "close", "watch over the firewall"),
    (Journal, "close", "journal of output"),
    (GuardedEngine, "close", "engine"),
    (DataFolder, "close", "data folder"),
]
"""The parts in the order in which they are closed, how each is closed, and its name in the log."""


class Broken(Exception):
    """A fault of a part, made by a test."""


class Watch:
    """The parts that were closed since `begin`, in order. The `broken` one then raises at the end of its closing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, broken: str | None) -> None:
        self.closed: list[str] = []
        self._broken = broken
        self._begun = False
        for kind, verb, name in PARTS:
            monkeypatch.setattr(kind, verb, self._watched(getattr(kind, verb), name))

    def begin(self) -> None:
        self._begun = True

    def _watched(self, close: Callable[..., Any], name: str) -> Callable[..., Any]:
        def closes(*given: Any) -> Any:
            result = close(*given)
            if asyncio.iscoroutine(result):
                return self._wait(result, name)
            self._tell(name)
            return result

        return closes

    async def _wait(self, closing: Awaitable[Any], name: str) -> Any:
        result = await closing
        self._tell(name)
        return result

    def _tell(self, name: str) -> None:
        if self._begun:
            self.closed.append(name)
            if name == self._broken:
                raise Broken


@pytest.fixture
def engine() -> MemoryEngine:
    made = MemoryEngine(LoopClock(), latency=Latency(0.0, 0.0, 0.0, 0.0))
    made.add_image(RUNTIMES["python"])
    return made


async def started(engine: MemoryEngine, folder: Path) -> Runtime:
    """Return a gateway that has one container."""
    (folder / "handler.py").write_text("def handle(event, context): return event")
    function = FunctionDefinition(
        name="f", runtime="python", source=folder, handler="handler:handle", min_instances=1
    )
    runtime = Runtime(Settings(), DataFolder(folder / "data"), engine)
    await runtime.start(Definitions(functions={"f": function}))
    async with asyncio.timeout(20.0):
        while not engine.alive():
            await asyncio.sleep(0)
    return runtime


@pytest.mark.parametrize("broken", [None, *(name for _, _, name in PARTS)])
async def test_every_part_is_closed_in_order_whatever_another_raises(
    broken: str | None,
    engine: MemoryEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = Watch(monkeypatch, broken)
    runtime = await started(engine, tmp_path)
    assert runtime.closing.names() == [name for _, _, name in PARTS], "a part is missing in this test"
    watch.begin()
    await runtime.close()
    assert watch.closed == [name for _, _, name in PARTS]
    assert engine.alive() == 0
    faults = [record for record in caplog.records if record.levelno == logging.ERROR]
    if broken is None:
        assert not faults
    else:
        assert [fault.getMessage() for fault in faults] == [
            f"Could not close the gateway's {broken}; closing its other parts"
        ]
        assert isinstance(faults[0].exc_info, tuple) and faults[0].exc_info[0] is Broken
    monkeypatch.undo()
    DataFolder(runtime.folder.path).close()  # another gateway can have it


async def test_the_folder_is_free_if_closing_is_cancelled(engine: MemoryEngine, tmp_path: Path) -> None:
    runtime = await started(engine, tmp_path)
    closing = asyncio.ensure_future(runtime.close())
    while runtime.scheduler_floor.dispatcher.draining is False:
        await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert engine.alive() == 0
    DataFolder(runtime.folder.path).close()


async def test_warm_containers_stay_if_removing_instances_fails(
    engine: MemoryEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be alive, so the next start needs the records that the folder has of them."""

    async def fails(pool: Pool, keep_warm: bool) -> int:
        raise Broken

    monkeypatch.setattr(Pool, "close", fails)
    runtime = Runtime(Settings(keep_warm=True), DataFolder(tmp_path / "data"), engine)
    record = runtime.folder.records / "instance"
    record.parent.mkdir()
    record.write_text("{}")
    await runtime.close()
    assert record.exists()


async def test_parts_are_closed_once(caplog: pytest.LogCaptureFixture) -> None:
    closing, closed = Closing(), []
    for name in ("first", "second"):
        closing.push(name, lambda name=name: closed.append(name))
    await closing.close()
    await closing.close()
    assert closed == ["second", "first"]
    assert not caplog.records
