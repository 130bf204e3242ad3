"""An engine that a gateway reaches over TLS alone: it lives in a network namespace of its own and has none of the
gateway's folders. Between the two stands a proxy that cuts, stalls and delays. Needs root."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import subprocess
import threading
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from harness import EngineView
from own_engine import OwnEngine

from pool.host import netns
from tests.support.certificates import Authority

PORT = 2376
START = """
ip link set lo up
mkdir -p /run/containerd
for folder in {hidden} /run/containerd; do mount -t tmpfs none "$folder"; done
exec "$@"
"""
"""Runs in namespaces of its own: network and mounts. A containerd of this machine would not see its mounts."""


class RemoteEngine(OwnEngine):
    """A dockerd that listens with TLS only, on loopback in a network namespace of its own."""

    def __init__(self, hidden: Path) -> None:
        super().__init__()
        self._hidden = hidden
        self.authority = Authority(self.folder / "authority")
        self.server = self.authority.issue(self.folder / "server", "serverAuth", "IP:127.0.0.1")
        self.client = self.authority.issue(self.folder / "client", "clientAuth")
        self.way: SlowWay | None = None

    def launch(self, live_restore: bool = True) -> None:
        """Start the daemon; returns before it answers."""
        config = self.folder / "daemon.json"
        config.write_text(json.dumps({"live-restore": live_restore}))
        (self.folder / "pid").unlink(missing_ok=True)
        certificates = [
            f"--tls{name}={self.server / file}"
            for name, file in (("cacert", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem"))
        ]
        options = [f"--config-file={config}", f"--host=tcp://127.0.0.1:{PORT}", "--tlsverify", *certificates]
        options += [f"--data-root={self.data}", f"--exec-root={self.folder / 'exec'}"]
        options += [f"--pidfile={self.folder / 'pid'}", "--iptables=false", "--ip6tables=false"]
        options += ["--ip-forward=false", "--ip-masq=false"]
        script = START.format(hidden=self._hidden)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["unshare", "--net", "--mount", "sh", "-ec", script, "sh", "dockerd", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )

    def dial(self) -> Any:
        """Return a connected socket to the daemon, made inside its namespace. Raises OSError."""
        if self._process is None:
            raise ConnectionRefusedError("the engine is stopped")
        sock = netns.open_socket(self._process.pid)
        sock.settimeout(5)
        try:
            sock.connect(("127.0.0.1", PORT))
        except BaseException:
            sock.close()
            raise
        return sock

    def answers(self) -> bool:
        """Whether it answers a ping within a moment."""
        assert self._process is not None and self._process.poll() is None, self.log.read_text()[-2000:]
        with (
            suppress(OSError),
            self.dial() as plain,
            self.tls().wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
            return b" 200 " in connection.recv(100)
        return False

    def tls(self) -> ssl.SSLContext:
        """The TLS settings of a client that it trusts."""
        context = ssl.create_default_context(cafile=str(self.client / "ca.pem"))
        context.load_cert_chain(str(self.client / "cert.pem"), str(self.client / "key.pem"))
        return context

    def open_way(self) -> SlowWay:
        """Have a proxy on this machine lead to it."""
        self.way = SlowWay(self)
        return self.way

    def load(self, *images: str) -> None:
        """Copy images from the engine in use."""
        assert self.way is not None
        origin = httpx.HTTPTransport(uds=self._origin)
        base = f"https://127.0.0.1:{self.way.port}"
        with (
            httpx.Client(transport=origin, base_url="http://engine", timeout=60, trust_env=False) as there,
            httpx.Client(base_url=base, verify=self.tls(), timeout=120, trust_env=False) as here,
        ):
            with there.stream("GET", "/images/get", params={"names": list(images)}) as saved:
                saved.raise_for_status()
                loaded = here.post("/images/load", content=saved.iter_bytes())
            loaded.raise_for_status()
            assert "errorDetail" not in loaded.text, loaded.text

    def close(self) -> None:
        """End everything of it."""
        way = getattr(self, "way", None)
        if way is not None:
            way.close()
        super().close()


class RemoteView(EngineView):
    """The remote engine as its own API shows it, beside the gateway and its proxy."""

    def __init__(self, engine: RemoteEngine) -> None:
        super().__init__()
        self._engine = engine

    def request(self, method: str, path: str, **query: object) -> Any:
        """One call of the API; what it answers, from JSON."""
        texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in query.items()}
        connection = http.client.HTTPConnection("127.0.0.1", timeout=60)
        connection.sock = self._engine.tls().wrap_socket(self._engine.dial(), server_hostname="127.0.0.1")
        try:
            connection.sock.settimeout(60)
            connection.request(method, f"{path}?{httpx.QueryParams(texts)}")
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        assert answer.status < 400 or answer.status == 404, (path, answer.status, body)
        return json.loads(body) if body else None


class SlowWay:
    """A TCP proxy on this machine to a remote engine. It passes on what is encrypted, so it knows nothing of it."""

    def __init__(self, engine: RemoteEngine) -> None:
        self._engine = engine
        self.delay = 0.0
        """Seconds that each piece takes, each way."""
        self.refuses = False
        """True if new connections are closed at once."""
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = self._within(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def _within(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def cut(self) -> None:
        """Break every connection."""

        async def cut() -> None:
            for pair in list(self._pairs):
                for writer in pair:
                    writer.transport.abort()

        self._within(cut())

    def stall(self) -> None:
        """Pass nothing on any more, and keep all connections open."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def flow(self) -> None:
        """Pass everything on again."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def reset(self) -> None:
        """Be as at the beginning."""
        self.delay, self.refuses = 0.0, False
        self.flow()

    def close(self) -> None:
        """End it."""

        async def end() -> None:
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._within(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        try:
            sock = await asyncio.to_thread(self._engine.dial)
            upstream, downstream = await asyncio.open_connection(sock=sock)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, downstream)
        self._pairs.add(pair)
        self.connections += 1
        try:
            await asyncio.gather(self._copy(reader, downstream), self._copy(upstream, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._pairs.discard(pair)
            writer.transport.abort()
            downstream.transport.abort()

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(2**16):
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._flowing.wait()
            target.write(data)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()
