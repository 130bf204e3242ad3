"""How long an event loop's callbacks take, and a gateway in memory that has many of everything."""

from __future__ import annotations

import asyncio
import gc
import json
import json.scanner
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from gateway.access.access import OPEN, Admission
from gateway.access.keys import Key, parse_keys
from gateway.assembly.runtime import Runtime
from gateway.assembly.server import build_edge
from gateway.assembly.settings import Settings
from gateway.edge.app import Edge, build_app
from gateway.invoke.recent_calls import LONGEST_DETAIL, MOST_FAILED, MOST_SERVED, CallFacts, Failure
from pool.clock import LoopClock
from pool.contracts.handler import HANDLER
from pool.data_folder import DataFolder
from pool.engine.base import ContainerSpec
from pool.engine.memory import MemoryEngine
from pool.instance import Instance
from pool.states import State
from pool.workload import Workload
from scheduler.calls.model import Ending, Result, Status
from scheduler.definitions.brokers import BrokerDefinition, RedisStream
from scheduler.definitions.file import Definitions, FunctionDefinition
from scheduler.definitions.jobs import JobDefinition
from scheduler.definitions.triggers import TriggerDefinition
from scheduler.definitions.workflows import WorkflowDefinition
from scheduler.deploy.declared import Declared
from scheduler.dispatch.function import Limits, Revision
from scheduler.jobs.model import JobStatus, TaskState
from scheduler.jobs.store import JobEnd
from scheduler.work import Body, NewCall, NewJob, NewRun, Payload, Request
from scheduler.workflows.model import Changes, ClosedStep, RunEnd, RunStatus, StepStatus
from tests.support.lease_owners import ME

PIECE = 64 * 1024
"""Bytes of a body that come at once, as a server reads them."""


@dataclass(slots=True)
class Turns:
    """The longest callback of an event loop, in milliseconds of its thread's own processor time."""

    worst: float = 0.0
    where: str = ""
    parsed: int = 0
    """The most characters that any thread had the parser of JSON in C look at in one go."""
    total: int = 0
    """All characters that the parser looked at."""
    written: int = 0
    """The most characters that the writer wrote in one go."""


@cache
def fixed_work_ms() -> float:
    """Return how long this machine takes to make 3,000 small objects and to write most of them as JSON."""
    took = []
    for _ in range(5):
        begun = time.thread_time()
        rows: list[dict[str, Any]] = [
            {"name": f"t{n:04}", "at": n * 0.25, "state": "ready", "keys": [n, str(n)]} for n in range(3000)
        ]
        assert sum(len(json.dumps(row)) for row in rows if row["keys"][0] % 3)
        took.append((time.thread_time() - begun) * 1000)
    return min(took)


@contextmanager
def watched() -> Iterator[Turns]:
    """Measure every callback of asyncio's own loop in this block. The collector of garbage rests meanwhile."""
    turns = Turns()
    run = asyncio.Handle._run  # noqa: SLF001  # asyncio has no hook around a callback

    def timed(handle: asyncio.Handle) -> None:
        begun = time.thread_time()
        run(handle)
        took = (time.thread_time() - begun) * 1000
        if took > turns.worst:
            turns.worst, turns.where = took, repr(handle)

    gc.collect()
    gc.disable()
    asyncio.Handle._run = timed  # type: ignore[method-assign]  # noqa: SLF001  # as above
    try:
        with json_counted(turns):
            yield turns
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]  # noqa: SLF001  # as above
        gc.enable()


@contextmanager
def json_counted(turns: Turns) -> Iterator[None]:
    """Count what the standard library parses and writes in one go: nobody else has the interpreter meanwhile."""
    scanner, encode = json.scanner.make_scanner, json.JSONEncoder.encode  # type: ignore[attr-defined]
    usual: Any = json._default_decoder  # type: ignore[attr-defined]  # noqa: SLF001  # json.loads uses it

    def counting(scan: Callable[[str, int], tuple[Any, int]]) -> Callable[[str, int], tuple[Any, int]]:
        def counted(text: str, at: int) -> tuple[Any, int]:
            end = at
            try:
                value, end = scan(text, at)
            except json.JSONDecodeError as fault:
                end = fault.pos
                raise
            except RecursionError:
                end = at + sys.getrecursionlimit()
                raise
            finally:
                turns.parsed = max(turns.parsed, end - at)
                turns.total += end - at
            return value, end

        return counted

    def written(encoder: json.JSONEncoder, value: object) -> str:
        text = encode(encoder, value)
        turns.written = max(turns.written, len(text))
        return text

    scan_once = usual.scan_once
    usual.scan_once = counting(scan_once)
    json.scanner.make_scanner = lambda decoder: counting(scanner(decoder))  # type: ignore[attr-defined]
    json.JSONEncoder.encode = written  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        usual.scan_once = scan_once
        json.scanner.make_scanner = scanner  # type: ignore[attr-defined]
        json.JSONEncoder.encode = encode  # type: ignore[method-assign]


