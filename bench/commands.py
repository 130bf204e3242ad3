"""Scenarios of commands: a fresh container for each call, and many runs in one, beside the engine's own verbs."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import httpx

from bench.client import CallFailed, Connection, connect
from bench.figures import Outcome, Series
from bench.fresh import flat_out_of
from bench.gateways import CALL_TIMEOUT, POLL, Gateway, GatewayFault
from bench.instances import BENCH_LABEL
from bench.scenarios import Lab, Plan, Result, by_turns
from gateway.setup.images import BUSYBOX_IMAGE
from gateway.setup.progress import Step
from pool.engine.access.address import engine_address
from pool.engine.base import ContainerSpec
from pool.host.uids import Uids, with_uid
from scheduler.definitions.file import FunctionDefinition
from scheduler.deploy.workloads import container_of

ONCE, KEPT = "bench-command", "bench-command-kept"
CLIENTS = 4
"""Runs at once in one container, by the gateway and by the engine's exec API."""


def declared() -> dict[str, str]:
    """Return the functions of both scenarios: name to keys."""
    run = f"image: '{BUSYBOX_IMAGE}', command: ['true']"
    return {
        ONCE: run,
        KEPT: f"{run}, reuse: true, concurrency: {CLIENTS}, max_instances: 1",
    }


def request_of(gateway: Gateway, function: str) -> bytes:
    """Return a call without a body."""
    host = gateway.address.authority
    return f"POST /invoke/{function} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n\r\n".encode()


async def run_once(connection: Connection, request: bytes) -> str:
    """Make a call, and return how its container was started. Raises `CallFailed`."""
    reply = await connection.call(request, CALL_TIMEOUT)
    if reply.status != 200:
        raise CallFailed(f"status {reply.status}")
    return reply.start


async def fresh_command(gateway: Gateway, lab: Lab, plan: Plan, step: Step) -> Result:
    """One call at a time, each when a container is ready, beside a whole life of an equal one by the engine."""
    calls = Series("command", "command, a fresh container each, paced")
    raw = Series("command-raw", "create, start, wait, remove")
    request, spec = request_of(gateway, ONCE), await spec_of(lab)
    connection = await connect(gateway.address)
    await run_once(connection, request)  # the gateway keeps one ready for what was called lately
    connection.close()
    for number in range(plan.fresh_samples):
        step.show(f"{number + 1} of {plan.fresh_samples}", number / plan.fresh_samples)
        await ready(gateway)
        connection = await connect(gateway.address)
        began = time.perf_counter()
        try:
            start = await run_once(connection, request)
        except CallFailed as error:
            calls.faults[str(error)] += 1
        else:
            took = time.perf_counter() - began
            calls.starts[start] += 1
            calls.latencies.record(took)
            calls.samples.append(took * 1000)
        finally:
            connection.close()
        await ready(gateway)
        began = time.perf_counter()
        await life_of(lab, spec)
        took = time.perf_counter() - began
        raw.latencies.record(took)
        raw.samples.append(took * 1000)
    result = Result([calls, raw])
    result.judge_median("command", calls.samples)
    result.compare("command_to_raw", "command / create, start, wait, remove", calls, raw, "command_to_raw")
    return result


async def ready(gateway: Gateway) -> None:
    """Wait until a container is ready for the next call and the gateway is at rest. Raises `GatewayFault`."""
    ends = time.monotonic() + CALL_TIMEOUT
    while time.monotonic() < ends:
        await gateway.quiet()
        if any(i["state"] == "idle" for i in await gateway.get(f"/pool/instances?function={ONCE}")):
            return
        await asyncio.sleep(POLL)
    raise GatewayFault(f"no container of {ONCE} is kept ready")


async def kept_command(gateway: Gateway, lab: Lab, plan: Plan, step: Step) -> Result:
    """Runs in one container as fast as they go, beside the same runs by the engine's exec API."""
    calls = Series("command-kept", f"command, reuse: true, {CLIENTS} clients")
    execs = Series("command-exec", f"exec API, {CLIENTS} clients")
    request = request_of(gateway, KEPT)
    connections = [await connect(gateway.address) for _ in range(CLIENTS)]

    async def call(seen: Outcome) -> None:
        connection = connections.pop()
        if not connection.is_open:  # the gateway closes what was idle while the engine had its turn
            connection = await connect(gateway.address)
        try:
            seen.starts[await run_once(connection, request)] += 1
        finally:
            connections.append(connection)

    async with sleeping(lab) as container, exec_client() as client:
        loops = [
            (calls, partial(flat_out_of, call, CLIENTS, plan.fresh_seconds)),
            (execs, partial(flat_out_of, lambda _: execute(client, container), CLIENTS, plan.fresh_seconds)),
        ]
        await by_turns(loops, plan.fresh_rounds, step)
    for connection in connections:
        connection.close()
    result = Result([calls, execs])
    result.compare_rates("command_to_exec", "reuse: true / exec API", calls, execs, "1/s", "command_to_exec")
    return result


async def spec_of(lab: Lab, *command: str) -> ContainerSpec:
    """Return a container like one of the gateway's, that runs `true` by itself, or this command."""
    definition = FunctionDefinition(name=ONCE, image=BUSYBOX_IMAGE, command=command or ("true",))
    spec = with_uid(container_of(definition, await lab.engine.image(BUSYBOX_IMAGE)), Uids().free())
    name = f"hearth-bench-{uuid.uuid4().hex[:12]}"
    return replace(spec, name=name, labels={BENCH_LABEL: lab.run}, keep_output=False)


async def life_of(lab: Lab, spec: ContainerSpec) -> None:
    """Create a container, start it, wait for its end and remove it. Raises `EngineError` and `CallFailed`."""
    container = await lab.engine.create(spec)
    try:
        await lab.engine.start(container)
        if (status := await lab.engine.wait(container)) != 0:
            raise CallFailed(f"exit status {status}")
    finally:
        await lab.engine.remove(container)


@asynccontextmanager
async def sleeping(lab: Lab) -> AsyncIterator[str]:
    """A container in which something can be executed."""
    container = await lab.engine.create(await spec_of(lab, "sleep", "1000000"))
    try:
        await lab.engine.start(container)
        yield container
    finally:
        await lab.engine.remove(container)


@asynccontextmanager
async def exec_client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of the engine's API. Raises `GatewayFault` if the engine has no socket on this machine."""
    address = engine_address()
    if address.path is None:
        raise GatewayFault(
            "the exec API is measured over the engine's socket, and DOCKER_HOST names another address"
        )
    transport = httpx.AsyncHTTPTransport(uds=address.path)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://engine", timeout=CALL_TIMEOUT
    ) as client:
        yield client


async def execute(client: httpx.AsyncClient, container: str) -> None:
    """Run `true` in a container, as `docker exec` does: create, start, read its output, ask for its status."""
    made = await client.post(
        f"/containers/{container}/exec", json={"Cmd": ["true"], "AttachStdout": True, "AttachStderr": True}
    )
    id = made.json()["Id"]
    await client.post(f"/exec/{id}/start", json={"Detach": False, "Tty": False})
    shown = (await client.get(f"/exec/{id}/json")).json()
    if shown["ExitCode"] != 0:
        raise CallFailed(f"exit status {shown['ExitCode']}")
