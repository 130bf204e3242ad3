"""A program for images of the engine in memory that is to a gateway what `runtimes/python/shim.py` is.

It knows as much of docs/runtime-protocol.md as the tests of deploying need: one slot, and handlers in one file.
"""

from __future__ import annotations

import asyncio
import json
import os
import traceback
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any

from pool.engine.labels import SOCKETS_FOLDER
from pool.engine.memory_process import Process
from pool.transport.socket_folder import CALLS_SOCKET, LOG_SOCKET

Handler = Callable[[Any, Any], Any]


async def run_shim(process: Process) -> int:
    """Dial the gateway, become a function, and serve its calls until the connection ends."""
    _, log = await dial(process, LOG_SOCKET)
    reader, calls = await dial(process, CALLS_SOCKET)
    handler: Handler | None = None
    try:
        while True:
            asked, body = await read_request(reader)
            try:
                if asked == "/specialise":
                    handler = imported(json.loads(body))
                    answer: object = {"slots": 1}
                else:
                    assert handler is not None
                    answer = handler(json.loads(body or b"null"), None)
            except Exception as error:
                log.write(traceback.format_exc().encode())
                await log.drain()
                said = {"type": type(error).__name__, "message": str(error)}
                write_answer(calls, 500, said, b"x-hearth-outcome: import-error\r\n")
            else:
                write_answer(calls, 200, answer)
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0
    finally:
        calls.close()
        log.close()


async def dial(process: Process, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a socket of the folder that is mounted; its path may be longer than a socket's may be."""
    [source] = [mount.source for mount in process.spec.mounts if mount.target == SOCKETS_FOLDER]
    folder = os.open(source, os.O_RDONLY)
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{name}")
    finally:
        os.close(folder)


async def read_request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Return the target and the body of the next request. Raises IncompleteReadError at the end."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = head.lower().partition("content-length:")[2].split()[:1]
    return head.split()[1], await reader.readexactly(int(length[0]) if length else 0)


def write_answer(writer: asyncio.StreamWriter, status: int, answer: object, lines: bytes = b"") -> None:
    """Write an answer in JSON."""
    body = json.dumps(answer).encode()
    writer.write(b"HTTP/1.1 %d X\r\n%bcontent-length: %d\r\n\r\n%b" % (status, lines, len(body), body))


def imported(order: Mapping[str, Any]) -> Handler:
    """Return the handler of an order. Raises what its code raises."""
    module, _, name = order["handler"].partition(":")
    files = {path: b64decode(data) for path, data in order["files"]}
    names: dict[str, Any] = {}
    exec(compile(files[f"{module}.py"], f"/function/{module}.py", "exec"), names)
    handler: Handler = names[name]
    return handler
