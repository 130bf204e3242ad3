"""One run of the benchmark: which scenario on which gateway, in which order."""

from __future__ import annotations

import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.console import Console

from bench import accepted as later
from bench import commands, references, scenarios, wrk
from bench import neighbours as attacks
from bench import ready as packed
from bench.client import Address, CallFailed
from bench.footprint import idle_clients, idle_gateway, many_functions
from bench.fresh import flat_out, paced
from bench.gateways import (
    BUILD_TIMEOUT,
    READY_TIMEOUT,
    Gateway,
    GatewayFault,
    declare,
    own_gateway,
    running_gateway,
)
from bench.instances import remove_all, workload_of
from bench.machine import describe
from bench.references import CODE, Program, command, payload
from bench.report import Report
from bench.scenarios import Lab, Plan, Result
from bench.streams import stream
from bench.throughput import (
    WITHOUT_RIGHTS,
    http_connect,
    http_image,
    open_loop,
    warm_nginx,
    why_not_both_ways,
)
from gateway.setup.progress import Step, step
from pool.engine.docker import DockerEngine
from pool.observe.metrics import Metrics
from scheduler.definitions.file import load
from scheduler.deploy.images.runtimes import BASE_IMAGE

SCENARIOS = (
    "warm",
    "warm-nginx",
    "open-loop",
    "prewarmed",
    "cold",
    "http-image",
    "http-connect",
    "async",
    "fresh",
    "fresh-max",
    "command",
    "command-kept",
    "ready",
    "burst",
    "stream",
    "idle-clients",
    "many-functions",
    "idle-gateway",
    "neighbours",
)
WITHOUT_PREWARM = {
    *(
        "cold",
        "many-functions",
        "idle-gateway",
        "neighbours",
        "async",
        "command",
        "command-kept",
        "http-connect",
        "ready",
    )
}
"""Scenarios that do not use the gateway that keeps instances prewarmed."""
ON_ANY_GATEWAY = ("warm", "warm-nginx", "open-loop", "prewarmed", "cold", "burst", "idle-clients")
"""The others need functions, or a look at the process, that only a gateway of the benchmark's own gives."""
WITH_NGINX, WITH_WRK = (
    ("warm-nginx", "stream"),
    ("warm-nginx", "http-image", "http-connect", "async", "idle-clients"),
)
MEMORY_PER_FUNCTION = 2**28
"""Bytes that the benchmark's own gateway may declare for each call at once: no sample shall wait for memory."""
COMMANDS = (
    ("command", "A command in a fresh container for each call", commands.fresh_command),
    ("command-kept", "A command that is run in one container", commands.kept_command),
)
IMAGE, ONCE, STREAM, IDLE = "bench-http", "bench-once", "bench-stream", "bench-idle"
"""Functions beside the equal ones."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was asked for on the command line."""

    address: Address | None
    """None: a gateway of our own."""
    function: str
    wanted: tuple[str, ...]
    insist: bool
    """Whether a scenario that cannot be run is a failure: it was asked for by name."""
    plan: Plan


def fresh_names(count: int) -> list[str]:
    """Names of equal functions that are there to be called for the first time."""
    return [f"hello-{number:03}" for number in range(count)]


async def run(choice: Choice, console: Console) -> Report:
    """Run the scenarios. Whatever happens, nothing is left on the engine."""
    began = time.monotonic()
    run_id = uuid.uuid4().hex
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hearth-bench-")))
        engine = DockerEngine(None, Metrics())
        stack.push_async_callback(engine.close)
        stack.push_async_callback(remove_all, engine, run_id)
        report = Report(
            run=run_id,
            began=datetime.now(UTC).isoformat(timespec="seconds"),
            command=sys.argv,
            machine=describe(await engine.info()),
            settings=asdict(choice.plan) | {"function": choice.function, "scenarios": list(choice.wanted)},
            gateway={},
        )
        definition = load(declare(folder / "reference", ["hello"], 0)).functions["hello"]
        workload = await workload_of(engine, definition, folder / "kept")
        lab = Lab(engine, workload, folder / "run", run_id, payload(folder / "code"))
        await Run(choice, lab, report, console).all()
    report.seconds = round(time.monotonic() - began, 3)
    return report


