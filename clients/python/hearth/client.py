"""A client for threads. `AsyncClient` is the same for asyncio."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Mapping
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import httpx

from hearth import conversations
from hearth.address import Address
from hearth.conversations import LOOKAHEAD
from hearth.errors import HearthError
from hearth.response import LogLine, Response
from hearth.stream import Stream
from hearth.transport import Transport
from hearth.wire import ApiRequest, Call, get, part


class Work:
    """Something that a gateway does by itself: an accepted call, a run of a workflow, a job."""

    kind = ""

    def __init__(self, transport: Transport, id: str) -> None:
        self._transport = transport
        self.id = id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    @property
    def path(self) -> str:
        """Return its place in the API."""
        return f"/{self.kind}/{part(self.id)}"

    def record(self) -> dict[str, Any]:
        """Return all that the gateway says about it."""
        return dict(self._transport.run(get(self.path)))

    def status(self) -> str:
        """Return its status, as docs/async.md, docs/workflows.md and docs/jobs.md list them."""
        return str(self.record()["status"])

    def done(self) -> bool:
        """Return whether it has ended."""
        return self.status() not in conversations.UNFINISHED

    def wait(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait until it has ended, and return its record. Raises `NotFinished` after `timeout` seconds."""
        return self._transport.run(conversations.ended(self.path, timeout))


class Future(Work):
    """A call that the gateway has accepted, and runs by itself."""

    kind = "invocations"

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the call and return its value. Raises as `Client.call` does, `NotFinished` and `CallEnded`."""
        return self.response(timeout).result()

    def response(self, timeout: float | None = None) -> Response:
        """Wait for the call and return its answer, whatever its status. Raises `NotFinished` and `HearthError`."""
        return self._transport.run(conversations.answer_of(self.id, timeout))

    def cancel(self) -> bool:
        """Cancel the call. A running one is interrupted. Return False if it had ended already."""
        return self._transport.run(conversations.stop(ApiRequest("DELETE", self.path)))

    def logs(self) -> str:
        """Return what the call has printed."""
        return self._transport.run(conversations.log_of(self.id))

    def retry(self) -> None:
        """Run the call again, with all its attempts. Raises `Conflict` if it has not ended."""
        self._transport.run(conversations.again(f"{self.path}/retry"))


class Run(Work):
    """A run of a workflow."""

    kind = "runs"

    def output(self, timeout: float | None = None) -> Any:
        """Wait for the run and return its output. Raises `NotFinished`, and `CallEnded` if it did not succeed."""
        return self._transport.run(conversations.output_of(self.id, timeout))

    def cancel(self) -> bool:
        """Cancel the run. Return False if it had ended already."""
        if self.done():
            return False  # the same request would forget a run that has ended
        return self._transport.run(conversations.stop(ApiRequest("DELETE", self.path)))

    def resume(self) -> None:
        """Go on with a run that has failed or was cancelled. Raises `Conflict` for any other."""
        self._transport.run(conversations.again(f"{self.path}/resume"))


class Job(Work):
    """A batch of tasks."""

    kind = "jobs"

    def tasks(self, status: str | None = None) -> list[dict[str, Any]]:
        """Return its tasks by index, or those with one status."""
        return self._transport.run(conversations.all_tasks(self.id, status))

    def cancel(self) -> bool:
        """Cancel the job. Return False if it had ended already."""
        return self._transport.run(conversations.stop(ApiRequest("POST", f"{self.path}/cancel")))

    def retry(self) -> None:
        """Run the tasks again that have not succeeded. Raises `Conflict` if the job has not ended."""
        self._transport.run(conversations.again(f"{self.path}/retry"))


class Workflows:
    """The workflows of a gateway."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def start(self, name: str, data: Any = None, *, key: str | None = None) -> Run:
        """Start a run with this input. The same key starts it once in 24 hours."""
        return self.run(self._transport.run(conversations.start_run(name, data, key)))

    def run(self, id: str) -> Run:
        """Return an earlier run by its id. Asks nothing."""
        return Run(self._transport, id)


