"""What is called for hours: a function of every kind, and calls of them that carry a nonce and know their answer.

A function answers with what it was sent, so that an answer that belongs to another request is seen at once.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness import command, handler, server

ECHO = """
import time

VERSION = {version}

def handle(event, context):
    if isinstance(event, bytes):
        return event
    if event["print"]:
        print(event["nonce"])
    time.sleep(event["sleep"])
    return {{"nonce": event["nonce"], "version": VERSION, "invocation": context.invocation_id}}
"""
PACKED = """
import asyncio

async def handle(event, context):
    await asyncio.sleep(event["sleep"])
    return event["nonce"]
"""
ONCE = """
used = []

def handle(event, context):
    used.append(event)
    return used
"""
STREAM = """
import time

def handle(event, context):
    for number in range(event["pieces"]):
        yield event["nonce"] + " " + str(number) + "\\n"
        time.sleep(event["sleep"])
    yield "end"
"""
SITE = """
import http.server

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.path.encode() + b" " + self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *arguments):
        pass

http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""
JSON = "application/json"
BYTES = "application/octet-stream"

TIMEOUT = 3
"""Seconds that a call may execute under mischief; an instance that is stopped for longer costs its calls a 504."""


def functions(version: int, timeout: int = TIMEOUT) -> dict[str, dict[str, object]]:
    """What is declared. `echo` has code of its own in each version."""
    common: dict[str, object] = {"timeout": f"{timeout}s", "queue_timeout": "20s"}
    return {
        "echo": handler(ECHO.format(version=version), max_instances=4, **common),
        "packed": handler(PACKED, concurrency=8, max_instances=2, **common),
        "once": handler(ONCE, reuse=False, max_instances=2, **common),
        "stream": handler(STREAM, max_instances=2, **common),
        "site": server(SITE, concurrency=16, max_instances=2, **common),
        "cat": command("cat", max_instances=2, **common),
        "large": handler(PACKED, memory="640MiB", max_instances=1, **common),
    }


SLOTS = {"echo": 1, "packed": 8, "once": 1, "stream": 1, "site": 16, "cat": 1, "large": 1}
"""Calls that one instance has at most at a time, and that its death hurts."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that has arrived whole; its headers have names in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Question:
    """A call, and what its answer's body must be."""

    function: str
    path: str
    content_type: str
    body: bytes
    right: Callable[[bytes], bool]
    printed: str | None = None
    """What the call's log must be; None: it is not looked at."""

    def as_bytes(self) -> bytes:
        """The whole request."""
        head = (
            f"POST /invoke/{self.function}{self.path} HTTP/1.1\r\nhost: 127.0.0.1\r\n"
            f"content-type: {self.content_type}\r\ncontent-length: {len(self.body)}\r\n\r\n"
        )
        return head.encode() + self.body


def _json(function: str, right: Callable[[bytes], bool], **event: object) -> Question:
    printed = f"{event['nonce']}\n" if event.get("print") else None
    return Question(function, "", JSON, json.dumps(event).encode(), right, printed)


def echo(nonce: str, newest: Callable[[], tuple[int, int]], sleep: float = 0, say: bool = False) -> Question:
    """`newest` gives the version that was in service last, and the one that was declared last."""
    oldest, _ = newest()

    def right(body: bytes) -> bool:
        said = json.loads(body)
        return said["nonce"] == nonce and oldest <= said["version"] <= newest()[1]

    return _json("echo", right, nonce=nonce, sleep=sleep, print=say)


def large_echo(nonce: str, size: int) -> Question:
    """A body of `size` bytes, more than is read ahead, there and back."""
    body = (nonce.encode() * (size // len(nonce) + 1))[:size]
    return Question("echo", "", BYTES, body, lambda answer: answer == body)


def packed(nonce: str, sleep: float, function: str = "packed") -> Question:
    """A call that runs beside others in its instance."""
    return _json(function, lambda body: body.decode() == nonce, nonce=nonce, sleep=sleep)


def once(nonce: str) -> Question:
    """A call that must have its instance for itself."""
    return _json("once", lambda body: json.loads(body) == [{"nonce": nonce}], nonce=nonce)


def stream(nonce: str, pieces: int, sleep: float = 0) -> Question:
    """An answer in so many pieces, with a pause after each."""
    whole = "".join(f"{nonce} {number}\n" for number in range(pieces)) + "end"
    return _json("stream", lambda body: body.decode() == whole, nonce=nonce, pieces=pieces, sleep=sleep)


def site(nonce: str) -> Question:
    """A call of an HTTP server, which answers with the path and the body."""
    path, body = f"/{nonce}?n={nonce}", nonce.encode()
    return Question("site", path, BYTES, body, lambda answer: answer == path.encode() + b" " + body)


def cat(nonce: str) -> Question:
    """A run of a command."""
    return Question("cat", "", BYTES, nonce.encode(), lambda answer: answer == nonce.encode())


def nonces(prefix: str) -> Iterator[str]:
    """Nonces that nobody else has, if nobody has the prefix."""
    number = 0
    while True:
        number += 1
        yield f"{prefix}-{number:x}"


def quick_question(
    chance: random.Random, nonce: str, newest: Callable[[], tuple[int, int]], mischief: bool
) -> Question:
    """What most clients call: mostly a short warm call of a handler. Under `mischief` some are long, to be hit."""
    dice, longest = chance.random(), 0.15 if mischief else 0.03
    if dice < 0.72:
        return echo(nonce, newest)
    if dice < 0.73:
        return echo(nonce, newest, say=True)
    if dice < 0.78:
        return echo(nonce, newest, sleep=chance.uniform(0, longest))
    if dice < 0.785:
        return large_echo(nonce, chance.randrange(1, 500_000))
    if dice < 0.90:
        return packed(nonce, chance.choice((0, 0, 0, longest / 3)))
    if dice < 0.97:
        return site(nonce)
    return stream(nonce, chance.randrange(50), chance.choice((0, 0, 0.002)))


def heavy_question(chance: random.Random, nonce: str, mischief: bool) -> Question:
    """What costs a container each time, or, under `mischief`, takes the memory of the others."""
    dice = chance.random()
    if mischief and dice < 0.2:
        return packed(nonce, 0, "large")
    return once(nonce) if dice < 0.6 else cat(nonce)
