"""A real gateway process for tests from the outside, and the engine's own view of what it does.

    with Gateway(tmp_path, {"hello": handler("def handle(event, context): return event")}) as gateway:
        assert gateway.call("hello", {"a": 1}).json() == {"a": 1}

A conftest that imports `pytest_runtest_makereport` from here has the gateways' logs in the reports of failures.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pool.host import cgroup

GATEWAY_LABEL = "org.hearth.gateway"
BUSYBOX_IMAGE = "hearth-example/busybox:latest"
BASE_IMAGE = "hearth-base:latest"

KEPT = ("identity", "lock", "keys.json", "calls.db", "calls.made", "callback-secret", "engine-secret", "logs")
"""What stays in a data folder from one gateway process to the next."""
RUNNING: list[Gateway] = []
"""Gateways whose logs a failure's report shows."""

T = TypeVar("T")


def handler(code: str, **keys: object) -> dict[str, object]:
    """A function of Python code, which must define `handle`; `keys` as in functions.yaml."""
    return {"code": code, **keys}


def command(*words: str, **keys: object) -> dict[str, object]:
    """A function that runs a busybox command for each call."""
    return {"image": BUSYBOX_IMAGE, "command": list(words), **keys}


def server(code: str, **keys: object) -> dict[str, object]:
    """A function that is an HTTP server in Python, listening on port 8000, on an image that knows nothing of us."""
    return {"image": BASE_IMAGE, "command": ["python3", "-c", code], "port": 8000, **keys}


LATE_TLS_WRITE = re.compile(r"^.*Fatal error on SSL protocol.*the handler is closed.*$", re.MULTILINE)
"""What uvloop itself logs when a TLS connection that was cut has still something to send."""