@dataclass(frozen=True, slots=True)
class Run:
    """The scenarios of one run, and where their results go."""

    choice: Choice
    lab: Lab
    report: Report
    console: Console

    async def all(self) -> None:
        """Everything that was asked for and can be had. Raises `GatewayFault` for what was insisted on in vain."""
        choice = self.choice
        self.report.not_run = missing_programs(choice.wanted)
        if choice.address is None:
            self._insist()
            wanted = [name for name in choice.wanted if name not in self.report.not_run]
            self.report.gateway = {"own": True, "prewarm": choice.plan.prewarm}
            await self._serving(wanted)
            await self._idle(wanted)
        else:
            await self._running(choice.address)

    def _insist(self) -> None:
        if self.report.not_run and self.choice.insist:
            raise GatewayFault("; ".join(f"{name}: {why}" for name, why in self.report.not_run.items()))

    async def _serving(self, wanted: Sequence[str]) -> None:
        """Scenarios on a gateway that keeps instances prewarmed, and on one that keeps none."""
        plan, names = self.choice.plan, fresh_names(self.choice.plan.fresh_functions)
        declared = [self.choice.function, *names]
        async with AsyncExitStack() as stack:
            keeping = empty = None
            if not set(wanted) <= WITHOUT_PREWARM:
                own = self._own("keeping", declared, plan.prewarm, self._others())
                keeping = await stack.enter_async_context(own)
                await keeping.find_fresh(names)
            if "cold" in wanted:
                empty = await stack.enter_async_context(self._own("empty", declared, 0))
                await empty.find_fresh(names)
            await self._on(keeping, empty, wanted)

    async def _on(self, keeping: Gateway | None, empty: Gateway | None, wanted: Sequence[str]) -> None:
        plan, lab, function = self.choice.plan, self.lab, self.choice.function
        first = (keeping if "prewarmed" in wanted else None, empty)
        if keeping is None:
            if empty is not None:
                await self._do(
                    "First calls, beside raw starts",
                    lambda shown: scenarios.first_calls(None, empty, lab, plan, shown),
                )
            return
        works: dict[str, tuple[str, Callable[[Step], Awaitable[Result]]]] = {
            "warm": (
                "Warm calls, beside direct ones",
                lambda shown: scenarios.warm(keeping, function, lab, plan, shown),
            ),
            "warm-nginx": (
                "Warm calls, beside nginx",
                lambda shown: warm_nginx(keeping, function, lab, plan, shown),
            ),
            "open-loop": (
                "Calls at half the maximum rate",
                lambda shown: open_loop(keeping, function, lab, plan, shown),
            ),
            "first": (
                "First calls, beside raw starts",
                lambda shown: scenarios.first_calls(*first, lab, plan, shown),
            ),
            "http-image": (
                "An HTTP image, beside a handler",
                lambda shown: http_image(keeping, function, IMAGE, plan, shown),
            ),
            "fresh": (
                "A fresh container for each call, paced",
                lambda shown: paced(keeping, ONCE, plan, shown),
            ),
            "fresh-max": (
                "A fresh container for each call, flat out",
                lambda shown: flat_out(keeping, ONCE, lab, plan, shown),
            ),
            "burst": (
                "Bursts of first calls, beside raw starts",
                lambda shown: scenarios.burst(keeping, lab, plan, shown),
            ),
            "stream": (
                "Long bodies, beside nginx",
                lambda shown: stream(keeping, STREAM, lab, plan, shown),
            ),
            "idle-clients": (
                "Many open connections",
                lambda shown: idle_clients(keeping, function, plan, shown),
            ),
        }
        chosen = ["first" if name in ("prewarmed", "cold") else name for name in wanted]
        for name in dict.fromkeys(chosen):
            if name in works:
                await self._do(*works[name])

    async def _idle(self, wanted: Sequence[str]) -> None:
        """Scenarios that need gateways of another make, each for itself."""
        plan, function = self.choice.plan, self.choice.function
        if "many-functions" in wanted:
            names = [function, *fresh_names(plan.registered - 1)]
            async with self._own("few", [function], 0) as few, self._own("many", names, 0) as many:
                await self._do(
                    "Many functions, beside one",
                    lambda shown: many_functions(few, many, function, plan, shown),
                )
        if "idle-gateway" in wanted:
            count = plan.idle_instances
            others = {IDLE: f"HELLO, min_instances: {count}, max_instances: {count}"}
            async with self._own("idle", [function], 0, others) as gateway:
                await self._do("An idle gateway", lambda shown: idle_gateway(gateway, IDLE, plan, shown))

        for name, title, work in COMMANDS:
            if name in wanted:
                async with self._own(name, [function], 0, commands.declared()) as gateway:
                    await self._do(title, partial(work, gateway, self.lab, plan))

        if "http-connect" in wanted:
            others = {IMAGE: self._image("responder")}
            async with (
                self._own("entering", [function], 0, others) as entering,
                self._own("connecting", [function], 0, others, WITHOUT_RIGHTS) as connecting,
            ):
                await self._do(
                    "An HTTP image over init, beside its namespace",
                    lambda shown: http_connect(entering, connecting, IMAGE, plan, shown),
                )

        if "async" in wanted:
            others = later.declared(self._folder("later"))
            async with self._own("later", [function], plan.prewarm, others) as gateway:
                await self._do(
                    "Calls to be run later, beside direct ones",
                    lambda shown: later.accepted(gateway, plan, shown),
                )

        if "ready" in wanted:
            folder = self._folder("ready")
            others = packed.declared(folder, plan.package)
            async with self._own("ready", [function], 0, others, seconds=BUILD_TIMEOUT) as gateway:
                await self._do(
                    "First calls that need a package, ready or not",
                    lambda shown: packed.first_calls(gateway, plan, shown),
                )

        if "neighbours" in wanted:
            others = attacks.declared(self._folder("attacked"))
            async with self._own("attacked", [function], plan.prewarm, others) as gateway:
                await self._do(
                    "A function beside hostile ones",
                    lambda shown: attacks.neighbours(gateway, function, plan, shown),
                )

    def _folder(self, name: str) -> Path:
        """Where the functions.yaml of a gateway of our own lies."""
        return self.lab.folder.parent / f"{name}-functions"

    @asynccontextmanager
    async def _own(
        self,
        name: str,
        names: Sequence[str],
        prewarm: int,
        others: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
        seconds: float = READY_TIMEOUT,
    ) -> AsyncIterator[Gateway]:
        """A gateway of our own, at rest with all its functions in service within so many seconds."""
        plan, lab = self.choice.plan, self.lab
        file = declare(self._folder(name), names, prewarm, others)
        memory = MEMORY_PER_FUNCTION * (
            plan.burst + plan.prewarm + max(plan.clients) + plan.idle_instances + plan.fresh_clients
        )
        folder = Path(tempfile.mkdtemp(dir=file.parent))
        own = own_gateway(lab.engine, file, folder, memory, lab.code, wrapper)
        async with AsyncExitStack() as stack:
            with step(f"Starting a gateway with {prewarm} prewarmed instances", self.console):
                gateway = await stack.enter_async_context(own)
                await gateway.in_service([*names, *(others or {})], prewarm > 0, seconds)
                await gateway.quiet()
            yield gateway

    def _others(self) -> dict[str, str]:
        """Functions that are no equal ones, by what some scenarios need."""
        size = f"{2 * self.choice.plan.stream_size}B"
        return {
            IMAGE: self._image("responder"),
            STREAM: f"{self._image('streamer')}, max_body: {size}, max_response: {size}",
            ONCE: "HELLO, reuse: false",
        }

    def _image(self, program: Program) -> str:
        """An HTTP image that runs this program."""
        words = ", ".join(command(program, "tcp"))
        volume = f"{self.lab.code}:{CODE}:ro"
        return f"image: '{BASE_IMAGE}', port: 8000, command: [{words}], volumes: ['{volume}']"

    async def _running(self, address: Address) -> None:
        """Those scenarios that a gateway that runs already allows."""
        choice = self.choice
        async with running_gateway(address) as gateway:
            await gateway.find_fresh(fresh_names(1000))
            keeps = await gateway.keeps_prewarmed()
            self.report.gateway = {"own": False, "url": address.url, "prewarm": keeps}
            self.report.not_run |= reasons_against(choice, keeps, gateway.fresh_count)
            self._insist()
            possible = [name for name in choice.wanted if name not in self.report.not_run]
            if {"warm", "warm-nginx", "open-loop", "idle-clients"} & set(possible):
                await check_greeting(gateway, choice.function)
            await self._on(gateway, gateway if "cold" in possible else None, possible)

    async def _do(self, title: str, work: Callable[[Step], Awaitable[Result]]) -> None:
        """Run a scenario and take its result into the report."""
        with step(title, self.console) as shown:
            result = await work(shown)
        self.report.series += result.series
        self.report.ratios += result.ratios
        self.report.findings += result.findings


