"""A client for asyncio: `Client`, with `await`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, Literal

import httpx

from hearth import conversations
from hearth.address import Address
from hearth.conversations import LOOKAHEAD
from hearth.errors import HearthError
from hearth.response import LogLine, Response
from hearth.stream import AsyncStream
from hearth.transport import AsyncTransport
from hearth.wire import ApiRequest, Call, get, part


class AsyncWork:
    """Something that a gateway does by itself: an accepted call, a run of a workflow, a job."""

    kind = ""

    def __init__(self, transport: AsyncTransport, id: str) -> None:
        self._transport = transport
        self.id = id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    @property
    def path(self) -> str:
        """Return its place in the API."""
        return f"/{self.kind}/{part(self.id)}"

    async def record(self) -> dict[str, Any]:
        """Return all that the gateway says about it."""
        return dict(await self._transport.run(get(self.path)))

    async def status(self) -> str:
        """Return its status, as docs/async.md, docs/workflows.md and docs/jobs.md list them."""
        return str((await self.record())["status"])

    async def done(self) -> bool:
        """Return whether it has ended."""
        return (await self.status()) not in conversations.UNFINISHED

    async def wait(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait until it has ended, and return its record. Raises `NotFinished` after `timeout` seconds."""
        return await self._transport.run(conversations.ended(self.path, timeout))


class AsyncFuture(AsyncWork):
    """A call that the gateway has accepted, and runs by itself."""

    kind = "invocations"

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the call and return its value. Raises as `Client.call` does, `NotFinished` and `CallEnded`."""
        return (await self.response(timeout)).result()

    async def response(self, timeout: float | None = None) -> Response:
        """Wait for the call and return its answer, whatever its status. Raises `NotFinished` and `HearthError`."""
        return await self._transport.run(conversations.answer_of(self.id, timeout))

    async def cancel(self) -> bool:
        """Cancel the call. A running one is interrupted. Return False if it had ended already."""
        return await self._transport.run(conversations.stop(ApiRequest("DELETE", self.path)))

    async def logs(self) -> str:
        """Return what the call has printed."""
        return await self._transport.run(conversations.log_of(self.id))

    async def retry(self) -> None:
        """Run the call again, with all its attempts. Raises `Conflict` if it has not ended."""
        await self._transport.run(conversations.again(f"{self.path}/retry"))


class AsyncRun(AsyncWork):
    """A run of a workflow."""

    kind = "runs"

    async def output(self, timeout: float | None = None) -> Any:
        """Wait for the run and return its output. Raises `NotFinished`, and `CallEnded` if it did not succeed."""
        return await self._transport.run(conversations.output_of(self.id, timeout))

    async def cancel(self) -> bool:
        """Cancel the run. Return False if it had ended already."""
        if await self.done():
            return False  # the same request would forget a run that has ended
        return await self._transport.run(conversations.stop(ApiRequest("DELETE", self.path)))

    async def resume(self) -> None:
        """Go on with a run that has failed or was cancelled. Raises `Conflict` for any other."""
        await self._transport.run(conversations.again(f"{self.path}/resume"))


class AsyncJob(AsyncWork):
    """A batch of tasks."""

    kind = "jobs"

    async def tasks(self, status: str | None = None) -> list[dict[str, Any]]:
        """Return its tasks by index, or those with one status."""
        return await self._transport.run(conversations.all_tasks(self.id, status))

    async def cancel(self) -> bool:
        """Cancel the job. Return False if it had ended already."""
        return await self._transport.run(conversations.stop(ApiRequest("POST", f"{self.path}/cancel")))

    async def retry(self) -> None:
        """Run the tasks again that have not succeeded. Raises `Conflict` if the job has not ended."""
        await self._transport.run(conversations.again(f"{self.path}/retry"))


class AsyncWorkflows:
    """The workflows of a gateway."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def start(self, name: str, data: Any = None, *, key: str | None = None) -> AsyncRun:
        """Start a run with this input. The same key starts it once in 24 hours."""
        return self.run(await self._transport.run(conversations.start_run(name, data, key)))

    def run(self, id: str) -> AsyncRun:
        """Return an earlier run by its id. Asks nothing."""
        return AsyncRun(self._transport, id)


