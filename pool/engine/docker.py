"""The container engine over the Docker Engine API."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import aiohttp

from pool.clock import Clock, LoopClock
from pool.engine.access.address import engine_address
from pool.engine.access.tls import tls_fault
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
    VolumeFile,
)
from pool.engine.container_config import container_config, nano_cpus
from pool.engine.docker_answers import BRIDGE_NAME, event_of, image_of, info_of, network_of, state_of
from pool.engine.docker_api import (
    ANSWER_TIMEOUT,
    UNLIMITED,
    DockerApi,
    EngineRefused,
    gather_bounded,
    next_piece,
)
from pool.engine.docker_volume import fill
from pool.engine.hijack import HijackedConnection
from pool.engine.measure import measured
from pool.observe.metrics import Metrics

PING_TIMEOUT_SECONDS = 8.0
"""Time within which an engine that is alive answers a ping."""
BUILD_OUTPUT_LINES = 60
"""Last lines of a failed build's output that its error carries."""

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""Marks of a build around lines that a step wrote to stderr."""

MALFORMED = (ValueError, LookupError, TypeError, AttributeError)
"""Errors of reading an answer that is not the Engine API's: not JSON, or JSON of another shape."""

NO_FOLDER = "not a directory"
"""Message of the engine for a path that leads to a file, or through one."""
BAD_PATHS = (NO_FOLDER, "too many links", "invalid argument", "file name too long")
"""Messages of the engine, with status 500, for paths in an image that nobody can follow."""

INSPECTED_AT_ONCE = 32
"""Containers that are inspected side by side: after a restart there may be many hundreds."""

EVENT_ACTIONS = ("create", "start", "die", "oom", "destroy")