async def check_greeting(gateway: Gateway, function: str) -> None:
    """Raises `GatewayFault` if a function of a running gateway does not answer as it must."""
    try:
        await gateway.first_call(function)
    except CallFailed as error:
        raise GatewayFault(f"{function} does not greet as functions/hello does: {error}") from error


def missing_programs(wanted: Sequence[str]) -> dict[str, str]:
    """Scenarios that this machine lacks a program for, and which."""
    reasons: dict[str, str] = {}
    for needing, why in ((WITH_WRK, wrk.missing()), (WITH_NGINX, references.missing())):
        if why is not None:
            reasons |= {name: why for name in needing if name in wanted}
    if "http-connect" in wanted and (why := why_not_both_ways()) is not None:
        reasons["http-connect"] = why
    return reasons


def reasons_against(choice: Choice, keeps_prewarmed: bool, fresh: int) -> dict[str, str]:
    """Why scenarios cannot be run on a running gateway: it has one prewarm setting, and functions of its own."""
    plan, reasons = choice.plan, {}
    for name in choice.wanted:
        needed = {"prewarmed": plan.samples, "cold": plan.samples, "burst": plan.burst * plan.bursts}.get(
            name, 0
        )
        if name not in ON_ANY_GATEWAY:
            reasons[name] = "only on a gateway of the benchmark's own: --start"
        elif name == "cold" and keeps_prewarmed:
            reasons[name] = "this gateway keeps prewarmed instances; --start measures both"
        elif name == "prewarmed" and not keeps_prewarmed:
            reasons[name] = "this gateway keeps no prewarmed instances; --start measures both"
        elif fresh < needed:
            reasons[name] = (
                f"needs {needed} functions that were never called, {fresh} are left; "
                "use --start, or serve what --declare writes"
            )
        else:
            fresh -= needed
    return reasons
