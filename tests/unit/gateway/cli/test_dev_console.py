"""The stream of `hearth dev`: one line a call, the output marked, places of the source, nothing for the terminal."""

from __future__ import annotations

import io
import logging
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.dev.console import DevConsole, Receive, Send

CAPTURED = pytest.CaptureFixture[str]
START = {"type": "http.response.start", "status": 200, "headers": [(b"x-hearth-start", b"warm")]}
PROBLEM = {
    "type": "http.response.start",
    "status": 500,
    "headers": [(b"content-type", b"application/problem+json")],
}


def scope(path: str) -> MutableMapping[str, Any]:
    return {"type": "http", "method": "POST", "path": path, "query_string": b"a=1"}


async def call(console: DevConsole, path: str, *messages: MutableMapping[str, Any]) -> None:
    """Have an app answer with these messages, watched."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        return

    await console.watch_calls(app)(scope(path), receive, send)


async def test_a_call_is_a_line_behind_its_output(capsys: CAPTURED) -> None:
    console = DevConsole(Path("hello"), plain=False)
    console.output("i1", b"one\nhalf")
    console.output("i2", b"other\n")
    console.output("i1", b" a line")
    await call(console, "/invoke/hello", START)
    *output, line = capsys.readouterr().out.splitlines()
    assert output == ["  | one", "  | other", "  | half a line"]
    assert line[8:].startswith(" POST /invoke/hello?a=1  200  ") and line.endswith(" ms  warm")
    await call(console, "/pool", START)
    assert capsys.readouterr().out == "", "only calls are shown"


async def test_a_closed_terminal_ends_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    console = DevConsole(None, plain=False)
    monkeypatch.setattr("sys.stdout", Closed())
    console.output("i1", b"one\n")
    await call(console, "/invoke/hello", START)
    console.handle(logging.LogRecord("hearth.stop", logging.INFO, "", 1, "Stopping", (), None))


async def test_a_problem_is_told(capsys: CAPTURED) -> None:
    console = DevConsole(None, plain=False)
    await call(
        console,
        "/invoke/hello",
        PROBLEM,
        {"type": "b", "body": b'{"detail": "Value'},
        {"type": "b", "body": b'Error: x"}'},
    )
    first, second = capsys.readouterr().out.splitlines()
    assert "  500  " in first and second.endswith(" ValueError: x")
    await call(console, "/invoke/hello")
    assert "  gone  " in capsys.readouterr().out, "the client left before the answer"


@pytest.mark.parametrize("folder", ["/function", "/tmp/hearth-dev-0/abc/processes/code/00000000000f"])
def test_places_are_those_of_the_source(capsys: CAPTURED, folder: str) -> None:
    console = DevConsole(Path("shop/hello"), plain=True)
    console.output("i", f'  File "{folder}/deep/handler.py", line 3\n  File "/usr/lib/x.py"\n'.encode())
    assert (
        capsys.readouterr().out
        == '  |   File "shop/hello/deep/handler.py", line 3\n  |   File "/usr/lib/x.py"\n'
    )


def test_output_cannot_control_the_terminal(capsys: CAPTURED) -> None:
    DevConsole(None, plain=False).output("i", b"\x1b[2J\tx\r\n\xff\n")
    assert capsys.readouterr().out == "  | \\x1b[2J\tx\n  | \ufffd\n"


def test_warnings_of_the_gateway_are_shown_and_its_news_are_not(capsys: CAPTURED) -> None:
    console = DevConsole(None, plain=False)
    for level, name in (
        (logging.INFO, "hearth"),
        (logging.WARNING, "hearth.invoke"),
        (logging.ERROR, "hearth.watch"),
    ):
        console.emit(logging.LogRecord(name, level, "", 0, "%s says\n%d", (name, level), None))
    assert capsys.readouterr().out[8:] == " hearth.watch says\\n40\n"
