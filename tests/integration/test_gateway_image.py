"""The gateway in a container of its own, alone or from the compose file: it answers and leaves nothing."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.access.keys import create
from gateway.access.limits import UNLIMITED
from gateway.access.scopes import parse_scopes
from pool import __version__
from scheduler.deploy.images.runtimes import BASE_IMAGE, EXAMPLE_IMAGES, GATEWAY_IMAGE
from tests.support.containers import Containers, containers

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0
"""Seconds that a gateway has to become ready beside whatever else this machine does."""
pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

MOST_OWN_BYTES = 75 * 10**6
"""Most bytes of the image above its base, which functions' images share. It has 70 MB, and had 94 without schemas."""

FUNCTIONS = f"""\
version: 1
functions:
  notes:
    image: {EXAMPLE_IMAGES[1]}
    port: 8000
  greet:
    runtime: python
    source: greet
    handler: handler:handle
"""
HANDLER = """\
def handle(event, context):
    return {"hello": event["name"]}
"""


@pytest.fixture(scope="module")
def gateway_image() -> str:
    done = subprocess.run(
        [sys.executable, "-m", "gateway.setup.images", "--gateway"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return GATEWAY_IMAGE


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that has the same path for the gateway and for the engine."""
    path = Path(f"/tmp/hearth-{secrets.token_hex(4)}")
    (path / "greet").mkdir(parents=True)
    (path / "functions.yaml").write_text(FUNCTIONS)
    (path / "greet" / "handler.py").write_text(HANDLER)
    yield path
    shutil.rmtree(path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def docker() -> AsyncIterator[Containers]:
    async with containers() as found:
        yield found


async def test_an_invocation_through_the_gateways_image(
    docker: Containers, gateway_image: str, folder: Path, test_label: dict[str, str]
) -> None:
    labels = (await docker.image(gateway_image))["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    port, data = free_port(), folder / "data"
    options = ["--data-dir", str(data), "--functions", str(folder / "functions.yaml"), "--port", str(port)]
    options += ["--host", "127.0.0.1"]
    gateway = await docker.create(
        {
            "Image": gateway_image,
            "Cmd": ["serve", *options],
            "Labels": test_label,
            "HostConfig": {
                "NetworkMode": "host",
                "PidMode": "host",
                "CapAdd": ["SYS_ADMIN", "SYS_PTRACE"],
                "Binds": ["/var/run/docker.sock:/var/run/docker.sock", f"{folder}:{folder}"],
            },
        }
    )
    try:
        await docker.start(gateway)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            await ready(client, docker, gateway)
            answer = await client.post("/invoke/greet", json={"name": "Ada"})
            assert (answer.status_code, answer.json()) == (200, {"hello": "Ada"}), await docker.output(
                gateway
            )
            assert (await client.get("/openapi.json")).json()["info"]["version"] == __version__
            again = await client.post("/invoke/greet", json={"name": "Ada"})
            assert again.headers["X-Hearth-Start"] == "warm"
        own = {"org.hearth.gateway": (data / "identity").read_text().strip()}
        assert await docker.labelled(own), "the function's container is on the engine of the host"
        await docker.stop(gateway, 30)
        assert await docker.wait(gateway) == 0, await docker.output(gateway)
        assert await docker.labelled(own) == []
    finally:
        await docker.remove(gateway)


async def test_the_image_is_small(docker: Containers, gateway_image: str) -> None:
    own = (await docker.image(gateway_image))["Size"] - (await docker.image(BASE_IMAGE))["Size"]
    assert own < MOST_OWN_BYTES


class Compose:
    """The compose file as somebody runs it, under a project name of its own."""

    def __init__(self, folder: Path) -> None:
        self.project = f"hearth-test-{secrets.token_hex(4)}"
        self.port = free_port()
        self.data = folder / "data"
        self.key, hashed = create("me", parse_scopes(["admin"]), UNLIMITED, None, 0)
        engine = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
        self.variables = {
            "HEARTH_FOLDER": str(folder),
            "HEARTH_DATA_DIR": str(self.data),
            "HEARTH_API_KEYS": f"{hashed.hashed} admin",
            "HEARTH_PORT": str(self.port),
            "HEARTH_ENGINE_SOCKET": engine,
            "HEARTH_LOG_LEVEL": "debug",
        }

    def __call__(self, *words: str, without: str = "", status: int = 0) -> str:
        """Run docker-compose, and return its output if it ends with this status."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HEARTH_")}
        given = {name: value for name, value in self.variables.items() if name != without}
        command = [
            "docker-compose",
            "--file",
            str(ROOT / "deploy/compose.yaml"),
            "--project-name",
            self.project,
        ]
        done = subprocess.run(
            [*command, *words],
            env={**clean, **given},
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + (done.stderr if status else "")


async def test_the_compose_file_starts_a_gateway_that_answers_is_healthy_and_leaves_nothing(
    docker: Containers, gateway_image: str, folder: Path
) -> None:
    compose = Compose(folder)
    for name, reason in (("HEARTH_FOLDER", "functions.yaml"), ("HEARTH_API_KEYS", "keys create")):
        assert reason in await asyncio.to_thread(compose, "config", without=name, status=1)
    own = {"com.docker.compose.project": compose.project}
    try:
        await asyncio.to_thread(compose, "up", "--detach")
        # Beside it, one whose data folder exists in its container only.
        wrong = ("-e", "HEARTH_DATA_DIR=/srv/elsewhere")
        badly = f"{compose.project}-badly"
        await asyncio.to_thread(compose, "run", "--detach", "--name", badly, *wrong, "gateway")
        (gateway,) = await docker.labelled({**own, "com.docker.compose.oneoff": "False"})
        (published,) = (await docker.show(gateway))["HostConfig"]["PortBindings"]["8080/tcp"]
        assert published == {"HostIp": "127.0.0.1", "HostPort": str(compose.port)}
        address, key = f"http://127.0.0.1:{compose.port}", {"Authorization": f"Bearer {compose.key}"}
        async with httpx.AsyncClient(base_url=address, headers=key, timeout=30) as client:
            await ready(client, docker, gateway)
            assert (await client.post("/invoke/greet", json={"name": "Ada"})).json() == {"hello": "Ada"}
            assert (await client.get("/invoke/notes/notes")).status_code == 200, "it has no network"
            assert (await client.get("/pool", headers={"Authorization": ""})).status_code == 401

        report = json.loads(
            await asyncio.to_thread(compose, "exec", "-T", "gateway", "hearth", "doctor", "--json")
        )
        assert state_of(report, "data folder") == "ok"
        found = await asyncio.to_thread(
            compose, "run", "--rm", "-T", *wrong, "gateway", "doctor", "--json", status=1
        )
        report = json.loads(found[found.index("{") : found.rindex("}") + 1])
        assert (report["can_run_functions"], state_of(report, "data folder")) == (False, "missing")
        await until(
            docker, badly, "bind the folder at the same path inside and outside, as -v /srv/elsewhere"
        )
        await healthy(docker, gateway)
        identity = {"org.hearth.gateway": (compose.data / "identity").read_text().strip()}
        assert await docker.labelled(identity)
    finally:
        await asyncio.to_thread(compose, "down", "--volumes", "--remove-orphans")
    assert await docker.labelled(own) == [] == await docker.labelled(identity)
    assert compose.project not in str(await docker.api.call("GET", "/networks"))


def state_of(report: dict[str, Any], name: str) -> str:
    """Return the state of one check of a report of `hearth doctor --json`."""
    return next(str(check["state"]) for check in report["checks"] if check["name"] == name)


async def until(docker: Containers, container: str, line: str) -> None:
    """Wait until a container has said this."""
    async with asyncio.timeout(PATIENCE):
        while line not in await docker.output(container):
            await asyncio.sleep(0.1)


async def healthy(docker: Containers, container: str) -> None:
    """Wait until the engine's own checks of a container succeed."""
    async with asyncio.timeout(PATIENCE):
        while (health := (await docker.show(container))["State"]["Health"])["Status"] != "healthy":
            assert health["Status"] == "starting", health
            await asyncio.sleep(0.1)


async def ready(client: httpx.AsyncClient, docker: Containers, gateway: str) -> None:
    """Wait until the gateway has the function in service; its output is the reason if it cannot."""
    said = "nothing"
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while asyncio.get_running_loop().time() < deadline:
        try:
            answer = await client.get("/functions/greet")
            if answer.status_code == 200 and answer.json()["state"] == "ready":
                assert (await client.get("/readyz")).status_code == 200
                return
            said = answer.text
        except httpx.TransportError as error:
            said = repr(error)
        state = (await docker.show(gateway))["State"]
        if not state["Running"]:
            said = repr(state)
            break
        await asyncio.sleep(0.1)
    pytest.fail(f"the gateway did not become ready: {said}\n{await docker.output(gateway)}")