class Gateway:
    """A gateway process with a data folder and a functions.yaml of its own, ready when the block is entered.

    `functions` are the keys of functions.yaml by name; `code`, as `handler` makes it, is written to a folder.
    `settings` become HEARTH_ variables. At the end it is stopped, must have left nothing, and is cleaned up
    after even if it has not. It does not show what functions print: a traceback of theirs is no fault of its own.
    `name` tells several gateways of one folder apart. `wrapper` is a command that runs it.
    """

    def __init__(
        self,
        folder: Path,
        functions: Mapping[str, Mapping[str, object]],
        prewarm: Mapping[str, int] | None = None,
        settings: Mapping[str, object] | None = None,
        name: str = "gateway",
        wrapper: Sequence[str] = (),
        sections: Mapping[str, object] | None = None,
    ) -> None:
        self.folder = folder
        self.file = folder / "functions.yaml"
        self.data = folder / f"{name}-data"
        self.log_file = folder / f"{name}.log"
        self.engine = EngineView()
        self._wrapper = wrapper
        self.settings = {"drain_timeout": "10s", "quiet": "true", **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.declare(functions, prewarm, sections)

    # -- its life -------------------------------------------------------------------------------------------

    def declare(
        self,
        functions: Mapping[str, Mapping[str, object]],
        prewarm: Mapping[str, int] | None = None,
        sections: Mapping[str, object] | None = None,
    ) -> None:
        """Write functions.yaml (in JSON, which is YAML) and the code that it names. `sections` are its other keys."""
        declared: dict[str, dict[str, object]] = {}
        for name, keys in functions.items():
            declared[name] = {key: value for key, value in keys.items() if key != "code"}
            if "code" in keys:
                self.write(f"{name}/handler.py", str(keys["code"]))
                declared[name] |= {"runtime": "python", "source": name, "handler": "handler:handle"}
        content: dict[str, object] = {"version": 1, "functions": declared, **(sections or {})}
        if prewarm:
            content["prewarm"] = dict(prewarm)
        self.write("functions.yaml", json.dumps(content, indent=1))

    def write(self, name: str, text: str) -> None:
        """Put a file into the folder, whole at once, as editors do."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f"{file.name}~")
        fresh.write_text(text)
        fresh.replace(file)

    def launch(self) -> None:
        """Start the process, also again after its end; does not wait until it is ready."""
        self.close()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(
            base_url=self.url,
            timeout=60,
            trust_env=False,
            verify=False,  # no TLS: certificates would be read for nothing
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )
        variables = {f"HEARTH_{key.upper()}": str(value) for key, value in self.settings.items()}
        clean = {key: value for key, value in os.environ.items() if not key.startswith("HEARTH_")}
        arguments = ["serve", "--functions", self.file, "--port", str(port), "--data-dir", self.data]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._wrapper, Path(sys.executable).with_name("hearth"), *arguments],
                env={**clean, **variables, "PYTHONUNBUFFERED": "1"},
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        RUNNING.append(self)

    def wait_until_ready(self, seconds: float = 60) -> None:
        """Wait for /readyz, or fail."""

        def ready() -> bool:
            assert self.process.poll() is None, f"the gateway has ended\n{self.log}"
            try:
                return self.http.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        eventually(ready, seconds)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def log(self) -> str:
        """All that it has written to stdout and stderr."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    @property
    def identity(self) -> str:
        return (self.data / "identity").read_text().strip()

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        """Send a signal and wait for the end; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def __enter__(self) -> Self:
        try:
            self.launch()
            self.wait_until_ready()
        except BaseException:
            self.clean_up()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.process.poll() is None:
                status = self.stop()
                assert status == 0, f"the gateway ended with status {status}\n{self.log}"
                assert self.leftovers() == []
            assert "Traceback" not in LATE_TLS_WRITE.sub("", self.log), f"the gateway has a fault\n{self.log}"
        finally:
            self.clean_up()

    def close(self) -> None:
        """Close the client; its log is shown no more. The process is left as it is."""
        if self in RUNNING:
            RUNNING.remove(self)
            self.http.close()

    def leftovers(self) -> list[str]:
        """What it has left on the engine and in its data folder, other than what is meant to stay."""
        label = f"{GATEWAY_LABEL}={self.identity}"
        objects = [c["Names"][0] for c in self.engine.containers(label)] + self.engine.networks(label)
        return objects + [f.name for f in self.data.iterdir() if f.name not in KEPT]

    def clean_up(self) -> None:
        """Kill the gateway if it still runs, and remove its containers and networks."""
        if self._process is not None and self.process.poll() is None:
            self.stop(signal.SIGKILL)
        self.close()
        if (self.data / "identity").exists():
            self.engine.remove_all(f"{GATEWAY_LABEL}={self.identity}")

    # -- what it is asked -----------------------------------------------------------------------------------

    def call(self, function: str, payload: object = None, **more: Any) -> httpx.Response:
        """POST to a function: `payload` as JSON, or what httpx's own keywords say."""
        if payload is not None:
            more["json"] = payload
        return self.http.post(f"/invoke/{function}", **more)

    def raw(self) -> http.client.HTTPConnection:
        """A connection of the standard library's, which sends what it is told."""
        return http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=30)

    def logs(self, response: httpx.Response) -> str:
        """What the invocation of this response printed."""
        return self.http.get(f"/invocations/{response.headers['x-invocation-id']}/logs").text

    def pool(self, function: str) -> dict[str, Any]:
        """What GET /pool says about a function."""
        return dict(self.http.get("/pool").json()["functions"][function])

    def instances(self, function: str | None = None) -> list[dict[str, Any]]:
        """Its instances, as GET /pool/instances shows them."""
        return list(
            self.http.get("/pool/instances", params={"function": function} if function else {}).json()
        )

    def containers(self) -> list[dict[str, Any]]:
        """Its containers, as the engine lists them."""
        return self.engine.containers(f"{GATEWAY_LABEL}={self.identity}")

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of a metric that have these labels; 0 where there is none."""
        return sum_of(self.http.get("/metrics").text, name, labels)

    @contextmanager
    def counted(self, outcome: str, blame: str, function: str, times: int = 1) -> Iterator[None]:
        """Assert that so many invocations end this way within the block, and none in any other."""
        name = "hearth_invocations_total"
        before, all_before = (
            self.metric(name, outcome=outcome, blame=blame, function=function),
            self.metric(name),
        )
        yield
        eventually(lambda: self.metric(name) == all_before + times, 5)
        assert self.metric(name, outcome=outcome, blame=blame, function=function) == before + times

    def books_agree(self) -> bool:
        """Whether nothing runs or waits, and the pool's instances, the engine's containers and the socket folders are
        the same, and their memory is what is declared: then no slot and no instance has leaked."""
        pool, shown = self.http.get("/pool").json(), self.instances()
        at_rest = all(i["in_use"] == 0 and i["state"] in ("idle", "frozen", "prewarmed") for i in shown)
        nobody_waits = all(function["queue_depth"] == 0 for function in pool["functions"].values())
        declared = self.metric("hearth_memory_declared_bytes") == sum(i["memory"] for i in shown)
        same = {i["container"] for i in shown} == {c["Id"] for c in self.containers()}
        run = self.data / "run"  # a gateway of a remote engine has none
        folders = {folder.name for folder in run.iterdir()} if run.exists() else set()
        return at_rest and nobody_waits and declared and same and folders <= {i["id"] for i in shown}

    def prewarmed(self) -> int:
        """Generic instances that are ready."""
        return int(self.metric("hearth_prewarmed"))

    def memory(self) -> int:
        """Resident memory of the gateway's process, bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )


