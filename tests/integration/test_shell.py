"""`hearth shell` on the real engine, typed into a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from harness import BUSYBOX_IMAGE, EngineView, eventually

pytestmark = pytest.mark.engine

HEARTH = Path(sys.executable).with_name("hearth")
CODE = "ANSWER = 41\n\ndef handle(event, context):\n    return ANSWER + event\n"


class Typed:
    """A command at a terminal of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        self._ours, theirs = pty.openpty()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HEARTH_")}
        self.process = subprocess.Popen(
            [HEARTH, "shell", *words], cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self.seen = ""

    def until(self, pattern: str, seconds: float = 40) -> re.Match[str]:
        """Read until a pattern has been printed."""
        end = time.monotonic() + seconds
        while (found := re.search(pattern, self.seen)) is None:
            assert time.monotonic() < end, f"no {pattern!r} in {self.seen!r}"
            if select.select([self._ours], [], [], 0.5)[0]:
                try:
                    self.seen += os.read(self._ours, 4096).decode(errors="replace")
                except OSError:  # the other end is closed
                    assert re.search(pattern, self.seen), self.seen
        self.seen = self.seen[found.end() :]
        return found

    def types(self, text: str) -> None:
        os.write(self._ours, f"{text}\n".encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
        os.close(self._ours)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "handler.py").write_text(CODE)
    functions = {
        "hello": {
            "runtime": "python",
            "source": "code",
            "handler": "handler:handle",
            "env": {"COLOUR": "blue"},
        },
        "words": {
            "image": BUSYBOX_IMAGE,
            "command": ["wc", "-w"],
            "memory": "64MiB",
            "env": {"COLOUR": "blue"},
        },
    }
    (tmp_path / "functions.yaml").write_text(json.dumps({"version": 1, "functions": functions}))
    return tmp_path


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Assert that no container of a shell is left. Only these have a terminal."""
    yield
    assert with_terminal() == []


def with_terminal() -> list[str]:
    view = EngineView()
    ids = [one["Id"] for one in view.containers("org.hearth.instance")]
    shown = [view.request("GET", f"/containers/{id}/json") for id in ids]
    return [one["Id"] for one in shown if "Config" in one and one["Config"]["Tty"]]


@pytest.mark.usefixtures("nothing_left")
def test_a_shell_has_the_functions_limits_and_user_and_is_gone_afterwards(folder: Path) -> None:
    with Typed(folder, "words") as typed:
        typed.until(r"\$ ")
        typed.types("echo $COLOUR; id -u; touch /x; ls /sys/class/net")
        typed.until(r"blue\r\n[0-9]{5,}\r\n.*Read-only file system\r\nlo\r\n")
        [container] = with_terminal()
        host = EngineView().request("GET", f"/containers/{container}/json")["HostConfig"]
        assert (host["Memory"], host["CapDrop"], host["ReadonlyRootfs"]) == (64 * 2**20, ["ALL"], True)
        typed.types("exit 7")
        assert typed.process.wait(30) == 7


@pytest.mark.usefixtures("nothing_left")
def test_python_has_the_functions_code_and_environment(folder: Path) -> None:
    with Typed(folder, "hello", "--python") as typed:
        typed.until(">>> ")
        typed.types("import handler, os; print('is', handler.handle(1, None), os.environ['COLOUR'])")
        typed.until(r"is 42 blue\r\n")
        typed.types("exit()")
        assert typed.process.wait(30) == 0


@pytest.mark.usefixtures("nothing_left")
def test_an_image_without_python_has_a_shell(folder: Path) -> None:
    with Typed(folder, "words", "--python") as typed:
        typed.until("the image of words has no Python; look at it from outside")
        assert typed.process.wait(30) == 2
    with Typed(folder, "words") as typed:
        typed.until(r"\$ ")
        typed.types("echo one two | wc -w")
        typed.until(r"\n2\r\n")
        typed.process.send_signal(signal.SIGTERM)
        typed.process.wait(30)


def test_a_killed_one_is_found_by_prune(folder: Path) -> None:
    with Typed(folder, "words") as typed:
        typed.until(r"\$ ")
        [container] = with_terminal()
        typed.process.kill()
        typed.process.wait(30)
    shown = EngineView().request("GET", f"/containers/{container}/json")
    gateway = shown["Config"]["Labels"]["org.hearth.gateway"]
    pruned = subprocess.run(
        [HEARTH, "prune", "--all"], cwd=folder, capture_output=True, text=True, input="n\n" * 3
    )
    assert gateway[:8] in pruned.stdout, pruned
    EngineView().remove_all(f"org.hearth.gateway={gateway}")
    eventually(lambda: with_terminal() == [])


def test_it_says_what_is_missing(folder: Path) -> None:
    with Typed(folder, "helo") as typed:
        typed.until("functions.yaml has no function helo; it has hello, words")
        assert typed.process.wait(30) == 2
    piped = subprocess.run([HEARTH, "shell", "hello"], cwd=folder, capture_output=True, text=True, input="")
    assert (piped.returncode, "hearth shell needs a terminal" in piped.stderr) == (2, True)
