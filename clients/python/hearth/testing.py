"""Test a handler as the gateway would call it, without a gateway and without a container.

from hearth.testing import invoke
from handler import handle

def test_it_greets() -> None:
    assert invoke(handle, {"name": "Ada"}).value == {"message": "Hello, Ada!"}
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from threading import Thread
from typing import Any
from urllib.parse import urlencode

import httpx

from hearth import _gateway_part as gateway
from hearth._instance import (
    BufferSocket,
    CapturedLog,
    Handler,
    HandlerAnswer,
    HandlerInstance,
    request_bytes,
)
from hearth.errors import ConnectionLost
from hearth.response import Response
from hearth.values import encode

DEFAULT_TIMEOUT_SECONDS = 30.0
"""Time that a handler sees in `context.remaining()`: the default of `timeout` in functions.yaml."""

__all__ = ["CapturedResponse", "invoke"]


class CapturedResponse(Response):
    """The gateway's answer to a call, and beside it what only a test sees."""

    def __init__(self, status: int, headers: gateway.Pairs, body: bytes, complete: bool = True) -> None:
        super().__init__(status, httpx.Headers(headers), body)
        self.complete = complete
        """False if the answer was cut: the handler failed, or ran out of time, in the middle of a stream."""
        self.log = ""
        """Output of the call, as `hearth logs ID` shows it."""
        self.exception: BaseException | None = None
        """The exception that the handler raised, or the one that its result led to."""

    def result(self) -> Any:
        """Return the value of an answer with status 2xx. Raises `HearthError` as `Client.call` does."""
        if not self.complete:
            raise ConnectionLost("the answer was cut: the handler failed in the middle of its stream")
        return super().result()


def invoke(
    handler: Handler,
    event: Any = None,
    *,
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
    query: str | Mapping[str, str] = "",
    function: str = "",
    version: str = "test",
    timeout: float | None = None,
) -> CapturedResponse:
    """Call a handler, and return the answer that the gateway would give.

    `event` is what the handler gets: JSON values, bytes, or None. To send a body as it is, give bytes and a content
    type in `headers`. `function` is the name in the context, by default the handler's own.

    The handler runs in this thread, and `context.remaining()` starts at 30 seconds. With `timeout`, in seconds, it
    runs in another thread. If it takes longer, the answer is the problem `timeout`; the thread itself goes on.
    """
    name = function or getattr(handler, "__name__", "handler")
    invocation = secrets.token_hex(16)
    body, fields = encode(event, headers)
    given = gateway.caller_fields({"host": gateway.HOST, **fields})
    try:
        gateway.check_method(name, method, "")
    except gateway.Refusal as refusal:
        return _captured(gateway.refuse(refusal, invocation), method)
    deadline = DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout
    told = gateway.told_headers(given, invocation, deadline)
    sock = BufferSocket(request_bytes(query if isinstance(query, str) else urlencode(query), told, body))
    log = CapturedLog()
    began = time.perf_counter()
    _run(HandlerInstance(name, version, handler, log), sock, timeout)
    if isinstance(log.fault, KeyboardInterrupt):
        raise log.fault
    seconds = time.perf_counter() - began
    if sock.answer:
        answer = gateway.pass_on(HandlerAnswer(BufferSocket(bytes(sock.answer))), invocation, seconds)
    else:
        answer = gateway.refuse(gateway.ran_out(name, deadline), invocation, seconds)
    response = _captured(answer, method)
    response.log, response.exception = log.kept.decode(errors="replace"), log.fault
    return response


def _run(instance: HandlerInstance, sock: BufferSocket, timeout: float | None) -> None:
    """Have an instance answer a request, or wait only `timeout` seconds for it."""
    if timeout is None:
        instance.answer(sock)
        return
    thread = Thread(target=instance.answer, args=(sock,), daemon=True)
    thread.start()
    thread.join(timeout)


def _captured(answer: gateway.Answer, method: str) -> CapturedResponse:
    body, complete = bytearray(), True
    try:
        for piece in answer.pieces:
            body += piece
    except ConnectionError:
        complete = False
    return CapturedResponse(answer.status, answer.headers, b"" if method == "HEAD" else bytes(body), complete)
