"""A client of the gateway's HTTP API, for the command line and for tools."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from gateway.access.keys import KEY
from gateway.http.loopback import is_loopback

DEFAULT_URL = "http://127.0.0.1:8080"
PROBLEM_TYPE = "urn:hearth:problem:"
"""Prefix of the types of Hearth's own problems. A function may answer with other problems."""
ANSWER_TIMEOUT_SECONDS = 30.0
"""Longest wait for the answer to a GET of the API. No function runs for it."""


UPLOAD_TIMEOUT_SECONDS = 90.0
"""Longest wait for the answer to other requests of the API. The gateway gives up after 60 s itself."""


class ClientError(Exception):
    """The gateway could not be reached, or something else answered. The message says which."""


class GatewayAbsent(ClientError):
    """No program answers at the gateway's address."""


@dataclass
class Refused(ClientError):
    """The gateway answered with a problem (RFC 9457)."""

    status: int
    title: str
    detail: str
    blame: str
    invocation: str | None = None
    slug: str = ""
    """Kind of the problem, like `no-such-function`."""

    def __str__(self) -> str:
        return f"{self.title} ({self.status}, blame: {self.blame}): {self.detail}"


class GatewayClient:
    """Connection to one gateway. `url` is http://… or https://…, `key` is one of its keys. Must be closed.

    The constructor raises `ClientError` for a malformed url or key. Every verb raises `GatewayAbsent`, `Refused` or
    `ClientError`.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        transport: httpx.BaseTransport | None = None,
        key: str | None = None,
        timeout: float = ANSWER_TIMEOUT_SECONDS,
    ) -> None:
        host = host_of(url)
        if key is not None and not KEY.fullmatch(key):
            raise ClientError("the given key is not a key of Hearth; use one like hth_ID_SECRET")
        self.url = url.rstrip("/")
        self._key = key
        self.asked: httpx.Request | None = None
        """The latest request."""
        self._http = httpx.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {key}"} if key else {},
            transport=transport,
            event_hooks={"request": [self._note]},
            timeout=httpx.Timeout(timeout, connect=min(timeout, 5.0)),
            trust_env=not is_loopback(host),  # a proxy could not reach this machine's loopback
        )

    def functions(self) -> list[dict[str, Any]]:
        """Return the deployed functions."""
        return list(self._json("/functions"))

    def pool(self) -> dict[str, Any]:
        """Return the pool's counts."""
        return dict(self._json("/pool"))

    def instances(self, function: str | None = None) -> list[dict[str, Any]]:
        """Return all instances, or the instances of one function."""
        return list(self._json("/pool/instances", {"function": function} if function else {}))

    def triggers(self) -> list[dict[str, Any]]:
        """Return the triggers."""
        return list(self._json("/triggers"))

    def publish(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Publish one CloudEvent in its JSON form, and return the fires of the triggers that matched it."""
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
        """Return the output that an invocation printed."""
        return self._get(f"/invocations/{quote(invocation, safe='')}/logs").content

    def instance_logs(self, instance: str) -> bytes:
        """Return the output that an instance printed outside of any single invocation."""
        return self._get(f"/pool/instances/{quote(instance, safe='')}/logs").content

    def log_lines(self, parameters: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """Yield the lines of output that the parameters of `GET /logs` ask for."""
        accept = {"accept": "application/x-ndjson"}
        with self._streamed("/logs", parameters, accept) as response:
            for line in response.iter_lines():
                yield from [json.loads(line)] if line else []

    @contextlib.contextmanager
    def log_events(
        self, parameters: Mapping[str, str], last: str = ""
    ) -> Iterator[Iterator[tuple[str, dict[str, Any]]]]:
        """Give lines of output as they are printed, each with the id of its event; go on behind the event `last`."""
        headers = {"accept": "text/event-stream"} | ({"last-event-id": last} if last else {})
        with self._streamed("/logs", parameters, headers) as response:
            yield _events(response.iter_lines())

    @contextlib.contextmanager
    def _streamed(
        self, path: str, parameters: Mapping[str, str], headers: Mapping[str, str]
    ) -> Iterator[httpx.Response]:
        """Give the answer to a GET whose body is read as it comes."""
        timeout = httpx.Timeout(ANSWER_TIMEOUT_SECONDS, connect=5.0)
        with (
            self._translated(),
            self._http.stream("GET", path, params=parameters, headers=headers, timeout=timeout) as response,
        ):
            if response.status_code != 200:
                response.read()
                raise_if_refused(response)
                raise self._no_gateway(response)
            try:
                yield response
            except ValueError as error:
                raise self._no_gateway(response) from error

    def answer(self, invocation: str) -> httpx.Response:
        """Return the whole answer to an accepted call that has ended."""
        with self._translated():
            response = self._http.get(f"/invocations/{quote(invocation, safe='')}/result")
        raise_if_refused(response)
        return response

    def result(self, invocation: str) -> tuple[str, bytes]:
        """Return content type and body of the answer to an accepted call that has ended."""
        response = self.answer(invocation)
        return response.headers.get("content-type", ""), response.content

    def ask(
        self, method: str, path: str, body: object = None, params: Mapping[str, str] | None = None
    ) -> Any:
        """Send a request to any other route, with `body` as JSON unless it is None.

        Return its answer parsed from JSON, or None if it is empty.
        """
        with self._translated():
            response = self._http.request(
                method, path, params=params or {}, json=body, timeout=UPLOAD_TIMEOUT_SECONDS
            )
        raise_if_refused(response)
        if not response.is_success:
            raise self._no_gateway(response)
        try:
            return response.json() if response.content else None
        except ValueError as error:
            raise self._no_gateway(response) from error

    def start(
        self, path: str, content: bytes, headers: Mapping[str, str], method: str = "POST"
    ) -> dict[str, Any]:
        """Start a job, a run or a call that the gateway accepts for later, with this body. Return its status.

        If the answer is lost, the request is repeated once with the same idempotency key. So nothing starts twice.
        """
        fields = {"idempotency-key": secrets.token_hex(16), **self._with_key(headers)}

        def send() -> httpx.Response:
            return self._http.request(
                method, path, content=content, headers=fields, timeout=UPLOAD_TIMEOUT_SECONDS
            )

        with self._translated():
            try:
                response = send()
            except (httpx.ConnectError, httpx.ConnectTimeout):
                raise
            except httpx.TransportError:
                response = send()
        raise_if_refused(response)
        if response.status_code != 202:
            raise self._no_gateway(response)
        return dict(response.json())

    def fetch(self, path: str) -> bytes:
        """Return the body of the answer to a GET of any other route."""
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
        """Call a function, and give the head of its answer and the pieces of its body.

        Only its own timeout bounds it.

        `path` follows the function's name, includes the query, and may begin with a slash. `authorization` among
        `headers` goes to the function; then X-Hearth-Key carries our key.
        """
        fields = {"accept-encoding": "identity", **self._with_key(headers)}
        with (
            self._translated(),
            self._http.stream(
                method,
                invoke_path(function, path),
                content=body,
                headers=fields,
                timeout=httpx.Timeout(None, connect=5.0),
            ) as response,
        ):
            if is_problem(response):
                body_read = response.read()
                raise_if_refused(response)
                yield response, iter((body_read,))  # the function's own problem
            else:
                yield response, response.iter_raw()

    @contextlib.contextmanager
    def call_events(self, parameters: Mapping[str, str]) -> Iterator[Iterator[dict[str, Any]]]:
        """Give calls as they end, as the parameters of `GET /calls` ask for them."""
        with self._streamed("/calls", parameters, {"accept": "text/event-stream"}) as response:
            yield (call for _, call in _events(response.iter_lines()))

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> GatewayClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _with_key(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return headers for a function. X-Hearth-Key carries our key if it gets its own `authorization`."""
        if self._key and "authorization" in (name.lower() for name in headers):
            return {**headers, "x-hearth-key": self._key}
        return dict(headers)

    def _note(self, request: httpx.Request) -> None:
        self.asked = request

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
        return ClientError(
            f"the server at {self.url} is not a Hearth gateway (it answered {status}); check --url"
        )

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise GatewayAbsent(f"no gateway answers at {self.url}; start one with `hearth serve`") from error
        except httpx.TimeoutException as error:
            raise ClientError(f"{self.url} did not answer in time; try again") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise ClientError(f"the connection to {self.url} failed: {error}") from error


def host_of(url: str) -> str:
    """Return the host in a gateway's address. Raises `ClientError` if the address is malformed."""
    try:
        parts = urlsplit(url)
        httpx.URL(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts.hostname
    except (ValueError, httpx.InvalidURL):
        pass
    raise ClientError(f"{url} is not a gateway's address; use one like {DEFAULT_URL}")


def invoke_path(function: str, path: str = "") -> str:
    """Return the path of a function in the API. `path` follows its name, and may begin with a slash."""
    sub_path = "/" + path.removeprefix("/") if path else ""
    return f"/invoke/{quote(function, safe='')}{sub_path}"


def _events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield id and data of each server-sent event. The gateway writes data on one line, behind the id."""
    id = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "id":
            id = value
        elif name == "data":
            yield id, json.loads(value)
            id = ""


def is_problem(response: httpx.Response) -> bool:
    """Return whether the content type of an error is that of a problem."""
    return response.is_error and response.headers.get("content-type", "").startswith(
        "application/problem+json"
    )


def raise_if_refused(response: httpx.Response) -> None:
    """Raise `Refused` if the response, whose body was read, contains one of Hearth's problems."""
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
            str(problem["type"]).removeprefix(PROBLEM_TYPE),
        )
