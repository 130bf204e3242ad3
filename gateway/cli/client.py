"""A client of the gateway's HTTP surface, for the command line and for tools."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from gateway.access.guard import is_loopback
from gateway.access.keys import KEY

DEFAULT_URL = "http://127.0.0.1:8080"
PROBLEM_TYPE = "urn:hearth:problem:"
"""What the types of Hearth's own problems begin with; a function may answer with problems of its own."""
PATIENCE = 30.0
"""Seconds for an answer that no function has to compute."""


UPLOAD_PATIENCE = 90.0
"""The same where a body is sent that may be long."""


class ClientError(Exception):
    """The gateway could not be asked, or its answer is none of a gateway's."""


class GatewayAbsent(ClientError):
    """Nothing answers at the gateway's address."""


@dataclass
class Refused(ClientError):
    """The gateway answered with a problem (RFC 9457)."""

    status: int
    title: str
    detail: str
    blame: str
    invocation: str | None = None

    def __str__(self) -> str:
        return f"{self.title} ({self.status}, blame: {self.blame}): {self.detail}"


class GatewayClient:
    """Speaks to one gateway. `url` is http://… or https://…, `key` is one of its keys; `ClientError` is raised for
    what cannot be one. To be closed.

    Every verb raises `GatewayAbsent`, `Refused` or `ClientError`.
    """

    def __init__(
        self, url: str = DEFAULT_URL, transport: httpx.BaseTransport | None = None, key: str | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ClientError(f"{url} is not a gateway's address; it looks like {DEFAULT_URL}")
        if key is not None and not KEY.fullmatch(key):
            raise ClientError("the key that was given is no key of Hearth's; it looks like hth_ID_SECRET")
        self.url = url.rstrip("/")
        self._key = key
        self._http = httpx.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {key}"} if key else {},
            transport=transport,
            timeout=httpx.Timeout(PATIENCE, connect=5.0),
            trust_env=not is_loopback(parts.hostname),  # no proxy leads to this machine's own loopback
        )

    def functions(self) -> list[dict[str, Any]]:
        """What is deployed."""
        return list(self._json("/functions"))

    def pool(self) -> dict[str, Any]:
        """The pool's counts."""
        return dict(self._json("/pool"))

    def instances(self, function: str | None = None) -> list[dict[str, Any]]:
        """Every instance, or those of one function."""
        return list(self._json("/pool/instances", {"function": function} if function else {}))

    def triggers(self) -> list[dict[str, Any]]:
        """What starts functions beside a call."""
        return list(self._json("/triggers"))

    def publish(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Publish one CloudEvent, as JSON has it; what it has started."""
        with self._translated():
            response = self._http.post(
                "/events",
                content=json.dumps(event).encode(),
                headers={"content-type": "application/cloudevents+json"},
            )
        raise_if_refused(response)
        if response.status_code != 202:
            raise self._no_gateway(response)
        return dict(response.json())

    def invocation_logs(self, invocation: str) -> bytes:
        """What an invocation printed."""
        return self._get(f"/invocations/{quote(invocation, safe='')}/logs").content

    def instance_logs(self, instance: str) -> bytes:
        """What an instance printed that belongs to no single invocation."""
        return self._get(f"/pool/instances/{quote(instance, safe='')}/logs").content

    def result(self, invocation: str) -> tuple[str, bytes]:
        """What an accepted call that has ended was answered: content type and body."""
        with self._translated():
            response = self._http.get(f"/invocations/{quote(invocation, safe='')}/result")
        raise_if_refused(response)
        return response.headers.get("content-type", ""), response.content

    def ask(
        self, method: str, path: str, body: object = None, params: Mapping[str, str] | None = None
    ) -> Any:
        """Any other route, with `body` as JSON unless it is None: its answer from JSON, None if it is empty."""
        with self._translated():
            response = self._http.request(
                method, path, params=params or {}, json=body, timeout=UPLOAD_PATIENCE
            )
        raise_if_refused(response)
        if not response.is_success:
            raise self._no_gateway(response)
        try:
            return response.json() if response.content else None
        except ValueError as error:
            raise self._no_gateway(response) from error

    def start(self, path: str, content: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        """Start something that is kept, a job or a run, with this body; how it stands. Where the answer is lost it is
        asked for once more, with the same idempotency key: nothing is started twice."""
        fields = {**headers, "idempotency-key": secrets.token_hex(16)}
        with self._translated():
            try:
                response = self._http.post(path, content=content, headers=fields, timeout=UPLOAD_PATIENCE)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                raise
            except httpx.TransportError:
                response = self._http.post(path, content=content, headers=fields, timeout=UPLOAD_PATIENCE)
        raise_if_refused(response)
        if response.status_code != 202:
            raise self._no_gateway(response)
        return dict(response.json())

    def fetch(self, path: str) -> bytes:
        """The body of any other route that is read."""
        return self._get(path).content

    @contextlib.contextmanager
    def invoke(
        self,
        function: str,
        body: bytes | Iterable[bytes] | None,
        headers: Mapping[str, str],
        method: str = "POST",
        path: str = "",
    ) -> Iterator[tuple[httpx.Response, Iterator[bytes]]]:
        """Call a function: its answer's head, and its body as it comes. No limit in time but the function's own.

        `path` is what follows the function's name, query included, with or without its slash. An Authorization
        among `headers` is for the function; the key is sent beside it then.
        """
        sub_path = "/" + path.removeprefix("/") if path else ""
        target = f"/invoke/{quote(function, safe='')}{sub_path}"
        fields = {"accept-encoding": "identity", **headers}
        if self._key and "authorization" in (name.lower() for name in headers):
            fields["x-hearth-key"] = self._key
        with (
            self._translated(),
            self._http.stream(
                method, target, content=body, headers=fields, timeout=httpx.Timeout(None, connect=5.0)
            ) as response,
        ):
            if is_problem(response):
                body_read = response.read()
                raise_if_refused(response)
                yield response, iter((body_read,))  # a problem of the function's own
            else:
                yield response, response.iter_raw()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def __enter__(self) -> GatewayClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _json(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        response = self._get(path, params)
        try:
            return response.json()
        except ValueError as error:
            raise self._no_gateway(response) from error

    def _get(self, path: str, params: Mapping[str, str] | None = None) -> httpx.Response:
        with self._translated():
            response = self._http.get(path, params=params or {})
        raise_if_refused(response)
        if response.status_code != 200:
            raise self._no_gateway(response)
        return response

    def _no_gateway(self, response: httpx.Response) -> ClientError:
        status = f"{response.status_code} {response.reason_phrase}".strip()
        return ClientError(f"what answers at {self.url} is no Hearth gateway (it said {status})")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise GatewayAbsent(f"no gateway answers at {self.url}; start one with `hearth serve`") from error
        except httpx.TimeoutException as error:
            raise ClientError(f"{self.url} did not answer in time") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise ClientError(f"the exchange with {self.url} broke off: {error}") from error


def is_problem(response: httpx.Response) -> bool:
    """Whether it says that it carries a problem."""
    return response.is_error and response.headers.get("content-type", "").startswith(
        "application/problem+json"
    )


def raise_if_refused(response: httpx.Response) -> None:
    """Raise `Refused` if it carries a problem of Hearth's. Its body has been read."""
    try:
        problem = response.json() if is_problem(response) else None
    except ValueError:
        return
    if isinstance(problem, dict) and str(problem.get("type")).startswith(PROBLEM_TYPE):
        raise Refused(
            response.status_code,
            str(problem.get("title")),
            str(problem.get("detail")),
            str(problem.get("blame")),
            problem.get("invocation_id"),
        )