class EngineView:
    """The container engine as its own API shows it, beside the gateway. Over a unix socket only."""

    def __init__(self) -> None:
        self.socket = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")

    def request(self, method: str, path: str, **query: object) -> Any:
        """One call of the API; what it answers, from JSON."""
        # Nothing here is TLS, and to read all certificates of this machine costs more than what is asked.
        with httpx.Client(transport=httpx.HTTPTransport(uds=self.socket, verify=False), timeout=60) as client:
            texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in query.items()}
            answer = client.request(method, f"http://engine{path}", params=texts)
        if answer.status_code != 404:
            answer.raise_for_status()
        return answer.json() if answer.content else None

    def containers(self, label: str) -> list[dict[str, Any]]:
        """Containers with a label, in every state."""
        return list(self.request("GET", "/containers/json", all="1", filters={"label": [label]}))

    def networks(self, label: str) -> list[str]:
        """Names of networks with a label."""
        return [n["Name"] for n in self.request("GET", "/networks", filters={"label": [label]})]

    def processor_time(self, container: str) -> int:
        """Nanoseconds (cgroup v2: microseconds) that a container has run, as the kernel counts them."""
        state = self.request("GET", f"/containers/{container}/json")["State"]
        found = cgroup.of_container(state["Pid"], container)
        assert found is not None
        if found.unified:
            return int((found.cpu / "cpu.stat").read_text().split()[1])
        place = Path("/sys/fs/cgroup/cpuacct") / found.cpu.relative_to("/sys/fs/cgroup/cpu")
        return int((place / "cpuacct.usage").read_text())

    def kill(self, container: str) -> None:
        """End a container's processes from outside."""
        self.request("POST", f"/containers/{container}/kill")

    def remove_all(self, label: str) -> None:
        """Remove the containers, networks and images with a label."""
        for container in self.containers(label):
            self.request("DELETE", f"/containers/{container['Id']}", force="1", v="1")
        for network in self.networks(label):
            self.request("DELETE", f"/networks/{network}")
        for image in self.request("GET", "/images/json", filters={"label": [label]}):
            self.request("DELETE", f"/images/{image['Id']}", force="1")

    @contextmanager
    def watch(self, label: str) -> Iterator[Watched]:
        """Follow what the engine does with the containers of a label, event by event."""
        connection = http.client.HTTPConnection("engine")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.socket)
        sock = connection.sock
        filters = httpx.QueryParams({"filters": json.dumps({"type": ["container"], "label": [label]})})
        connection.request("GET", f"/events?{filters}")
        response = connection.getresponse()
        watched = Watched()
        thread = threading.Thread(target=watched.follow, args=(response,))
        thread.start()
        try:
            yield watched
        finally:
            sock.shutdown(socket.SHUT_RDWR)
            thread.join()
            response.close()
            connection.close()


class Watched:
    """What happened to the containers, in the engine's own order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        """(action, container id)"""

    def follow(self, response: http.client.HTTPResponse) -> None:
        """Read events until the connection ends."""
        try:
            while line := response.readline():
                event = json.loads(line)
                self.events.append((event["Action"], event["id"]))
        except (OSError, ValueError, http.client.HTTPException):
            return

    def count(self, action: str) -> int:
        """How often this happened."""
        return sum(1 for event, _ in self.events if event == action)

    def most_at_once(self) -> int:
        """The most containers that there were at any moment: created and not yet destroyed."""
        alive: set[str] = set()
        most = 0
        for action, container in list(self.events):
            if action == "create":
                alive.add(container)
            elif action == "destroy":
                alive.discard(container)
            most = max(most, len(alive))
        return most


def sum_of(text: str, name: str, labels: Mapping[str, str]) -> float:
    """Sum of the samples `name` with these labels in a page of metrics."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(condition: Callable[[], T], seconds: float = 10, pause: float | None = None) -> T:
    """What `condition` returns once it is true; fails if it is not within `seconds`.

    `pause` is the time between two looks, seconds. If it is not said they become rarer, from 50 to 10 a second, since
    a look keeps the machine from what is waited for.
    """
    began = time.monotonic()
    while True:
        if value := condition():
            return value
        waited = time.monotonic() - began
        assert waited < seconds, f"not true within {seconds:g} s"
        time.sleep(min(0.02 + waited / 10, 0.1) if pause is None else pause)


def in_parallel(work: Callable[[int], T], count: int, clients: int | None = None) -> list[T]:
    """`work(0)` to `work(count - 1)`, by so many threads at once (all at once if not said)."""
    with ThreadPoolExecutor(clients or count) as threads:
        return list(threads.map(work, range(count)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of the gateways' logs where a test has failed."""
    report = yield
    if report.failed:
        report.sections += [(f"log of {g.log_file.stem}", g.log[-6000:]) for g in RUNNING]
    return report
