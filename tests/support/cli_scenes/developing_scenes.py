"""Scenes of the commands that set a machine up, and of writing functions."""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from types import SimpleNamespace
from typing import Any

from gateway.assembly.server import Serving
from gateway.cli.dev.console import DevConsole, Receive, Send
from gateway.setup.images import recipes
from gateway.setup.machine import MissingParts
from scheduler.deploy.declared import Declared
from tests.support.cli_scenes.records import CALL, FUNCTIONS
from tests.support.cli_scenes.stage import MadeAnew, Scene

HANDLER = "def handle(event, context):\n    return event\n"


class BareMachine:
    """A machine without an engine."""

    def __init__(self, _: object) -> None:
        self.engine = SimpleNamespace(version=lambda: "20.10.24")

    def look(self, with_images: bool, rebuild: bool) -> MissingParts:
        """Return all that is missing."""
        return MissingParts("install", recipes() if with_images else [])

    def bring(self, missing: MissingParts, rebuild: bool) -> None:
        """Bring it: here, nothing."""


class ReadyMachine(BareMachine):
    """A machine on which nothing is missing."""

    def look(self, with_images: bool, rebuild: bool) -> MissingParts:
        """Return that nothing is missing."""
        return MissingParts("nothing", [])


class RecordedRemoval:
    """A removal of an engine and two images."""

    def __init__(self, *_: object) -> None:
        self.left: list[tuple[str, str]] = []

    def look(self) -> list[tuple[str, str]]:
        """Return all that would go."""
        return [("images", "hearth-python:latest, hearth-base:latest"), ("packages", "docker.io")]

    def run(self) -> None:
        """Take it away: here, nothing."""


class FixedClock:
    """A time of day that stands still, and a counter that goes on by 4 ms whenever somebody looks at it."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def strftime(self, _: str) -> str:
        """Return the time of day."""
        return "03:12:05"

    def perf_counter(self) -> float:
        """Return the seconds of the counter."""
        self._seconds += 0.004
        return self._seconds


async def serve_one(serving: Serving, ready: Callable[[Any, str], None], _: Callable[[Any], None]) -> None:
    """Do in place of a gateway what it does for a call that works, a reload, and a call that fails."""
    console: DevConsole = serving.wrap.__self__  # type: ignore[attr-defined]
    ready(None, "http://127.0.0.1:8080")
    (definition,) = serving.definitions.functions.values()
    declared = Declared(definition)
    declared.version = "1"
    console.settled(declared)
    console.output("i", b"greeting Ada\n")
    await call(console, 200, b"{}")
    declared.version = "2"
    console.settled(declared)
    await call(console, 500, b'{"detail": "ValueError: no name was given"}')
    console.emit(
        logging.LogRecord("hearth.stop", logging.INFO, "", 0, "Stopping: removing instances", (), None)
    )
    serving.folder.close()


async def call(console: DevConsole, status: int, body: bytes) -> None:
    """Have the console see a call with this answer."""
    kind = b"application/problem+json" if status >= 500 else b"application/json"

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        headers = [(b"content-type", kind), (b"x-hearth-start", b"warm"), (b"x-invocation-id", CALL.encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def nothing() -> MutableMapping[str, Any]:
        return {}

    async def ignore(message: MutableMapping[str, Any]) -> None:
        pass

    scope = {"type": "http", "method": "POST", "path": "/invoke/hello", "query_string": b""}
    await console.watch_calls(app)(scope, nothing, ignore)


SETUP = "gateway.cli.commands.serving.setup"
NO_RECORD = {f"{SETUP}.SetupRecord.load": lambda: None}
DEV = {
    "gateway.cli.commands.developing.dev.serve": serve_one,
    "gateway.cli.commands.developing.dev.log_to": lambda _: None,
    "gateway.cli.dev.console.time": MadeAnew(FixedClock),
}

SCENES = [
    Scene("setup", stdin="y\n", patches={**NO_RECORD, f"{SETUP}.Machine": BareMachine}),
    Scene("setup", patches={**NO_RECORD, f"{SETUP}.Machine": ReadyMachine}, note="nothing is missing"),
    Scene(
        "setup --remove",
        stdin="n\n",
        patches={**NO_RECORD, "gateway.setup.removal.SetupRemoval": RecordedRemoval},
    ),
    Scene("init"),
    Scene(
        "init hello",
        {"GET /functions": []},
        patches={"gateway.cli.commands.developing.init.RunningGateway.picked_up": lambda *_: FUNCTIONS[0]},
        note="beside a gateway that watches this file",
    ),
    Scene("init shop --kind http"),
    Scene(
        "init hello",
        files={"functions/hello/handler.py": HANDLER},
        note="a function of this name exists",
    ),
    Scene("new hello"),
    Scene("new nightly --template schedule"),
    Scene("new hello", files={"hello/handler.py": HANDLER}, note="a folder of this name exists"),
    Scene("completion fish"),
    Scene("shell hello", files={"functions.yaml": "version: 1\nfunctions: {}\n"}, note="into a pipe"),
    Scene("dev hello", files={"hello/handler.py": HANDLER}, patches=DEV),
    Scene("dev hello --no-container", files={"hello/handler.py": HANDLER}, patches=DEV),
    Scene("dev other", note="a folder that does not exist"),
]