class AsyncJobs:
    """The jobs of a gateway."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def run(
        self,
        job: str | Mapping[str, Any],
        *,
        inputs: Iterable[Any] | None = None,
        count: int | None = None,
        key: str | None = None,
        **more: Any,
    ) -> AsyncJob:
        """Start a job of functions.yaml by its name, or the job that a mapping defines with the keys of docs/jobs.md.

        `more` are further keys. The same `key` starts it once in 24 hours.
        """
        definition = conversations.job_definition(job, {"inputs": inputs, "count": count, **more})
        return self.job(await self._transport.run(conversations.start_job(definition, key)))

    def job(self, id: str) -> AsyncJob:
        """Return an earlier job by its id. Asks nothing."""
        return AsyncJob(self._transport, id)


class AsyncClient:
    """A connection to one gateway. Tasks may share it. Close it, or use it with `async with`.

    Without `url` it is HEARTH_URL, else http://127.0.0.1:8080. Without `key` it is in the file HEARTH_API_KEY_FILE,
    else HEARTH_API_KEY. Raises `ValueError` for a malformed one. `transport` replaces the network, for tests.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._transport = AsyncTransport(Address.find(url, key), transport)
        self.workflows = AsyncWorkflows(self._transport)
        self.jobs = AsyncJobs(self._transport)

    @property
    def url(self) -> str:
        """Return the gateway's address."""
        return self._transport.address.url

    async def call(
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
        return (await self.invoke(function, data, headers=headers, timeout=timeout)).result()

    async def invoke(
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
        return await self._transport.run(conversations.call(wanted))

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
    ) -> AsyncStream:
        """Return the answer of a function as it comes. The call begins when the stream is entered or iterated."""
        wanted = Call(function, data, headers or {}, method, path, query, timeout)
        return AsyncStream(self._transport, wanted.request())

    async def submit(
        self,
        function: str,
        data: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncFuture:
        """Have the gateway keep a call on disk and run it by itself. It is not lost any more when this returns.

        The same `key` gives the same call for 24 hours. Without it, each submit is a call of its own.
        """
        wanted = Call(function, data, headers or {})
        return self.future(await self._transport.run(conversations.submit(wanted, key)))

    def future(self, id: str) -> AsyncFuture:
        """Return an accepted call by its id, for example of an earlier process. Asks nothing."""
        return AsyncFuture(self._transport, id)

    async def map(
        self,
        function: str,
        items: Iterable[Any],
        *,
        concurrency: int = 16,
        errors: Literal["raise", "return"] = "raise",
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Call a function for each item, at most `concurrency` at once, and yield the values in the items' order.

        With errors="return", a call that failed yields its `HearthError`. Else the first failure in the items' order
        is raised, and no further call is made; those that run are left.
        """
        if concurrency < 1:
            raise ValueError("concurrency must be greater than 0")
        slots = asyncio.Semaphore(concurrency)

        async def one(wanted: Call) -> Any:
            try:
                async with slots:
                    return (await self._transport.run(conversations.call(wanted))).result()
            except HearthError as error:
                if errors == "raise":
                    raise
                return error

        due: deque[asyncio.Task[Any]] = deque()
        try:
            for wanted in conversations.calls_of(function, items, headers):
                due.append(asyncio.create_task(one(wanted)))
                if len(due) >= concurrency * LOOKAHEAD:
                    yield await due.popleft()
            while due:
                yield await due.popleft()
        finally:
            for task in due:
                task.cancel()
            await asyncio.gather(*due, return_exceptions=True)

    async def emit(
        self,
        event: str | Mapping[str, Any],
        data: Any = None,
        *,
        source: str | None = None,
        subject: str | None = None,
    ) -> dict[str, Any]:
        """Publish a CloudEvent: its type and data, or a mapping of its attributes. Return what it has started."""
        made = conversations.event_of(event, data, source, subject)
        return await self._transport.run(conversations.publish(made))

    async def functions(self) -> list[dict[str, Any]]:
        """Return the deployed functions, with their states and faults."""
        return list(await self._transport.run(get("/functions")))

    async def logs(
        self,
        function: str | None = None,
        *,
        invocation: str | None = None,
        since: str | None = None,
        until: str | None = None,
        grep: str | None = None,
        limit: int | None = None,
        follow: bool = False,
    ) -> AsyncGenerator[LogLine, None]:
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
        stream = AsyncStream(self._transport, conversations.output_lines(wanted, follow))
        async for line in stream.values():
            yield LogLine.read(line)

    async def output(self, invocation: str) -> str:
        """Return what a call has printed."""
        return await self._transport.run(conversations.log_of(invocation))

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
