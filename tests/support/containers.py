"""Containers on the real engine, as tests make and ask them beside the gateway: JSON in, JSON out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from pool.clock import LoopClock
from pool.engine.access.address import engine_address
from pool.engine.docker_api import UNLIMITED, DockerApi, next_piece


class Containers:
    """The engine's containers, by their ids."""

    def __init__(self, api: DockerApi) -> None:
        self.api = api

    async def create(self, config: Mapping[str, Any]) -> str:
        """Create a container and return its id."""
        return str((await self.api.call("POST", "/containers/create", body=config))["Id"])

    async def start(self, container: str) -> None:
        """Start a container."""
        await self.api.call("POST", f"/containers/{container}/start")

    async def stop(self, container: str, seconds: int = 10) -> None:
        """Ask a container to end, and kill it after some seconds."""
        await self.api.call("POST", f"/containers/{container}/stop", {"t": str(seconds)}, timeout=UNLIMITED)

    async def wait(self, container: str) -> int:
        """Return the exit status of a container, once it has ended."""
        return int(
            (await self.api.call("POST", f"/containers/{container}/wait", timeout=UNLIMITED))["StatusCode"]
        )

    async def show(self, container: str) -> Any:
        """Return all that the engine says of a container."""
        return await self.api.call("GET", f"/containers/{container}/json")

    async def output(self, container: str) -> str:
        """Return what a container has written so far."""
        params = {"stdout": "true", "stderr": "true"}
        async with self.api.stream("GET", f"/containers/{container}/logs", params) as response:
            return (await _all(response)).decode()

    async def execute(self, container: str, *command: str) -> bytes:
        """Run a command in a container and return its output."""
        config = {"Cmd": command, "AttachStdout": True, "AttachStderr": True}
        made = await self.api.call("POST", f"/containers/{container}/exec", body=config)
        async with self.api.stream("POST", f"/exec/{made['Id']}/start", body={"Detach": False}) as response:
            return await _all(response)

    async def remove(self, container: str) -> None:
        """Remove a container, running or not."""
        await self.api.call("DELETE", f"/containers/{container}", {"force": "true", "v": "true"})

    async def labelled(self, labels: Mapping[str, str]) -> list[str]:
        """Return the ids of all containers with these labels."""
        wanted = json.dumps({"label": [f"{name}={value}" for name, value in labels.items()]})
        found = await self.api.call("GET", "/containers/json", {"all": "true", "filters": wanted})
        return [entry["Id"] for entry in found]

    async def image(self, reference: str) -> Any:
        """Return all that the engine says of an image."""
        return await self.api.call("GET", f"/images/{reference}/json")


async def _all(response: aiohttp.ClientResponse) -> bytes:
    said = bytearray()
    while (piece := await next_piece(response.content)) is not None:
        said += piece[1]
    return bytes(said)


@asynccontextmanager
async def containers() -> AsyncIterator[Containers]:
    """The containers of the engine that the environment names."""
    api = DockerApi(engine_address(), LoopClock())
    try:
        yield Containers(api)
    finally:
        await api.close()