class DockerEngine:
    """A Docker Engine. Make it inside a running event loop, and `close` it. Raises `BadAddress`.

    `url` is `unix://…` or `tcp://…`; None takes the environment's `DOCKER_HOST`, else the default socket. The first
    verb is the first contact, so an engine that is down now may come up later.

    The engine may carry out a verb whose caller is cancelled. A container whose creation was cancelled may exist; it
    is found by its name.
    """

    def __init__(
        self, url: str | None, metrics: Metrics, clock: Clock | None = None, apart: bool | None = None
    ) -> None:
        self._clock = clock or LoopClock()
        self._api = DockerApi(engine_address(url), self._clock)
        self.address = self._api.address.text
        self.apart = self._api.address.remote if apart is None else apart
        """True if the engine shares neither folders nor processes with us. By default the address decides."""
        self._metrics = metrics

    async def info(self) -> EngineInfo:
        with self._verb("info", "ask the engine about itself"):
            info = await self._api.call("GET", "/info")
            version = await self._api.call("GET", "/version")
            return info_of(info, version)

    async def ping(self) -> None:
        with self._verb("ping", "ping the engine"):
            try:
                async with self._clock.timeout(PING_TIMEOUT_SECONDS):
                    (await self._api.call("GET", "/version"))["ApiVersion"]
            except EngineRefused as error:
                raise EngineUnreachable(
                    f"The engine at {self.address} is not well: {error.message}"
                ) from error

    async def create(self, spec: ContainerSpec) -> str:
        config = container_config(spec)
        with self._verb("create", f"create container {spec.name} from image {spec.image}"):
            return str(
                (await self._api.call("POST", "/containers/create", {"name": spec.name}, config))["Id"]
            )

    async def start(self, container: str) -> None:
        with self._verb("start", f"start container {_short(container)}"):
            try:
                await self._api.call("POST", f"/containers/{container}/start")
            except EngineRefused as error:
                if error.status != 400:
                    raise
                raise NotRunnable(f"Cannot start container {_short(container)}: {error.message}") from error

    async def inspect(self, container: str) -> ContainerState:
        with self._verb("inspect", f"inspect container {_short(container)}"):
            return await self._state(container)

    async def remove(self, container: str) -> None:
        path = f"/containers/{container}"
        with self._verb("remove", f"remove container {_short(container)}"), _absent_is_fine():
            try:
                await self._api.call("DELETE", path, {"force": "true", "v": "true"})
            except EngineRefused as error:
                if error.status != 409 or "already in progress" not in error.message:
                    raise
                # Another client is removing it; it is gone when that has ended.
                async with self._clock.timeout(ANSWER_TIMEOUT):
                    await self._api.call("POST", f"{path}/wait", {"condition": "removed"}, timeout=UNLIMITED)

    async def containers(self, labels: Mapping[str, str]) -> list[ContainerState]:
        with self._verb("containers", "list containers"):
            listed = await self._api.call("GET", "/containers/json", {"all": "true", **_filters(labels)})
            # The list lacks the pid and the exit status.
            found = [entry["Id"] for entry in listed]
            states = gather_bounded(self._present, found, INSPECTED_AT_ONCE)
            return [state for state in await states if state is not None]

    async def _present(self, container: str) -> ContainerState | None:
        """Return the state of a container, or None if it is gone."""
        try:
            return await self._state(container)
        except EngineRefused as error:
            if error.status != 404:
                raise
            return None

    async def _state(self, container: str) -> ContainerState:
        state = state_of(await self._api.call("GET", f"/containers/{container}/json"))
        # The process of another machine: here the number is somebody else's.
        return replace(state, pid=0) if self.apart else state

    async def attach(self, container: str, stdin: bool = True, output: bool = True) -> Attachment:
        with self._verb("attach", f"attach to container {_short(container)}"):
            streams = {"stdin": stdin, "stdout": output, "stderr": output}
            params = {"stream": "1"} | {name: "1" for name, wanted in streams.items() if wanted}
            return await self._api.hijack(f"/containers/{container}/attach", params)

    async def terminal(self, container: str) -> HijackedConnection:
        """Attach to the terminal of a container that was created with one."""
        with self._verb("attach", f"attach to the terminal of container {_short(container)}"):
            params = {"stream": "1", "stdin": "1", "stdout": "1", "stderr": "1"}
            return await self._api.hijack(f"/containers/{container}/attach", params)

    async def resize_terminal(self, container: str, lines: int, columns: int) -> None:
        """Tell a running container how large its terminal is."""
        with self._verb("resize", f"resize the terminal of container {_short(container)}"):
            await self._api.call(
                "POST", f"/containers/{container}/resize", {"h": str(lines), "w": str(columns)}
            )

    async def wait(self, container: str) -> int:
        with self._verb("wait", f"wait for container {_short(container)}"):
            answer = await self._api.call("POST", f"/containers/{container}/wait", timeout=UNLIMITED)
            return int(answer["StatusCode"])

    async def logs(self, container: str, limit: int) -> bytes:
        path, params = f"/containers/{container}/logs", {"stdout": "true", "stderr": "true"}
        output = bytearray()
        with self._verb("logs", f"read the logs of container {_short(container)}"):
            try:
                async with self._api.stream("GET", path, params, timeout=UNLIMITED) as response:
                    while (piece := await next_piece(response.content)) is not None:
                        output += piece[1]
                        del output[: max(0, len(output) - limit)]
            except EngineRefused as error:
                if error.status == 501 or "does not support reading" in error.message:
                    return b""  # made with `keep_output=False`
                raise
        return bytes(output)

    async def archive(self, container: str, path: str, limit: int) -> bytes:
        with self._verb("archive", f"read {path} of container {_short(container)}"), _bad_paths():
            try:
                # The last dot follows a link at the end of the path, and asks for a folder.
                return await self._archive(container, f"{path}/.", limit)
            except EngineRefused as error:
                if NO_FOLDER not in error.message:
                    raise
            return await self._archive(container, path, limit)

    async def _archive(self, container: str, path: str, limit: int) -> bytes:
        read = bytearray()
        params = {"path": path}
        async with self._api.stream("GET", f"/containers/{container}/archive", params) as response:
            async for piece in response.content.iter_any():
                read += piece
                if len(read) >= limit:
                    break
        return bytes(read[:limit])

    async def resize(self, container: str, memory: int, cpus: float) -> None:
        config = {"Memory": memory, "MemorySwap": memory, "NanoCpus": nano_cpus(cpus)}
        with self._verb("resize", f"resize container {_short(container)}"):
            await self._api.call("POST", f"/containers/{container}/update", body=config)

    async def pause(self, container: str) -> None:
        with self._verb("pause", f"pause container {_short(container)}"), _done_already("already paused"):
            await self._api.call("POST", f"/containers/{container}/pause")

    async def unpause(self, container: str) -> None:
        with self._verb("unpause", f"unpause container {_short(container)}"), _done_already("is not paused"):
            await self._api.call("POST", f"/containers/{container}/unpause")

    def events(self, labels: Mapping[str, str]) -> AsyncIterator[ContainerEvent]:
        # The engine replays what happened since the call, so nothing is missed while the connection is made.
        return self._events(labels, self._clock.wall())

    async def image(self, reference: str) -> Image:
        with self._verb("image", f"find image {reference}"):
            return image_of(await self._api.call("GET", f"/images/{reference}/json"))

    async def images(self, labels: Mapping[str, str]) -> list[Image]:
        with self._verb("images", "list images"):
            return [
                image_of(entry) for entry in await self._api.call("GET", "/images/json", _filters(labels))
            ]

    async def build(self, context: bytes, tag: str, labels: Mapping[str, str]) -> Image:
        params = {
            "t": tag,
            "labels": json.dumps(dict(labels)),
            "rm": "true",
            "forcerm": "true",
            # A step with a network could reach every service of this machine.
            "networkmode": "none",
        }
        output: deque[str] = deque(maxlen=BUILD_OUTPUT_LINES)
        with self._verb("build", f"build image {tag}"):
            async with self._api.stream(
                "POST", "/build", params, data=context, timeout=UNLIMITED
            ) as response:
                async for line in response.content:
                    step = json.loads(line)
                    output.extend(COLOUR.sub("", step.get("stream", "")).splitlines())
                    if "error" in step:
                        end = "\n".join(filter(None, output))
                        raise EngineError(f"Cannot build image {tag}: {step['error']}\n{end}")
        return await self.image(tag)

    async def remove_image(self, reference: str) -> None:
        with self._verb("remove_image", f"remove image {reference}"), _absent_is_fine():
            await self._api.call("DELETE", f"/images/{reference}", {"force": "true"})

    async def networks(self, labels: Mapping[str, str]) -> list[Network]:
        with self._verb("networks", "list networks"):
            return [network_of(entry) for entry in await self._api.call("GET", "/networks", _filters(labels))]

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
            made = await self._api.call("POST", "/networks/create", body=config)
            return network_of(await self._api.call("GET", f"/networks/{made['Id']}"))

    async def remove_network(self, name: str) -> None:
        with self._verb("remove_network", f"remove network {name}"), _absent_is_fine():
            await self._api.call("DELETE", f"/networks/{name}")

    async def fill_volume(self, wanted: VolumeFile, image: str) -> None:
        """Make a named volume with its file, unless it is there, through a container of this image."""
        with self._verb("fill_volume", f"fill volume {wanted.volume}"):
            await fill(self._api, wanted, image)

    async def close(self) -> None:
        await self._api.close()

    async def _events(self, labels: Mapping[str, str], since: float) -> AsyncIterator[ContainerEvent]:
        params = _filters(labels, type=("container",), event=EVENT_ACTIONS) | {"since": f"{since:.9f}"}
        # Only failures are counted: a time would only say how long the stream was open.
        try:
            with self._translated("follow the engine's events"):
                async with self._api.stream("GET", "/events", params, timeout=UNLIMITED) as response:
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
        """Turn refusals, broken connections and malformed answers into our errors, which name the deed."""
        try:
            yield
        except EngineRefused as error:
            message = f"Cannot {deed}: {error.message}"
            if error.status == 404:
                raise NotFound(message) from error
            raise (EngineFault if error.status >= 500 else EngineError)(message) from error
        except TimeoutError as error:
            raise EngineUnreachable(f"Cannot {deed}: {self.address} did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            fault = tls_fault(error, self._api.address) or f"the connection broke: {error}"
            raise EngineUnreachable(f"Cannot {deed} at {self.address}: {fault}") from error
        except MALFORMED as error:
            raise EngineFault(
                f"Cannot {deed}: the answer of {self.address} is not that of a Docker Engine ({error}); "
                "see which service listens there"
            ) from error


def _short(container: str) -> str:
    return container[:12] if len(container) == 64 else container


def _filters(labels: Mapping[str, str], **others: Sequence[str]) -> dict[str, str]:
    """Return the parameter `filters` for things with these labels; an empty value matches any value."""
    wanted = [f"{key}={value}" if value else key for key, value in labels.items()]
    return {"filters": json.dumps({"label": wanted, **others})}


@contextmanager
def _absent_is_fine() -> Iterator[None]:
    try:
        yield
    except EngineRefused as error:
        if error.status != 404:
            raise


@contextmanager
def _bad_paths() -> Iterator[None]:
    """Raise `BadPath` for a refusal that the engine reports as its own fault but the path causes."""
    try:
        yield
    except EngineRefused as error:
        if any(words in error.message for words in BAD_PATHS):
            raise BadPath(error.message) from error
        raise


@contextmanager
def _done_already(words: str) -> Iterator[None]:
    """Ignore the engine's refusal of a change that is made already. It has no status of its own."""
    try:
        yield
    except EngineRefused as error:
        if words not in error.message:
            raise
