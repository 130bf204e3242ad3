"""What a function, or whoever calls one, has said cannot steer the terminal of who looks at it."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.log_format import JsonFormatter, TextFormatter
from gateway.cli.terminal import visible, visible_json, visible_line

ORDERS = (
    "[red]a[/red] \x1b]0;title\x07 \x9b31m \u202eright \x1b[2J \x1b]8;;http://evil\x1b\\link \x7f \r \u2066"
)
"""What would steer a terminal: titles, screens, links, C1, turned writing; and rich's own markup."""
INVALID = b"\xff\x9b31m \xc3"
RICHS_OWN = re.compile(r"\r?\x1b\[[0-9;]*[mKAG]|\x1b\[\?25[hl]\r?|\r(?=\n)")
"""What a command itself may say to a terminal: colours and the place of the cursor; and the terminal's line ends."""
CLI = [sys.executable, "-m", "gateway.cli"]
ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, é, 漢字, 🙂, \u00a0", "plain text, é, 漢字, 🙂, \u00a0"),
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
        ("a\n\tb", "a\n\tb"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x00\x07\x08\r\x7f\x80\x9b\x9f", r"\x00\x07\x08\r\x7f\x80\x9b\x9f"),
        ("\u202a\u202e\u2066\u2069\u200e\u061c", r"\u202a\u202e\u2066\u2069\u200e\u061c"),
        ("\u2028\ufeff\ud800\U000e0041", r"\u2028\ufeff\ud800\U000e0041"),
    ],
)
def test_what_steers_a_terminal_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_whatever_is_said_steers_nothing(text: str) -> None:
    for made in (visible(text), visible_line(text), visible_json(json.dumps(text, ensure_ascii=False))):
        kinds = {unicodedata.category(c) for c in made if c not in "\n\t\u200c\u200d"}
        assert not kinds & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert "\n" not in visible_line(text)
    assert json.loads(visible_json(json.dumps(text, ensure_ascii=False))) == text


def test_every_command_writes_through_the_one_module() -> None:
    raw = re.compile(r"click\.echo\(|(?<![.\w])print\(|stdout\.(buffer\.)?write|stderr\.(buffer\.)?write")
    for file in (ROOT / "gateway" / "cli").rglob("*.py"):
        if file.name != "terminal.py":
            assert not raw.search(file.read_text()), (
                f"{file.name}: say() and write_body() are safe on a terminal"
            )


@pytest.mark.parametrize("form", [TextFormatter(colour=False), TextFormatter(colour=True), JsonFormatter()])
def test_a_log_line_steers_nothing(form: logging.Formatter) -> None:
    try:
        raise RuntimeError(ORDERS)
    except RuntimeError:
        record = logging.LogRecord("hearth", 30, "", 0, "%s\n%s", (ORDERS, ORDERS), sys.exc_info())
    record.function = record.printed = ORDERS
    check_steers_nothing(form.format(record))


# -- commands on a terminal, and into a pipe ----------------------------------------------------------------------


