"""`hearth workflows`, `start`, `runs`, `resume` and `graph` against a real gateway."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from harness import Gateway, eventually, handler

pytestmark = pytest.mark.engine

HEARTH = Path(sys.executable).with_name("hearth")
FLAKY = """
def handle(event, context):
    if int(context.headers["x-hearth-attempt"]) <= event["fails"]:
        raise ValueError("not yet")
    return b"\\x00" + event["word"].encode()
"""
WORKFLOWS = {
    "shout": {
        "steps": {
            "say": {"function": "flaky", "retries": {"attempts": 1}},
            "wait": {"function": "sleep", "input": "input.seconds", "when": "input.seconds"},
        },
        "output": "steps.say.output",
    },
    "typed": ["typed"],
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    functions = {
        "flaky": handler(FLAKY),
        "sleep": handler("import time\n\ndef handle(event, context):\n    time.sleep(event)\n"),
        "typed": handler(
            "def handle(event, context):\n    return [context.headers.get('content-type'), len(str(event))]\n"
        ),
    }
    with Gateway(tmp_path_factory.mktemp("cli"), functions, sections={"workflows": WORKFLOWS}) as made:
        yield made


def hearth(gateway: Gateway, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [HEARTH, *words],
        env={**os.environ, "HEARTH_URL": gateway.url},
        input=stdin,
        capture_output=True,
        timeout=60,
    )


def test_a_run_is_started_followed_and_its_answer_printed_byte_for_byte(gateway: Gateway) -> None:
    done = hearth(gateway, "start", "shout", "--input", '{"fails":0,"word":"hi"}')
    assert (done.returncode, done.stdout) == (0, b"\x00hi"), done.stderr
    assert (
        b"say: succeeded" in done.stderr
        and b"wait: skipped" in done.stderr
        and b" succeeded (" in done.stderr
    )


def test_a_run_that_fails_ends_with_1_and_is_resumed(gateway: Gateway) -> None:
    done = hearth(gateway, "start", "shout", "-i", '{"fails":1,"word":"hi"}')
    assert (done.returncode, done.stdout) == (1, b"")
    (id,) = [line.split()[-1].decode() for line in done.stderr.splitlines() if b"hearth resume" in line]
    shown = hearth(gateway, "runs", id)
    assert shown.returncode == 0 and b"ValueError: not yet" in shown.stdout
    assert id.encode() in hearth(gateway, "runs", "--status", "failed", "--workflow", "shout").stdout
    done = hearth(gateway, "resume", id)
    assert done.returncode == 0, done.stderr
    assert [line.split()[4] for line in done.stdout.splitlines() if line.startswith(b"say")] == [b"2"]
    again = hearth(gateway, "resume", id)
    assert again.returncode == 2 and b"the run is succeeded" in again.stderr


def test_input_comes_from_text_a_file_or_stdin_with_its_type(gateway: Gateway, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG")
    for words, stdin, answer in (
        (("--input", "[1,2]"), b"", ["application/json", 6]),
        (("--input", "plain words"), b"", ["text/plain; charset=utf-8", 14]),
        (("--input", f"@{picture}"), b"", ["image/png", 10]),
        (("--input", "-", "--content-type", "text/csv"), b"a;b", ["text/csv", 6]),
    ):
        done = hearth(gateway, "start", "typed", *words, stdin=stdin)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == answer
    absent = hearth(gateway, "start", "typed", "--input", "@/none")
    assert absent.returncode == 2 and b"cannot read /none" in absent.stderr


def test_a_run_is_detached_followed_and_cancelled(gateway: Gateway) -> None:
    words = ("start", "shout", "--input", '{"fails":0,"word":"x","seconds":30}')
    id = hearth(gateway, *words, "--detach").stdout.decode().strip()
    run = json.loads(hearth(gateway, "runs", id, "--json").stdout)
    assert run["status"] == "running"
    cancelled = hearth(gateway, "runs", "--cancel", id)
    assert cancelled.returncode == 0 and b"cancelled" in cancelled.stdout
    assert hearth(gateway, "runs", "--cancel", id).returncode == 2
    assert hearth(gateway, "runs", "--follow", id).returncode == 1
    assert hearth(gateway, "runs", "--follow").returncode == 2
    assert json.loads(hearth(gateway, *words, "--detach", "--json").stdout)["workflow"] == "shout"


def test_ctrl_c_leaves_the_run_and_a_terminal_shows_its_steps(gateway: Gateway) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [HEARTH, "start", "shout", "--input", '{"fails":0,"word":"x","seconds":20}'],
        env={**os.environ, "HEARTH_URL": gateway.url, "COLUMNS": "120", "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    while b"running" not in seen or b"wait" not in seen:
        seen += os.read(ours, 65536)
    process.send_signal(signal.SIGINT)
    while True:
        try:
            seen += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert process.wait(20) == 130
    assert b"The run continues" in seen and b"STATUS" in seen
    (run,) = gateway.http.get("/runs?status=running&limit=1").json()["runs"]
    assert gateway.http.delete(f"/runs/{run['id']}").json()["status"] == "cancelled"


def test_workflows_are_listed_and_drawn(gateway: Gateway, tmp_path: Path) -> None:
    listed = hearth(gateway, "workflows")
    assert [line.split(None, 1) for line in listed.stdout.splitlines()[1:]] == [
        [b"shout", b"say, wait"],
        [b"typed", b"typed"],
    ]
    assert [w["name"] for w in json.loads(hearth(gateway, "workflows", "--json").stdout)] == [
        "shout",
        "typed",
    ]
    file = tmp_path / "shout.svg"
    assert hearth(gateway, "graph", "shout", "-o", str(file)).returncode == 0
    assert ElementTree.fromstring(file.read_bytes()).tag.endswith("svg")
    id = hearth(gateway, "start", "typed", "--detach").stdout.decode().strip()
    eventually(lambda: gateway.http.get(f"/runs/{id}").json()["ended"])
    assert b'data-status="succeeded"' in hearth(gateway, "graph", "--run", id).stdout
    assert hearth(gateway, "graph").returncode == 2
    none = hearth(gateway, "graph", "none")
    assert none.returncode == 2 and b"there is no workflow 'none'" in none.stderr
