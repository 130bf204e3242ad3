"""Runs a command of `hearth` as on a terminal of a given width, beside a gateway that gives recorded answers.

Time zone, time, folder and answers are fixed. So the same command prints the same every time.
"""

from __future__ import annotations

import functools
import io
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import httpx

from gateway.cli import common, main
from gateway.cli.client import GatewayClient
from gateway.cli.log_format import QUIET
from gateway.cli.watch import watching

ZONE = "Europe/Berlin"
FOLDER = "/home/ada/shop"
"""Stands in snapshots for the folder in which a command ran."""

Answer = Callable[[httpx.Request], httpx.Response]


@dataclass(frozen=True)
class MadeAnew:
    """A patch that is made for each showing of a scene, because it changes meanwhile."""

    make: Callable[[], object]


@dataclass(frozen=True)
class Scene:
    """One command line, and everything that decides what it prints."""

    line: str
    """As in a shell, without `hearth`. Words with spaces are not needed."""
    answers: Mapping[str, Any] = field(default_factory=dict)
    """JSON, or an `httpx.Response`, by method and path of the request, as `GET /functions`."""
    stdin: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    """Content of files in the folder in which it runs, by name."""
    patches: Mapping[str, Any] = field(default_factory=dict)
    """What stands in place of a name of a module, as of `unittest.mock.patch`."""
    note: str = ""
    """Says above the output what is special."""

    @property
    def words(self) -> list[str]:
        """Return the words of the command line."""
        return self.line.split()


class TerminalStream(io.TextIOWrapper):
    """Output that takes itself for a terminal. Several of them write into one buffer, in the order of the writes."""

    def isatty(self) -> bool:
        return True


class Typed(io.StringIO):
    """Input that somebody types: a terminal shows each line when it is read."""

    def __init__(self, text: str, terminal: TerminalStream) -> None:
        super().__init__(text)
        self._terminal = terminal

    def isatty(self) -> bool:
        """Return whether anybody types."""
        return bool(self.getvalue())

    def readline(self, size: int | None = -1, /) -> str:
        """Return the next line, and show it."""
        line = super().readline(-1 if size is None else size)
        self._terminal.write(line)
        return line


def problem(status: int, slug: str, title: str, detail: str, blame: str = "caller") -> httpx.Response:
    """Return an answer of the gateway that is one of its problems."""
    content = {"type": f"urn:hearth:problem:{slug}", "title": title, "detail": detail, "blame": blame}
    if slug not in ("not-found", "forbidden"):  # of calls of functions
        content["invocation_id"] = "2e16dc3290329f5f74ccb6021d486ad7"
    return httpx.Response(status, json=content, headers={"content-type": "application/problem+json"})


def answer_with(answers: Mapping[str, Any]) -> Answer:
    """Return a gateway that gives these answers. A list of responses is given one after the other."""
    left = {key: list(given) for key, given in answers.items() if is_sequence(given)}

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        key = f"{request.method} {request.url.path}"
        if key not in answers:
            return problem(404, "not-found", "Not found", f"there is no {key}")
        given = answers[key]
        if is_sequence(given):
            given = left[key].pop(0) if len(left[key]) > 1 else left[key][0]
        if isinstance(given, Exception):
            raise given
        if not isinstance(given, httpx.Response):
            return httpx.Response(202 if request.method == "POST" else 200, json=given)
        # A real one is not read yet, and may be given again.
        stream = httpx.ByteStream(given.content)
        return httpx.Response(given.status_code, headers=given.headers, stream=stream)

    return answer


def is_sequence(given: object) -> bool:
    """Return whether these are several answers."""
    return isinstance(given, Sequence) and bool(given) and isinstance(given[0], httpx.Response)


def shown(scene: Scene, width: int) -> str:
    """Return a scene as on a terminal: prompt, command line, and everything that it prints."""
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory())
        for name, content in scene.files.items():
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_text(content)
        stack.enter_context(working_in(folder))
        stack.enter_context(surroundings(width))
        stack.enter_context(own_logging())
        transport = httpx.MockTransport(answer_with(scene.answers))
        client = functools.partial(GatewayClient, transport=transport)
        stack.enter_context(patch.object(common, "GatewayClient", client))
        stack.enter_context(patch.object(watching, "FIRST_POLL_SECONDS", 0.0))
        for name, value in scene.patches.items():
            stack.enter_context(patch(name, value.make() if isinstance(value, MadeAnew) else value))
        status, text = output_of(scene)
    text = text.replace(os.path.realpath(folder), FOLDER).replace(folder, FOLDER)
    note = f"# {scene.note}\n" if scene.note else ""
    ending = f"[exit status {status}]\n" if status else ""
    return f"{note}$ hearth {scene.line}\n{text}{ending}"


def output_of(scene: Scene) -> tuple[int, str]:
    """Run a scene in this process, and return its exit status and its output."""
    written = io.BytesIO()
    out, err = (TerminalStream(written, encoding="utf-8", write_through=True) for _ in range(2))
    status = 0
    with (
        patch.object(sys, "stdout", out),
        patch.object(sys, "stderr", err),
        patch.object(sys, "stdin", Typed(scene.stdin, out)),
    ):
        try:
            main.main(scene.words, prog_name="hearth")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0
        out.flush()
        err.flush()
    text = written.getvalue().decode()
    return status, text if not text or text.endswith("\n") else text + "\n"


@contextmanager
def surroundings(width: int) -> Iterator[None]:
    """Give a command a terminal of this width without colours, a fixed zone, and no other variables of ours."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HEARTH_")}
    fixed = {"COLUMNS": str(width), "LINES": "50", "TERM": "dumb", "TZ": ZONE, "HOME": "/home/ada"}
    with patch.dict(os.environ, clean | fixed, clear=True):
        time.tzset()
        try:
            yield
        finally:
            os.environ.pop("TZ", None)
    time.tzset()


@contextmanager
def own_logging() -> Iterator[None]:
    """Put handlers and levels of loggers back at the end of a block: a command sets them for its process."""
    root = logging.getLogger()
    handlers, levels = root.handlers[:], {name: logging.getLogger(name).level for name in ("", *QUIET)}
    try:
        yield
    finally:
        root.handlers[:] = handlers
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def working_in(folder: str) -> Iterator[None]:
    """Work in a folder for the time of a block."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
