"""Runs an accepted call through the invoke endpoint, as if a client that reads everything at once had sent it."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.background import BACKGROUND, Background
from gateway.body import Message
from gateway.invoke import PREFIX, InvokeEndpoint
from pool.logs import LogStore
from scheduler.durable.model import Claim, HeaderList, Result


class Caller:
    """What a `Worker` runs calls with."""

    def __init__(self, endpoint: InvokeEndpoint, logs: LogStore) -> None:
        self._endpoint = endpoint
        self._logs = logs

    async def __call__(self, claim: Claim) -> Result:
        """One run, to its end."""
        call = claim.call
        background = Background(call.id, claim.attempt, call.terms.timeout, call.terms.context)
        path = PREFIX + call.function.encode() + (b"/" + call.sub_path if call.sub_path else b"")
        scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": call.method,
            "scheme": "http",
            "path": path.decode("latin-1"),
            "raw_path": path,
            "query_string": call.query,
            "headers": list(call.headers),
            "client": (call.client, 0) if call.client else None,
            "server": None,
            BACKGROUND: background,
        }
        exchange = _Exchange(call.body)
        await self._endpoint(scope, exchange.receive, exchange.send)
        log = self._logs.read(call.id) or b""
        problem = background.problem
        if problem is not None:
            body = problem.body(call.id)
            headers = problem.response_headers(body)
            return Result(problem.status, headers, body, problem.slug, problem.detail, problem.blame, log)
        return Result(exchange.status, exchange.headers, b"".join(exchange.pieces), log=log)


class _Exchange:
    """Both ends of a client that has sent everything and stays."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self.status = 0
        self.headers: HeaderList = []
        self.pieces: list[bytes] = []

    async def receive(self) -> Message:
        """ASGI."""
        if self._body is None:
            await asyncio.get_running_loop().create_future()  # it never leaves
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        """ASGI."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
        elif piece := message.get("body"):
            self.pieces.append(bytes(piece))
