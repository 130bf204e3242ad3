"""Handlers, each for one thing that a handler may do, and the calls that they get: `CASES`.

`hearth.testing` and a real gateway run the same cases. In the gateway this file is the function's code.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

OF_CLIENTS = {"host", "user-agent", "accept", "accept-encoding", "connection", "x-forwarded-host"}
"""Fields that differ between one HTTP client and another."""


def echo(event: Any, context: Any) -> Any:
    return repr(event)


def told(event: Any, context: Any) -> Any:
    headers = {name: value for name, value in context.headers.items() if name not in OF_CLIENTS}
    assert headers.pop("x-invocation-id") == context.invocation_id
    assert context.headers["Content-Length"] == headers["content-length"]
    assert 0 < context.remaining() <= 30 and context.function and context.version
    return [headers, context.method, context.path, context.query_string, context.query]


def typed(event: Any, context: Any) -> Any:
    from hearth import Context

    return isinstance(context, Context)


def text(event: Any, context: Any) -> Any:
    return "grüße"


def data(event: Any, context: Any) -> Any:
    return bytearray(b"\x00\xff")


def null(event: Any, context: Any) -> Any:
    return None


def nested(event: Any, context: Any) -> Any:
    return {"list": [1, 2.5, None, True, "ü"], "empty": {}}


def created(event: Any, context: Any) -> Any:
    return {"id": 1}, 201, {"Location": "/notes/1", "X-Own": "1"}


def repeated(event: Any, context: Any) -> Any:
    return "a", 200, [("Link", "</a>; rel=next"), ("Link", "</b>; rel=prev"), ("Vary", "accept")]


def forbidden_fields(event: Any, context: Any) -> Any:
    names = "X-Hearth-Start", "Set-Cookie", "Connection", "Server", "X-Accel-Redirect", "Refresh", "Date"
    fields = dict.fromkeys(names, "1")
    return "<p>", 200, {**fields, "Content-Type": "text/html; charset=utf-8; charset=utf-7", "X_Own": "2"}


def active_link(event: Any, context: Any) -> Any:
    return "a", 302, {"Location": "javascript:alert(1)", "Content-Type": "multipart/x-mixed-replace"}


def typed_itself(event: Any, context: Any) -> Any:
    return b"<svg/>", 200, {"content-type": "image/svg+xml"}


def own_error(event: Any, context: Any) -> Any:
    return {"error": "no such note"}, 404


def own_fault(event: Any, context: Any) -> Any:
    return "broken", 500


def no_content(event: Any, context: Any) -> Any:
    return "dropped", 204


def not_modified(event: Any, context: Any) -> Any:
    return None, 304, {"ETag": '"1"'}


def raises(event: Any, context: Any) -> Any:
    print("before")
    raise KeyError("näme")


def leaves(event: Any, context: Any) -> Any:
    sys.exit("bye")


def unsendable(event: Any, context: Any) -> Any:
    return {1, 2}


def not_a_number(event: Any, context: Any) -> Any:
    return float("nan")


def half_a_pair(event: Any, context: Any) -> Any:
    raise ValueError("\ud800")


def bad_status(event: Any, context: Any) -> Any:
    return "a", 700


def bad_name(event: Any, context: Any) -> Any:
    return "a", 200, {"a b": "c"}


def bad_value(event: Any, context: Any) -> Any:
    return "a", 200, {"x-a": "b\r\nc: d"}


def long_tuple(event: Any, context: Any) -> Any:
    return 1, 2, 3, 4


async def later(event: Any, context: Any) -> Any:
    await asyncio.sleep(0)
    print("from a task")
    return event


async def later_raises(event: Any, context: Any) -> Any:
    await asyncio.sleep(0)
    raise RuntimeError("later")


def lines(event: Any, context: Any) -> Iterator[Any]:
    yield {"n": 1}
    yield [2]


def texts(event: Any, context: Any) -> Iterator[Any]:
    yield "one "
    yield ""
    yield "two"


def nothing(event: Any, context: Any) -> Iterator[Any]:
    yield from ()


def server_sent(event: Any, context: Any) -> Any:
    return (f"data: {n}\n\n" for n in range(3)), 200, {"content-type": "text/event-stream"}


async def ticks(event: Any, context: Any) -> AsyncIterator[Any]:
    yield b"a"
    await asyncio.sleep(0)
    yield b"b"


def fails_at_once(event: Any, context: Any) -> Iterator[Any]:
    if event is None:
        raise LookupError("first")
    yield "never"


def fails_later(event: Any, context: Any) -> Iterator[Any]:
    yield "a"
    yield "b"
    raise LookupError("in the middle")


def prints(event: Any, context: Any) -> Any:
    print("out", "grüße", "\ud800")
    print("err", file=sys.stderr)
    sys.stdout.buffer.write(b"bytes\n")
    sys.stdout.write("half a line")


def prints_too_much(event: Any, context: Any) -> Any:
    print("x" * 300_000)
    print("not seen")


def runs_a_program(event: Any, context: Any) -> Any:
    return subprocess.run([sys.executable, "-c", "print(1)"], stdout=subprocess.PIPE, check=True).stdout


@dataclass(frozen=True)
class Case:
    """One call: of a handler of this file, with these arguments of `hearth.testing.invoke`."""

    handler: str
    event: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"
    query: str = ""

    @property
    def name(self) -> str:
        """Return a name for the report of a test."""
        given = (self.method, self.event, self.query, *self.headers.values())
        return "-".join([self.handler, *(str(one)[:16] for one in given if one not in (None, "", "POST"))])


JSON = {"content-type": "application/json"}
EVENTS: tuple[Any, ...] = (
    {"a": [1, None]},
    [],
    "text",
    3,
    2.5,
    False,
    b"\x00\xff",
    b'{"a": 1}',
    "",
    {"ü": "\n"},
)
WITHOUT_ARGUMENTS = """
typed text data null nested created repeated forbidden_fields active_link typed_itself own_error
own_fault no_content not_modified raises leaves unsendable not_a_number half_a_pair bad_status
bad_name bad_value long_tuple later_raises lines texts nothing server_sent ticks fails_at_once
fails_later prints prints_too_much runs_a_program
""".split()  # noqa: SIM905
CASES = [
    *(Case("echo", event) for event in EVENTS),
    Case("echo", None),
    Case("echo", b"", JSON),
    Case("echo", b"{", JSON),
    Case("echo", b"NaN", JSON),
    Case("echo", b"\xff", {"content-type": "application/problem+json; charset=utf-8"}),
    Case("echo", b"[" * 200_000, JSON),
    Case("echo", b"{", {"content-type": "application/x-www-form-urlencoded"}),
    Case("echo", b"3", {"content-type": "application/x-www-form-urlencoded"}),
    Case("echo", "a,b", {"content-type": "text/csv"}),
    Case("echo", "a", method="GET"),
    Case("echo", method="HEAD"),
    Case("echo", method="DELETE"),
    Case("told", {"a": 1}, {"X-Own": "1", "x_own": "2", "X-Hearth-Start": "warm", "Forwarded": "for=me"}),
    Case("told", b"x", {"Cookie": "a=b", "TE": "trailers", "X-Listed": "1", "X-Invocation-Id": "mine"}),
    Case("told", query="a=1&b=%20&a=2&c"),
    *map(Case, WITHOUT_ARGUMENTS),
    Case("later", {"a": 1}),
]  # fmt: skip


def handle(event: Any, context: Any) -> Any:
    """Call the handler that the header names, as the gateway would call it by itself."""
    name = context.headers.pop("x-case")
    return globals()[name](event, context)