class Jobs:
    """The jobs of a gateway."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def run(
        self,
        job: str | Mapping[str, Any],
        *,
        inputs: Iterable[Any] | None = None,
        count: int | None = None,
        key: str | None = None,
        **more: Any,
    ) -> Job:
        """Start a job of functions.yaml by its name, or the job that a mapping defines with the keys of docs/jobs.md.

        `more` are further keys. The same `key` starts it once in 24 hours.
        """
        definition = conversations.job_definition(job, {"inputs": inputs, "count": count, **more})
        return self.job(self._transport.run(conversations.start_job(definition, key)))

    def job(self, id: str) -> Job:
        """Return an earlier job by its id. Asks nothing."""
        return Job(self._transport, id)


class Client:
    """A connection to one gateway. Threads may share it. Close it, or use it with `with`.

    Without `url` it is HEARTH_URL, else http://127.0.0.1:8080. Without `key` it is in the file HEARTH_API_KEY_FILE,
    else HEARTH_API_KEY. Raises `ValueError` for a malformed one. `transport` replaces the network, for tests.
    """

    def __init__(
        self, url: str | None = None, key: str | None = None, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._transport = Transport(Address.find(url, key), transport)
        self.workflows = Workflows(self._transport)
        self.jobs = Jobs(self._transport)

    @property
    def url(self) -> str:
        """Return the gateway's address."""
        return self._transport.address.url

    def call(
        self,
        function: str,
        data: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Call a function and return its answer as a value: parsed JSON, text or bytes.

        `data` is what a handler gets as its event. `timeout` bounds the gateway's silence, in seconds. Raises
        `FunctionAnswered` if the function answers with another status than 2xx, and `HearthError` for every problem.
        """
        return self.invoke(function, data, headers=headers, timeout=timeout).result()

    def invoke(
        self,
        function: str,
        data: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
        path: str = "",
        query: str | Mapping[str, str] = "",
        timeout: float | None = None,
    ) -> Response:
        """Call a function and return its whole answer, whatever its status. Raises `HearthError` for a problem."""
        wanted = Call(function, data, headers or {}, method, path, query, timeout)
        return self._transport.run(conversations.call(wanted))

    def stream(
        self,
        function: str,
        data: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
        path: str = "",
        query: str | Mapping[str, str] = "",
        timeout: float | None = None,
    ) -> Stream:
        """Return the answer of a function as it comes. The call begins when the stream is entered or iterated."""
        wanted = Call(function, data, headers or {}, method, path, query, timeout)
        return Stream(self._transport, wanted.request())

    def submit(
        self,
        function: str,
        data: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Future:
        """Have the gateway keep a call on disk and run it by itself. It is not lost any more when this returns.

        The same `key` gives the same call for 24 hours. Without it, each submit is a call of its own.
        """
        wanted = Call(function, data, headers or {})
        return self.future(self._transport.run(conversations.submit(wanted, key)))

    def future(self, id: str) -> Future:
        """Return an accepted call by its id, for example of an earlier process. Asks nothing."""
        return Future(self._transport, id)

    def map(
        self,
        function: str,
        items: Iterable[Any],
        *,
        concurrency: int = 16,
        errors: Literal["raise", "return"] = "raise",
        headers: Mapping[str, str] | None = None,
    ) -> Generator[Any, None, None]:
        """Call a function for each item, at most `concurrency` at once, and yield the values in the items' order.

        With errors="return", a call that failed yields its `HearthError`. Else the first failure in the items' order
        is raised, and calls that have not begun are not made.
        """

        def one(wanted: Call) -> Any:
            try:
                return self._transport.run(conversations.call(wanted)).result()
            except HearthError as error:
                if errors == "raise":
                    raise
                return error

        due: deque[futures.Future[Any]] = deque()
        with ThreadPoolExecutor(concurrency) as threads:
            try:
                for wanted in conversations.calls_of(function, items, headers):
                    due.append(threads.submit(one, wanted))
                    if len(due) >= concurrency * LOOKAHEAD:
                        yield due.popleft().result()
                while due:
                    yield due.popleft().result()
            finally:
                threads.shutdown(wait=False, cancel_futures=True)

    def emit(
        self,
        event: str | Mapping[str, Any],
        data: Any = None,
        *,
        source: str | None = None,
        subject: str | None = None,
    ) -> dict[str, Any]:
        """Publish a CloudEvent: its type and data, or a mapping of its attributes. Return what it has started."""
        made = conversations.event_of(event, data, source, subject)
        return self._transport.run(conversations.publish(made))

    def functions(self) -> list[dict[str, Any]]:
        """Return the deployed functions, with their states and faults."""
        return list(self._transport.run(get("/functions")))

    def logs(
        self,
        function: str | None = None,
        *,
        invocation: str | None = None,
        since: str | None = None,
        until: str | None = None,
        grep: str | None = None,
        limit: int | None = None,
        follow: bool = False,
    ) -> Generator[LogLine, None, None]:
        """Yield lines of output, oldest first: of one function, of one call, or of all that the key may see.

        `since` and `until` are a duration before now, as "10m", or a time (RFC 3339). `grep` is a text that a line
        has. `limit` is for the latest lines. With `follow`, lines that are printed later come too.
        """
        wanted = {
            "function": function,
            "invocation": invocation,
            "since": since,
            "until": until,
            "grep": grep,
            "limit": limit,
        }
        stream = Stream(self._transport, conversations.output_lines(wanted, follow))
        for line in stream.values():
            yield LogLine.read(line)

    def output(self, invocation: str) -> str:
        """Return what a call has printed."""
        return self._transport.run(conversations.log_of(invocation))

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
