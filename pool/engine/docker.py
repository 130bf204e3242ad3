"""The container engine over the Docker Engine API, through aiodocker."""

from __future__ import annotations

import io
import json
import os
import re
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import aiohttp
from aiodocker import Docker, DockerError
from aiodocker.stream import Stream

from pool.clock import Clock, LoopClock
from pool.engine.base import (
    Attachment,
    BadPath,
    ContainerEvent,
    ContainerSpec,
    ContainerState,
    EngineError,
    EngineFault,
    EngineInfo,
    EngineUnreachable,
    Image,
    Network,
    NotFound,
    NotRunnable,
)
from pool.engine.container_config import container_config, nano_cpus
from pool.engine.docker_answers import BRIDGE_NAME, event_of, image_of, info_of, network_of, state_of
from pool.engine.measure import measured
from pool.observe.metrics import Metrics

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
ANSWER_TIMEOUT = 60.0
"""Seconds for a verb that does not wait for a container or a build."""
PING_TIMEOUT = 8.0
"""Seconds within which an engine that is alive answers a ping."""
UNLIMITED = aiohttp.ClientTimeout(total=None, sock_connect=PING_TIMEOUT)
"""For what lasts as long as a build or as somebody listens."""
BUILD_OUTPUT_KEPT = 60
"""Lines of a failed build's output that its error carries."""

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""How a build marks what a step wrote to stderr."""

CANNOT_CONNECT = 900
"""The status that aiodocker invents when there is no connection."""

MALFORMED = (ValueError, LookupError, TypeError, AttributeError)
"""Errors of reading an answer that is not the Engine API's: no JSON, another type of content, or another shape."""

NO_FOLDER = "not a directory"
"""What the engine says of a path that leads to a file, or through one."""
BAD_PATHS = (NO_FOLDER, "too many links", "invalid argument", "file name too long")
"""What it says, with a status of 500 as of its own faults, of paths in an image that nobody can follow."""

EVENT_ACTIONS = ("create", "start", "die", "oom", "destroy")