class Hostile(BaseHTTPRequestHandler):
    """A gateway that says nothing but orders, wherever a function or a caller has a say."""

    ANSWERS: ClassVar[dict[str, object]] = {
        "/functions": [
            {"name": ORDERS, "kind": "handler", "state": "failed", "version": ORDERS, "fault": ORDERS}
        ],
        "/triggers": [
            {
                "name": ORDERS,
                "cause": ORDERS,
                "definition": {},
                "action": {"function": ORDERS},
                "paused": True,
                "next": None,
                "last": None,
                "fault": ORDERS,
            }
        ],
        "/jobs/1": {
            "id": "1",
            "count": 1,
            "status": "failed",
            "tasks": {"queued": 0, "running": 0, "failed": 1},
            "parallel": 1,
        },
        "/jobs/1/tasks": {
            "tasks": [
                {
                    "index": 0,
                    "status": "failed",
                    "attempts": 1,
                    "started": None,
                    "ended": None,
                    "detail": ORDERS,
                    "error": ORDERS,
                }
            ]
        },
        "/runs/1": {
            "id": "1",
            "workflow": ORDERS,
            "status": "failed",
            "started": None,
            "ended": None,
            "detail": ORDERS,
            "output": None,
            "steps": [
                {
                    "name": ORDERS,
                    "function": ORDERS,
                    "status": "failed",
                    "items": None,
                    "attempts": 1,
                    "started": None,
                    "ended": None,
                    "detail": ORDERS,
                    "error": "e",
                }
            ],
        },
    }

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in self.ANSWERS:
            self.say(200, "application/json", json.dumps(self.ANSWERS[path]).encode())
        elif path == "/logs":
            line = {
                "time": ORDERS,
                "function": ORDERS,
                "invocation": ORDERS,
                "instance": None,
                "text": ORDERS,
            }
            self.say(200, "application/x-ndjson", json.dumps(line).encode())
        elif path.endswith(("/logs", "/graph.svg")):
            self.say(200, "text/plain", ORDERS.encode() + INVALID)
        else:
            self.say(404, "application/problem+json", problem("not-found", "caller"))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/invoke/failing":
            self.say(500, "application/problem+json", problem("handler-raised", "function"))
        else:
            self.say(200, "text/plain", ORDERS.encode() + INVALID)

    def say(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-invocation-id", "1")
        self.send_header("x-own", "a\x9b31m\x1b[31m")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def problem(slug: str, blame: str) -> bytes:
    told = {"type": f"urn:hearth:problem:{slug}", "title": "T", "detail": ORDERS, "blame": blame}
    return json.dumps(told | {"invocation_id": "1"}).encode()


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """What the commands are run with: the address of a hostile gateway."""
    served = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HEARTH_")}
    yield clean | {
        "HEARTH_URL": f"http://127.0.0.1:{served.server_port}",
        "NO_PROXY": "*",
        "TERM": "xterm-256color",
        "LC_ALL": "C.UTF-8",
        "COLUMNS": "2000",
    }
    served.shutdown()
    thread.join()
    served.server_close()


def on_terminal(environment: dict[str, str], *words: str) -> str:
    """All that a command writes to a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*CLI, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=ROOT
    )
    os.close(theirs)
    written = b""
    try:
        while piece := os.read(ours, 65536):
            written += piece
    except OSError:
        pass  # Linux says so when the other end is closed
    finally:
        os.close(ours)
        process.wait()
    return written.decode()


def check_steers_nothing(text: str) -> None:
    left = RICHS_OWN.sub("", text).replace("\n", "").replace("\t", "")
    assert not [c for c in left if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")], ascii(text)


COMMANDS = [
    ("invoke", "failing"),
    ("invoke", "printing"),
    ("invoke", "printing", "-i"),
    ("logs", "--call", "1"),
    ("logs", "--instance", "1"),
    ("logs",),
    ("logs", "--json"),
    ("functions",),
    ("functions", "--json"),
    ("ps",),
    ("triggers",),
    ("jobs", "show", "1"),
    ("jobs", "show", "--follow", "1"),
    ("runs", "1"),
    ("runs", "--follow", "1"),
    ("graph", "any"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_on_a_terminal_orders_are_written_out(environment: dict[str, str], words: tuple[str, ...]) -> None:
    written = on_terminal(environment, *words)
    check_steers_nothing(written)
    assert "]0;title" in written
    assert "[red]a[/red]" in written


@pytest.mark.parametrize("words", [("invoke", "printing"), ("logs", "--call", "1")], ids=" ".join)
def test_bytes_go_into_a_pipe_and_with_raw_to_a_terminal(
    environment: dict[str, str], words: tuple[str, ...]
) -> None:
    piped = subprocess.run([*CLI, *words], env=environment, cwd=ROOT, capture_output=True, check=True)
    assert piped.stdout == ORDERS.encode() + INVALID
    environment = environment | {"PYTHONIOENCODING": "utf-8"}
    ours, theirs = pty.openpty()
    subprocess.run([*CLI, *words, "--raw"], env=environment, cwd=ROOT, stdout=theirs, check=True)
    os.close(theirs)
    assert ORDERS.encode() + INVALID in os.read(ours, 65536)
    os.close(ours)


def test_a_message_goes_into_a_pipe_as_it_is(environment: dict[str, str]) -> None:
    piped = subprocess.run(
        [*CLI, "invoke", "failing"], env=environment, cwd=ROOT, capture_output=True, check=False
    )
    assert "\x9b31m \u202eright" in piped.stderr.decode()
