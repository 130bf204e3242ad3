"""A pytest fixture that starts gateways: real ones, or in memory.

def test_greet(hearth_gateway):
    client = hearth_gateway("functions.yaml")
    assert client.call("greet", {"name": "Ada"}) == {"hello": "Ada"}

def test_greet_in_memory(hearth_gateway):
    client = hearth_gateway({"greet": handler.handle})
    assert client.call("greet", {"name": "Ada"}) == {"hello": "Ada"}
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from hearth._instance import Handler
from hearth.client import Client
from hearth.in_memory import InMemoryGateway

START_SECONDS = 120.0
"""Longest start of a gateway: it may have to build an image with a function's requirements."""
STOP_SECONDS = 40.0
LOOK_SECONDS = 0.05
"""Pause between two looks whether it is ready."""


class GatewayStarter:
    """Starts gateways for tests, each once, and stops them at the end of the session."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._started: dict[object, Client] = {}

    def __call__(
        self,
        functions: str | os.PathLike[str] | Mapping[str, Handler] = "functions.yaml",
        *,
        settings: Mapping[str, str] | None = None,
    ) -> Client:
        """Return a client of a gateway for these functions.

        For a functions.yaml it is a real one, which all tests of the session share. `settings` are its HEARTH_
        variables, as docs/settings.md lists them. For handlers by name it is one in memory, a new one each time.
        """
        if isinstance(functions, Mapping):
            return self._stack.enter_context(InMemoryGateway(functions).client())
        file = Path(functions).resolve()
        wanted = (file, tuple(sorted((settings or {}).items())))
        if wanted not in self._started:
            url = self._stack.enter_context(GatewayProcess(file, settings or {}))
            self._started[wanted] = self._stack.enter_context(Client(url))
        return self._started[wanted]


class GatewayProcess:
    """A real gateway with a data folder and a port of its own. Entered, it gives its URL."""

    def __init__(self, file: Path, settings: Mapping[str, str]) -> None:
        self._file = file
        self._settings = settings
        self._stack = ExitStack()

    def __enter__(self) -> str:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hearth-")))
            log = folder / "gateway.log"
            port = free_port()
            url = f"http://127.0.0.1:{port}"
            process = self._start(folder, log, port)
            stack.callback(stop, process)
            wait_until_ready(url, process, log)
            self._stack = stack.pop_all()
        return url

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, folder: Path, log: Path, port: int) -> subprocess.Popen[bytes]:
        words = [*command(), "serve", "--functions", str(self._file), "--port", str(port)]
        others = {name: value for name, value in os.environ.items() if not name.startswith("HEARTH_")}
        with log.open("wb") as output:
            return subprocess.Popen(
                [*words, "--data-dir", str(folder / "data")],
                env={**others, **self._settings},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )


def command() -> list[str]:
    """Return the words of the command `hearth`. Fails the test if there is none."""
    beside = Path(sys.executable).with_name("hearth")
    found = shutil.which("hearth") or str(beside)
    words = shlex.split(os.environ.get("HEARTH_COMMAND", "")) or [found]
    if shutil.which(words[0]) is None:
        pytest.fail(
            "there is no command `hearth` to start a gateway with: install hearth-faas, or name the command in "
            "HEARTH_COMMAND. Handlers run without it: hearth_gateway({'greet': handler.handle})",
            pytrace=False,
        )
    return words


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a gateway can run its functions. Fails the test if it ends, or does not become ready."""
    until = time.monotonic() + START_SECONDS
    why = "it does not answer"
    with httpx.Client(base_url=url, trust_env=False) as http:
        while process.poll() is None and time.monotonic() < until:
            try:
                answer = http.get("/readyz")
                if answer.status_code == 200:
                    return
                why = answer.text
            except httpx.TransportError:
                pass
            time.sleep(LOOK_SECONDS)
    state = "ended" if process.poll() is not None else f"is not ready after {START_SECONDS:g} s ({why})"
    pytest.fail(f"the gateway {state}; its output:\n{log.read_text(errors='replace')[-4000:]}", pytrace=False)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a gateway, which removes its containers."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def hearth_gateway() -> Iterator[GatewayStarter]:
    """Start gateways, real ones or in memory, and give a client: `hearth_gateway("functions.yaml")`."""
    with ExitStack() as stack:
        yield GatewayStarter(stack)
