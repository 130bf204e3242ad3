"""The gateway in a container of its own, run as its Dockerfile says, answers an invocation and leaves nothing."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from pool import __version__
from scheduler.deploy.images.runtimes import GATEWAY_IMAGE
from tests.support.containers import Containers, containers

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0
"""Seconds that a gateway has to become ready beside whatever else this machine does."""
pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

FUNCTIONS = """\
version: 1
functions:
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
