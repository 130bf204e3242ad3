"""A small client of the engine's API on the standard library alone.

The gateway has a full asynchronous one. Set-up needs something that starts in a few milliseconds,
works before the first dependency is installed, and can build with no network: this.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO
from urllib.parse import urlencode

from pool.engine.access.address import BadAddress, engine_address, refusal
from pool.engine.access.tls import client_tls, tls_fault

TAIL_LINES = 30


class EngineApiError(Exception):
    """The engine refused or failed."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; 0 when the failure came later than the response's head."""


class EngineSilentError(EngineApiError):
    """Nothing answers at the engine's address."""


class EngineForbiddenError(EngineSilentError):
    """The engine's socket is there, but this user may not open it."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class EngineApi:
    """The engine at `host`, by default the one that the docker command would use."""

    def __init__(self, host: str | None = None) -> None:
        self._given = host
        self.host = host or os.environ.get("DOCKER_HOST") or ""
        """Its address as text; empty if a docker context that cannot be read names it."""
        with contextlib.suppress(BadAddress):
            self.host = engine_address(host).text

    def ping(self, timeout: float = 5) -> None:
        """Return if the engine answers within `timeout` seconds, else raise `EngineSilentError`."""
        with self._request("GET", "/_ping", timeout=timeout):
            pass

    def version(self) -> str:
        """The engine's version, as `20.10.24`."""
        return str(self._json("GET", "/version")["Version"])

    def info(self) -> dict[str, Any]:
        """Return the engine's description of itself and of its machine."""
        return self._json("GET", "/info")

    def image(self, reference: str) -> dict[str, Any] | None:
        """Return what the engine says about an image, or None if it has none of this name."""
        try:
            return self._json("GET", f"/images/{reference}/json")
        except EngineApiError as error:
            if error.status == 404:
                return None
            raise

    def pull(self, image: str, tag: str, patience: float, show: Callable[[str], None]) -> None:
        """Pull an image. Raises `EngineApiError` if the registry is silent for `patience` seconds."""
        query = {"fromImage": image, "tag": tag}
        with self._request("POST", "/images/create", query, timeout=patience) as response:
            for message in _messages(response):
                show(f"{message.get('id', '')} {message.get('status', '')}".strip())

    def build(
        self,
        context: BinaryIO,
        size: int,
        tag: str,
        labels: Mapping[str, str],
        arguments: Mapping[str, str],
        show: Callable[[str], None],
    ) -> None:
        """Build an image, without a network, from a tar of `size` bytes that has a Dockerfile with these ARGs.

        Raises `EngineApiError` with the end of the build's output.
        """
        query = {
            "t": tag,
            "labels": json.dumps(dict(labels)),
            "buildargs": json.dumps(dict(arguments)),
            "networkmode": "none",
            "rm": "1",
            "forcerm": "1",
        }
        headers = {"Content-Type": "application/x-tar", "Content-Length": str(size)}
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        try:
            with self._request("POST", "/build", query, context, headers, timeout=600) as response:
                for message in _messages(response):
                    for line in str(message.get("stream", "")).splitlines():
                        if line.strip():
                            tail.append(line)
                            show(line.strip())
        except EngineApiError as error:
            raise EngineApiError("\n".join([*tail, str(error)]), error.status) from None

    def discard(self, image: str) -> bool:
        """Remove an image, and return whether it is gone. It stays if something stands on it or runs from it."""
        try:
            with self._request("DELETE", f"/images/{image}"):
                return True
        except EngineApiError as error:
            if error.status not in (404, 409):
                raise
            return error.status == 404

    def containers(self) -> list[str]:
        """Return the names of all containers, stopped ones too."""
        with self._request("GET", "/containers/json", {"all": "1"}) as response:
            return [one["Names"][0].removeprefix("/") for one in json.load(response)]

    def _json(self, method: str, path: str) -> dict[str, Any]:
        with self._request(method, path) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: BinaryIO | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> http.client.HTTPResponse:
        connection = self._connection(timeout)
        target = f"{path}?{urlencode(query)}" if query else path
        try:
            connection.request(method, target, body=body, headers={"Connection": "close", **(headers or {})})
            response = connection.getresponse()
        except PermissionError as error:
            connection.close()
            raise EngineForbiddenError(f"{self.host}: {error.strerror}") from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            fault = tls_fault(error, engine_address(self._given)) or error or type(error).__name__
            raise EngineSilentError(f"{self.host}: {fault}") from error
        if response.status >= 400:
            raise EngineApiError(refusal(response.read()), response.status)
        return response

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        try:
            address = engine_address(self._given)
            tls = client_tls(address)
        except BadAddress as error:
            raise EngineApiError(str(error)) from None
        if address.path is not None:
            return _UnixConnection(address.path, timeout)
        if tls is not None:
            return http.client.HTTPSConnection(address.host, address.port, timeout=timeout, context=tls)
        return http.client.HTTPConnection(address.host, address.port, timeout=timeout)


def _messages(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The lines of JSON that the engine sends while it works; one that says error is raised."""
    try:
        for line in response:
            message: dict[str, Any] = json.loads(line)
            if "error" in message:
                raise EngineApiError(str(message["error"]))
            yield message
    except OSError as error:
        raise EngineApiError(f"the engine fell silent: {error or type(error).__name__}") from error