class DockerEngine:
    """A Docker Engine. Make it inside a running event loop, and `close` it.

    `url` is `unix://…` or `tcp://…`; None: the environment's `DOCKER_HOST`, else the default socket. Nothing
    is asked of the engine until the first verb, so one that is down now may come up later.

    A verb whose caller is cancelled may still be carried out by the engine: a container whose creation was
    cancelled can be there, and is found by its name."""

    def __init__(self, url: str | None, metrics: Metrics, clock: Clock | None = None) -> None:
        self._clock = clock or LoopClock()
        self.address = url or os.environ.get("DOCKER_HOST") or DEFAULT_ADDRESS
        self._metrics = metrics
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT, sock_connect=PING_TIMEOUT)
        self._docker = Docker(url=self.address, timeout=timeout)
        # Whoever is attached, waits or watches holds a connection as long as a container runs: with aiohttp's
        # limit of 100, calls would wait for each other. aiodocker has no option for it.
        self._docker.connector._limit = 0

    async def info(self) -> EngineInfo:
        with self._verb("info", "ask the engine about itself"):
            info = await self._docker.system.info()
            version = await self._docker.version()
            return info_of(info, version)

    async def ping(self) -> None:
        with self._verb("ping", "ping the engine"):
            try:
                async with self._clock.timeout(PING_TIMEOUT):
                    str(
                        (await self._docker.version())["ApiVersion"]
                    )  # raises for an answer of another service
            except DockerError as error:
                raise EngineUnreachable(
                    f"The engine at {self.address} is not well: {error.message}"
                ) from error

    async def create(self, spec: ContainerSpec) -> str:
        config = container_config(spec)
        with self._verb("create", f"create container {spec.name} from image {spec.image}"):
            return (await self._docker.containers.create(config, name=spec.name)).id

    async def start(self, container: str) -> None:
        with self._verb("start", f"start container {_short(container)}"):
            try:
                await self._docker.containers.container(container).start()
            except DockerError as error:
                if error.status != 400:
                    raise
                raise NotRunnable(f"Cannot start container {_short(container)}: {error.message}") from error

    async def inspect(self, container: str) -> ContainerState:
        with self._verb("inspect", f"inspect container {_short(container)}"):
            return state_of(await self._docker.containers.container(container).show())

    async def remove(self, container: str) -> None:
        handle = self._docker.containers.container(container)
        with self._verb("remove", f"remove container {_short(container)}"), _absent_is_fine():
            try:
                await handle.delete(force=True, v=True)
            except DockerError as error:
                if error.status != 409 or "already in progress" not in error.message:
                    raise
                # Somebody else is removing it: it is gone when that has ended.
                async with self._clock.timeout(ANSWER_TIMEOUT):
                    await handle.wait(condition="removed")

    async def containers(self, labels: Mapping[str, str]) -> list[ContainerState]:
        found: list[ContainerState] = []
        with self._verb("containers", "list containers"):
            for entry in await self._docker.containers.list(all=True, filters=_filters(labels)):
                # The list lacks the pid and the exit status.
                with _absent_is_fine():
                    found.append(state_of(await entry.show()))
        return found

    async def attach(self, container: str, stdin: bool = True, output: bool = True) -> Attachment:
        with self._verb("attach", f"attach to container {_short(container)}"):
            handle = self._docker.containers.container(container)
            stream = handle.attach(stdin=stdin, stdout=output, stderr=output)
            await stream.__aenter__()
            return DockerAttachment(stream)

    async def wait(self, container: str) -> int:
        with self._verb("wait", f"wait for container {_short(container)}"):
            answer = await self._docker.containers.container(container).wait()
            return int(answer["StatusCode"])

    async def logs(self, container: str, limit: int) -> bytes:
        handle = self._docker.containers.container(container)
        with self._verb("logs", f"read the logs of container {_short(container)}"):
            try:
                pieces = await handle.log(stdout=True, stderr=True)
            except DockerError as error:
                if error.status == 501 or "does not support reading" in error.message:
                    return b""  # made with `keep_output=False`
                raise
        return "".join(pieces).encode()[-limit:] if limit > 0 else b""

    async def archive(self, container: str, path: str, limit: int) -> bytes:
        with self._verb("archive", f"read {path} of container {_short(container)}"), _bad_paths():
            try:
                # The last dot follows a link at the end of the path, and asks for a folder.
                return await self._archive(container, f"{path}/.", limit)
            except DockerError as error:
                if NO_FOLDER not in error.message:
                    raise
            return await self._archive(container, path, limit)

    async def _archive(self, container: str, path: str, limit: int) -> bytes:
        request = self._docker._query(f"containers/{container}/archive", params={"path": path})
        read = bytearray()
        async with request as response:
            with closing(response):
                async for piece in response.content.iter_any():
                    read += piece
                    if len(read) >= limit:
                        break
        return bytes(read[:limit])

    async def resize(self, container: str, memory: int, cpus: float) -> None:
        config = {"Memory": memory, "MemorySwap": memory, "NanoCpus": nano_cpus(cpus)}
        with self._verb("resize", f"resize container {_short(container)}"):
            await self._docker._query_json(f"containers/{container}/update", method="POST", data=config)

    async def pause(self, container: str) -> None:
        with self._verb("pause", f"pause container {_short(container)}"), _done_already("already paused"):
            await self._docker.containers.container(container).pause()

    async def unpause(self, container: str) -> None:
        with self._verb("unpause", f"unpause container {_short(container)}"), _done_already("is not paused"):
            await self._docker.containers.container(container).unpause()

    def events(self, labels: Mapping[str, str]) -> AsyncIterator[ContainerEvent]:
        # The engine replays what happened since the call, so nothing is missed while the connection is made.
        return self._events(labels, self._clock.wall())

    async def image(self, reference: str) -> Image:
        with self._verb("image", f"find image {reference}"):
            return image_of(await self._docker.images.inspect(reference))

    async def images(self, labels: Mapping[str, str]) -> list[Image]:
        with self._verb("images", "list images"):
            return [image_of(entry) for entry in await self._docker.images.list(filters=_filters(labels))]

    async def build(self, context: bytes, tag: str, labels: Mapping[str, str]) -> Image:
        params: dict[str, Any] = {
            "t": tag,
            "labels": json.dumps(dict(labels)),
            "rm": True,
            "forcerm": True,
            # A step with a network could reach every service of this machine.
            "networkmode": "none",
        }
        output: deque[str] = deque(maxlen=BUILD_OUTPUT_KEPT)
        request = self._docker._query(
            "build",
            "POST",
            params=params,
            data=io.BytesIO(context),
            headers={"Content-Type": "application/x-tar"},
            timeout=UNLIMITED,
        )
        with self._verb("build", f"build image {tag}"):
            async with request as response:
                with closing(response):
                    async for line in response.content:
                        step = json.loads(line)
                        output.extend(COLOUR.sub("", step.get("stream", "")).splitlines())
                        if "error" in step:
                            end = "\n".join(filter(None, output))
                            raise EngineError(f"Cannot build image {tag}: {step['error']}\n{end}")
        return await self.image(tag)

    async def remove_image(self, reference: str) -> None:
        with self._verb("remove_image", f"remove image {reference}"), _absent_is_fine():
            await self._docker.images.delete(reference, force=True)

    async def networks(self, labels: Mapping[str, str]) -> list[Network]:
        with self._verb("networks", "list networks"):
            return [network_of(entry) for entry in await self._docker.networks.list(filters=_filters(labels))]

    async def create_network(
        self, name: str, bridge: str, internal: bool, labels: Mapping[str, str]
    ) -> Network:
        config = {
            "Name": name,
            "CheckDuplicate": True,
            "Driver": "bridge",
            "Internal": internal,
            "EnableIPv6": False,
            "Labels": dict(labels),
            "Options": {BRIDGE_NAME: bridge, "com.docker.network.bridge.enable_icc": "false"},
        }
        with self._verb("create_network", f"create network {name}"):
            return network_of(await (await self._docker.networks.create(config)).show())

    async def remove_network(self, name: str) -> None:
        with self._verb("remove_network", f"remove network {name}"), _absent_is_fine():
            await (await self._docker.networks.get(name)).delete()

    async def close(self) -> None:
        await self._docker.close()

    async def _events(self, labels: Mapping[str, str], since: float) -> AsyncIterator[ContainerEvent]:
        filters = _filters(labels) | {"type": ["container"], "event": list(EVENT_ACTIONS)}
        params = {"filters": json.dumps(filters), "since": f"{since:.9f}"}
        request = self._docker._query("events", params=params, timeout=UNLIMITED)
        # Only failures are measured: the time would be how long somebody listened.
        try:
            with self._translated("follow the engine's events"):
                async with request as response:
                    with closing(response):
                        async for line in response.content:
                            yield event_of(json.loads(line))
        except EngineError:
            self._metrics.engine_errors.labels("events").inc()
            raise

    @contextmanager
    def _verb(self, verb: str, deed: str) -> Iterator[None]:
        with measured(self._metrics, verb, self._clock.now), self._translated(deed):
            yield

    @contextmanager
    def _translated(self, deed: str) -> Iterator[None]:
        """Turn what aiodocker and aiohttp raise into our errors, saying what could not be done."""
        try:
            yield
        except DockerError as error:
            message = f"Cannot {deed}: {error.message}"
            if error.status == CANNOT_CONNECT:
                raise EngineUnreachable(message) from error
            if error.status == 404:
                raise NotFound(message) from error
            raise (EngineFault if error.status >= 500 else EngineError)(message) from error
        except TimeoutError as error:
            raise EngineUnreachable(f"Cannot {deed}: {self.address} did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise EngineUnreachable(
                f"Cannot {deed}: the connection to {self.address} broke: {error}"
            ) from error
        except MALFORMED as error:
            raise EngineFault(
                f"Cannot {deed}: the answer of {self.address} is not that of a Docker Engine ({error}); "
                "see which service listens there"
            ) from error