@dataclass(slots=True)
class Answer:
    """What a request was answered with."""

    status: int = 0
    size: int = 0
    head: bytes = b""
    """The first bytes of its body."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `name` tells several of one route apart."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    query: str = ""
    name: str = ""
    refused: bool | None = False
    """Whether it is answered with a status of 400 or more; None: either."""


async def ask(edge: Edge, request: Ask) -> Answer:
    """Have a gateway answer a request, whose body comes piece by piece."""
    starts = list(range(0, len(request.body), PIECE)) or [
        0
    ]  # cut as they are asked for: many MiB take their time
    headers = {"host": "127.0.0.1:8080", "authorization": f"Bearer {EVERYTHING}", **request.headers}
    if request.body:
        headers["content-length"] = str(len(request.body))
    answer = Answer()

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        if not starts:
            await asyncio.get_running_loop().create_future()
        at = starts.pop(0)
        piece = request.body[at : at + PIECE]
        return {"type": "http.request", "body": piece, "more_body": bool(starts)}

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
        else:
            answer.size += len(message.get("body", b""))
            answer.head = answer.head or message.get("body", b"")[:300]

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": request.path.encode(),
        "query_string": request.query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8080),
        "state": {},
    }
    await asyncio.ensure_future(edge(scope, receive, send))
    return answer


FUNCTIONS = 1000
INSTANCES = 10_000
STEPS = 200
TRIGGERS = 1000
CALLS = 1000
TASKS = 10_000
DEAD = 1000
"""Dead letters of each of some functions."""
KEYS = 1000
SOURCES = 100
EVERYTHING, FEW = "hth_zzzzzzzz_" + "z" * 32, "hth_yyyyyyyy_" + "y" * 32
"""Keys: one that may do everything, and one that may see few functions."""
SECRET = "s" * 32
"""What messages for the webhook are signed with."""
KEPT, PIECES, PRINTED = "a" * 32, "b" * 32, "e" * 32
"""Calls that have ended: one with a large answer and a full log, and one whose answer lies in pieces."""
INPUT = Body(b"{}", "application/json")
DEEP = {"all": [{"any": [{"prefix": {"type": f"a{n}"}}, {"suffix": {"source": "z"}}]} for n in range(20)]}


@dataclass(frozen=True)
class ServedCall:
    """A call that was answered."""

    name: str
    revision: Revision
    id: str = "0" * 32
    private: bool = False
    arrived: float = 0.0
    admission: Admission = OPEN
    kind: str = "warm"
    queue_seconds: float = 0.001
    start_seconds: float = 0.001
    exec_seconds: float = 0.001


class Crowded:
    """A gateway without a server, on an engine of memory, with many functions, instances, triggers, runs and jobs."""

    def __init__(self, folder: Path) -> None:
        settings = Settings(memory_budget="1000GiB", api_keys=some_keys())
        self.data = DataFolder(folder)
        self.runtime = Runtime(settings, self.data, MemoryEngine(LoopClock()))
        self.edge = build_edge(self.runtime)
        self.app = build_app(self.runtime.api_parts)

    async def fill(self) -> None:
        """Declare and keep all of it."""
        definitions = self._definitions()
        registry = self.runtime.scheduler_floor.registry
        registry.definitions, registry.loaded = definitions, True
        for name, definition in definitions.functions.items():
            registry.declared[name] = Declared(definition, "ready", version="v" * 64)
            spec = ContainerSpec(name="c", image="sha256:" + "0" * 64, memory=2**20)
            workload = Workload(function=name, version="v" * 64, contract=HANDLER, container=spec)
            revision = self.runtime.scheduler_floor.dispatcher.deploy(workload, Limits())
            self.runtime.gateway_floor.outcomes.served(ServedCall(name, revision), 200)
        names = list(definitions.functions)
        for number in range(INSTANCES):
            revision = self.runtime.scheduler_floor.dispatcher.revision_for(names[number % FUNCTIONS])
            assert revision is not None
            instance = Instance(f"i{number}", "sha256:0", 2**20, revision.workload, 0.0)
            self.runtime.pool_floor.pool.ledger.add(instance)
            self.runtime.pool_floor.pool.ledger.enter(instance, State.IDLE, 0.0)
        self._remember(names)
        await self.runtime.scheduler_floor.triggers.load()
        self.runtime.scheduler_floor.triggers.declare(definitions.triggers)
        await self._keep(definitions)
        await self._keep_ended()
        await self._keep_ended_calls()
        self._print(INSTANCES // 100)
        await self._keep_output()
        stream = RedisStream(url="redis://127.0.0.1:1", stream="orders")
        self.runtime.gateway_floor.brokers.declare(
            {
                f"s{n}": BrokerDefinition.model_validate({"name": f"s{n}", "broker": stream})
                for n in range(SOURCES)
            }
        )

    def _definitions(self) -> Definitions:
        functions = {
            f"f{n:04d}": FunctionDefinition(name=f"f{n:04d}", runtime="python", source="x", handler="a:b")
            for n in range(FUNCTIONS)
        }
        steps = {
            f"s{n:03d}": {"function": f"f{n:04d}", "needs": [f"s{m:03d}" for m in range(max(0, n - 3), n)]}
            for n in range(STEPS)
        }
        workflow = WorkflowDefinition.model_validate({"steps": steps})
        triggers: dict[str, Any] = {
            f"t{n:04d}": {"events": {"filters": [DEEP]}, "function": f"f{n:04d}"}
            for n in range(TRIGGERS // 2)
        }
        wide = {"any": [{"exact": {"type": "x" * 20}}] * 4998}
        triggers |= {f"v{n:02d}": {"events": {"filters": [wide]}, "function": "f0000"} for n in range(2)}
        triggers["hook"] = {
            "webhook": {"secret_env": "HEARTH_SECRET_HOOK", "max_body": "64MiB", "signature": "github"},
            "function": "f0000",
        }
        triggers |= {
            f"c{n:04d}": {"schedule": "0 0 29 2 */7", "timezone": "Europe/Berlin", "function": f"f{n:04d}"}
            for n in range(TRIGGERS // 2)
        }
        job = {"function": "f0000", "count": 5}
        return Definitions(
            functions=functions,
            workflows={f"w{n:02d}": workflow for n in range(20)},
            jobs={f"j{n:03d}": JobDefinition.model_validate(job) for n in range(100)},
            triggers={
                name: TriggerDefinition.model_validate({**keys, "name": name})
                for name, keys in triggers.items()
            },
        )

    async def _keep(self, definitions: Definitions) -> None:
        store = self.runtime.scheduler_floor.stores.calls
        workflow = definitions.workflows["w00"]
        await store.begin(
            [
                NewCall(f"{n:032x}", "f0000", Request(), b"{}", owner="run:r0/s000", part=str(n))
                for n in range(CALLS)
            ],
            0.0,
        )
        await store.begin([NewRun(f"r{n}", "w00", workflow, INPUT) for n in range(1000)], 0.0)
        closed = [ClosedStep(step, StepStatus.FAILED, "x", "y" * 200) for step in workflow.steps]
        await self.runtime.scheduler_floor.runs.store.progress(ME, "r0", 0.0)
        await self.runtime.scheduler_floor.runs.store.apply(ME, "r0", Changes(closed=closed), 0, 0.0)
        definition = JobDefinition.model_validate({"function": "f0000", "count": TASKS, "parallel": 1000})
        await store.begin(
            [NewJob(id=f"j{n}", definition=definition, parallel=1000) for n in range(1000)], 0.0
        )
        await self.runtime.scheduler_floor.jobs.store.advance(ME, "j0", 0.0)

    async def _keep_ended(self) -> None:
        """End a run with a large output, some runs that can be resumed, and some jobs."""
        runs, jobs = self.runtime.scheduler_floor.runs.store, self.runtime.scheduler_floor.jobs.store
        output = Body(b"x" * (8 * 2**20 - 1), "text/plain")
        await runs.progress(ME, "r10", 0.0)
        await runs.apply(ME, "r10", Changes(end=RunEnd(RunStatus.SUCCEEDED, output)), 0, 0.0)
        failed = Changes(closed=[ClosedStep("s000", StepStatus.FAILED)], end=RunEnd(RunStatus.FAILED))
        for number in range(3):
            await runs.progress(ME, f"r5{number}", 0.0)
            await runs.apply(ME, f"r5{number}", failed, 0, 0.0)
        for number in (20, 21, 22, 30, 31, 32):
            found = await jobs.show(f"j{number}")
            assert found is not None
            await jobs.unfinished(ME, 0.0)
            await jobs.end(ME, found[0], JobEnd(JobStatus.FAILED, {TaskState.FAILED: TASKS}), 0.0)

    async def _keep_ended_calls(self) -> None:
        """Keep calls with large answers and logs, and many dead letters."""
        store = self.runtime.scheduler_floor.stores.calls
        ids = {f"f{f:04d}": [f"{0xD0000 + f * DEAD + n:032x}" for n in range(DEAD)] for f in range(10, 18)}
        calls = [NewCall(id, function, Request(), b"{}") for function, its in ids.items() for id in its]
        await store.begin([*calls, *(NewCall(id, "f0002", Request(), b"{}") for id in (KEPT, PIECES))], 0.0)
        lost = Result(500, [], b"x" * 100, log=b"y" * 100)
        for function, its in {**ids, "f0002": [KEPT, PIECES]}.items():
            left = len(its)
            while left:
                left -= len(await store.claim(ME, {function: left}, 1.0))
        payload = await store.begin_payload(ME, PIECES, 64 * PIECE, 0.0)
        for _ in range(64):
            await store.add_piece(payload, b"x" * PIECE)
        full = b"y" * (256 * 1024)
        endings = [
            Ending(KEPT, Status.SUCCEEDED, 0, Result(200, [], b"x" * (256 * 1024), log=full)),
            Ending(PIECES, Status.SUCCEEDED, 0, Result(200, [], b"", payload=Payload(payload, 64 * PIECE))),
        ]
        endings += [Ending(call.id, Status.DEAD, 5, lost, error="x", detail="y" * 200) for call in calls]
        await store.finish(ME, endings, 2.0)

    def _remember(self, functions: list[str]) -> None:
        """Fill the record of calls."""
        record = self.runtime.gateway_floor.outcomes.recent
        for n in range(MOST_SERVED):
            name = functions[n % FUNCTIONS]
            facts = CallFacts(f"{n:032x}", name, "v" * 64, float(n), "warm", 0.0, 0.0, 0.001, OPEN, 200)
            record.keep_served(tuple(facts))
            if n < MOST_FAILED:
                failure = Failure("handler-raised", "function", "\N{SNOWMAN}" * LONGEST_DETAIL)
                record.keep_failed(facts._replace(id=f"f{n:031x}", status=500), failure)

    def _print(self, number: int) -> None:
        """Fill the logs of some instances and of as many invocations."""
        for n in range(number):
            self.runtime.pool_floor.logs.write(f"{n:032x}", b"z" * (300 * 1024))
            instance = self.runtime.pool_floor.pool.ledger.instances[f"i{n}"]
            self.runtime.pool_floor.pool.output(instance, b"z" * (200 * 1024))

    async def _keep_output(self) -> None:
        """Fill the disk's share of output: short lines, letters of another alphabet, and bytes that are no text."""
        journal, clock = self.runtime.pool_floor.journal, self.runtime.clock
        journal.start()
        texts = [b"line 9\n" * 200, "строка\n".encode() * 100, b"\xff\x85\x1b\n" * 300, b"x" * 8000 + b"\n"]
        for batch in range(8):
            for n in range(300):
                function = f"f{n % 3:04d}"
                invocation = PRINTED if (batch, n) == (0, 0) else f"{n:032x}"
                journal.take(function, "1", invocation, f"i{n}", texts[n % 4])
            await journal.wait(journal.written)
        assert clock.wall() * 1e6 >= journal.written > 0

    async def close(self) -> None:
        gc.unfreeze()
        await self.runtime.pool_floor.journal.close()
        await self.runtime.gateway_floor.brokers.close()
        await self.runtime.scheduler_floor.stores.calls.close()
        self.data.close()


def some_keys() -> list[Key]:
    """Return many keys, among them `EVERYTHING` and `FEW`."""
    lines = [
        f"{EVERYTHING} read deploy admin invoke:* name=everything",
        f"{FEW} invoke:f0001 invoke:f0002 name=few",
    ]
    for n in range(KEYS):
        id = f"{n:08d}".translate(str.maketrans("0123456789", "abcdefghij"))
        lines.append(f"hth_{id}_{'c' * 32} invoke:f{n % FUNCTIONS:04d} rate=5/s name=k{n}")
    return parse_keys("\n".join(lines))


def large_json(size: int) -> bytes:
    """Return JSON of about so many bytes, of small parts."""
    return json.dumps({"a": [{"n": n, "s": "x" * 20} for n in range(size // 48)]}).encode()
