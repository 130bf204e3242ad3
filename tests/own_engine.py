"""An engine of the tests' own that may be stopped, killed, frozen and filled up, and a proxy that makes it fail.

It shares nothing with the engine in use but the kernel: its own data-root (in memory, and small), exec-root, pid
file, socket, containerd and bridge. Needs root.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from harness import EngineView, eventually

DISK = "600m"
"""Size of its data-root."""


class OwnEngine:
    """A dockerd with a containerd of its own. `start` and `stop` it as often as needed; `close` at the end."""

    def __init__(self) -> None:
        self.folder = Path(f"/tmp/hearth-{secrets.token_hex(3)}")  # short: a unix socket's path has 107 bytes
        self.socket = self.folder / "socket"
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self._bridge = f"hearth-{secrets.token_hex(3)}"
        self._process: subprocess.Popen[bytes] | None = None
        self._origin = EngineView().socket
        self.data.mkdir(parents=True)
        try:
            _run("mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(self.data))
            _run("ip", "link", "add", self._bridge, "type", "bridge")
            _run("ip", "addr", "add", "172.31.252.1/24", "dev", self._bridge)
        except BaseException:
            self.close()
            raise

    def launch(self, live_restore: bool = True) -> None:
        """Start the daemon; returns before it answers."""
        config = self.folder / "daemon.json"  # its own: that of the engine in use must not count
        config.write_text(json.dumps({"live-restore": live_restore}))
        self.socket.unlink(missing_ok=True)
        options = [f"--config-file={config}", f"--host=unix://{self.socket}", f"--data-root={self.data}"]
        options += [f"--exec-root={self.folder / 'exec'}", f"--pidfile={self.folder / 'pid'}"]
        options += [f"--bridge={self._bridge}", "--iptables=false", "--ip6tables=false"]
        options += ["--ip-forward=false", "--ip-masq=false"]
        (self.folder / "pid").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["dockerd", *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
            )

    def start(self, live_restore: bool = True) -> None:
        """Start the daemon and wait until it answers."""
        self.launch(live_restore)
        eventually(self.answers, 30)

    def answers(self) -> bool:
        """Whether it answers a ping within a moment."""
        assert self._process is not None and self._process.poll() is None, self.log.read_text()[-2000:]
        with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
            connection.settimeout(1)
            connection.connect(str(self.socket))
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
            return b" 200 " in connection.recv(100)
        return False

    def send(self, number: int) -> None:
        """Send the daemon a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the daemon and wait for its end. Its containers live on if it has live-restore."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    @property
    def runs(self) -> bool:
        """Whether the daemon is started."""
        return self._process is not None

    def load(self, *images: str) -> None:
        """Copy images from the engine in use."""
        with _client(self._origin) as origin, _client(str(self.socket)) as here:
            with origin.stream("GET", "/images/get", params={"names": list(images)}) as saved:
                saved.raise_for_status()
                loaded = here.post("/images/load", content=saved.iter_bytes())
            loaded.raise_for_status()
            assert "errorDetail" not in loaded.text, loaded.text

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Not one byte is free on its data-root."""
        file = self.data / "filler"
        try:
            with file.open("wb") as stream, suppress(OSError):
                while True:
                    stream.write(bytes(2**20))
                    stream.flush()
            yield
        finally:
            file.unlink()

    def close(self) -> None:
        """End everything of it and leave nothing behind, whatever state it is in."""
        with suppress(subprocess.TimeoutExpired):
            self.stop(signal.SIGKILL)
        for _ in range(20):
            ours = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._owns(pid)]
            for pid in ours:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not ours:
                break
            time.sleep(0.1)
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{self.folder}/")), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self._bridge], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _owns(self, pid: int) -> bool:
        """Whether a process is its containerd, one of its shims, or what such a shim runs."""
        with suppress(OSError):
            for _ in range(3):  # a container's first process is a shim's child
                if str(self.folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid != os.getpid()
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                pid = int(fields[1])
                if pid <= 1 or b"containerd-shim" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return False
        return False


def _client(path: str) -> httpx.Client:
    return httpx.Client(
        transport=httpx.HTTPTransport(uds=path), base_url="http://engine", timeout=60, trust_env=False
    )


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


Fault = Callable[[str, str], int | float | None]


class Proxy:
    """Stands in front of an engine. Asked with method and path, `fault` says what becomes of a request: None passes
    it on, an int is the status that answers it, a float the seconds that it waits (infinity: for ever)."""

    def __init__(self, folder: Path, target: Path) -> None:
        self.socket = folder / "proxy"
        self.fault: Fault = lambda method, path: None
        self.requests: list[tuple[float, str, str]] = []
        """(time, method, path) of all that came."""
        self._target = target
        self._open: dict[asyncio.Task[Any], str] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = self._within(asyncio.start_unix_server(self._serve, self.socket))

    def _within(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def cut(self, part: str = "") -> None:
        """Break every connection whose path has this in it."""
        self._within(self._cut(part))

    async def _cut(self, part: str) -> None:
        tasks = [task for task, path in self._open.items() if part in path]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        """End it."""

        async def end() -> None:
            self._server.close()
            await self._cut("")

        self._within(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.socket.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = ""
        try:
            await self._pass_on(task, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            del self._open[task]
            writer.close()

    async def _pass_on(
        self, task: asyncio.Task[Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, path = head.split(b" ", 2)[:2]
        self._open[task] = path.decode()
        self.requests.append((time.monotonic(), method.decode(), path.decode()))
        fault = self.fault(method.decode(), path.decode())
        if isinstance(fault, float):
            await asyncio.sleep(min(fault, 3600))
        elif fault is not None:
            body = b'{"message": "a fault that the test asked for"}'
            lines = (b"HTTP/1.1 %d Fault" % fault, b"Content-Length: %d" % len(body), b"Connection: close")
            writer.write(b"\r\n".join((*lines, b"Content-Type: application/json", b"", body)))
            await writer.drain()
            return
        upstream, downstream = await asyncio.open_unix_connection(self._target)
        if b"upgrade" not in head.lower():  # one request a connection: each can be looked at
            head = head[:-2] + b"Connection: close\r\n\r\n"
        try:
            downstream.write(head)
            there = asyncio.ensure_future(_copy(reader, downstream))
            try:
                await _copy(upstream, writer)
            finally:
                there.cancel()
        finally:
            downstream.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(2**16):
        target.write(data)
        await target.drain()
    if target.can_write_eof():
        with suppress(OSError):
            target.write_eof()