class DockerAttachment:
    """The hijacked connection to a container's streams.

    Both directions push back: `write` waits while the engine does not take the data, and nothing is read from
    the engine while 128 KiB wait to be read here."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        connection = stream._resp.connection if stream._resp else None
        if connection is None or connection.transport is None or connection.protocol is None:
            raise EngineUnreachable("The engine closed the connection while a container was attached")
        # Kept here, because aiohttp forgets them when the other side closes first.
        self._transport = connection.transport
        self._protocol = connection.protocol
        self._stdin_open = True

    async def write(self, data: bytes) -> None:
        if not self._stdin_open or self._transport.is_closing():
            return
        self._transport.write(data)
        try:
            await self._protocol._drain_helper()
        except (aiohttp.ClientError, OSError):
            self._stdin_open = False  # the container has ended: nobody is left to read it

    async def close_stdin(self) -> None:
        if self._stdin_open and not self._transport.is_closing() and self._transport.can_write_eof():
            self._transport.write_eof()
        self._stdin_open = False

    async def read(self) -> tuple[int, bytes] | None:
        try:
            message = await self._stream.read_out()
        except (aiohttp.ClientError, OSError) as error:
            raise EngineUnreachable(f"The connection to an attached container broke: {error}") from error
        return None if message is None else (message.stream, message.data)

    async def close(self) -> None:
        self._stdin_open = False
        self._transport.abort()  # frees the connection now, even when the engine takes no more
        if not self._stream._closed:
            self._stream._closed = True
            if self._stream._resp is not None:
                self._stream._resp.close()


def _short(container: str) -> str:
    return container[:12] if len(container) == 64 else container


def _filters(labels: Mapping[str, str]) -> dict[str, list[str]]:
    return {"label": [f"{key}={value}" if value else key for key, value in labels.items()]}


@contextmanager
def _absent_is_fine() -> Iterator[None]:
    try:
        yield
    except DockerError as error:
        if error.status != 404:
            raise


@contextmanager
def _bad_paths() -> Iterator[None]:
    """Raise `BadPath` for what the engine calls its own fault and is the path's."""
    try:
        yield
    except DockerError as error:
        if any(words in error.message for words in BAD_PATHS):
            raise BadPath(error.message) from error
        raise


@contextmanager
def _done_already(words: str) -> Iterator[None]:
    """The engine's refusal to bring about what is so already; it has no status of its own."""
    try:
        yield
    except DockerError as error:
        if words not in error.message:
            raise
