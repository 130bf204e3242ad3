"""`hearth dev --no-container`: handlers in plain processes, said loudly, without an engine, and with nothing left."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import eventually

from tests.support.dev_run import HEARTH, DevRun
from tests.wheelhouse import only_index, wheel

LOUD = "NO CONTAINER: code runs as your user, without isolation or limits."
CODE = """
import os
def handle(event, context):
    print("in process", os.getpid())
    return {"pid": os.getpid(), "number": 1}
"""
WITH_PACKAGE = "import house\ndef handle(event, context):\n    return house.ANSWER\n"
NO_PACKAGES = """
import importlib.util
def handle(event, context):
    return [name for name in ("pydantic", "click", "gateway") if importlib.util.find_spec(name)]
"""
STOPS = """
import subprocess
def handle(event, context):
    if event == "child":
        return subprocess.Popen(["sleep", "600"]).pid
    if event == "orphan":
        return int(subprocess.check_output("sleep 600 > /dev/null 2>&1 & echo $!", shell=True))
    found = 41
    breakpoint()
    return found
"""


class SilentEngine:
    """A socket in the place of Docker's. It notes whether anybody has dialled."""

    def __init__(self, place: Path) -> None:
        self.dialled = 0
        self.path = place / "docker.sock"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.dialled += 1
                connection.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SilentEngine]:
    made = SilentEngine(tmp_path)
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "hello"
    made.mkdir()
    (made / "handler.py").write_text(CODE)
    return made


def alive(pid: int) -> bool:
    """Return whether a process runs. One that has ended and is not reaped yet does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def test_it_asks_no_engine_says_so_loudly_and_leaves_no_process(
    tmp_path: Path, folder: Path, engine: SilentEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(only_index(tmp_path / "wheels", monkeypatch), "house")
    with DevRun(folder, tmp_path, "--no-container", env={"DOCKER_HOST": f"unix://{engine.path}"}) as run:
        eventually(lambda: run.says(LOUD))
        first = run.call("hello").json()
        assert alive(first["pid"])
        eventually(lambda: run.says(f"  | in process {first['pid']}\n"))
        run.write(CODE.replace('"number": 1', '"number": 2'))
        eventually(lambda: run.call("hello").json()["number"] == 2)
        eventually(lambda: run.printed.count(LOUD) == 2)
        run.write("def handle(event, context) return 1\n")
        eventually(lambda: run.says("(handler.py, line 1); the version before it stays in service"))
        assert run.call("hello").json()["number"] == 2
        run.write(NO_PACKAGES)
        run.until("hello", [])
        run.write("house\n", "requirements.txt")
        run.write(WITH_PACKAGE)
        run.until("hello", 42)
        processes = children(run.process.pid)
        assert len(processes) >= 2, "one for the function, and prewarmed ones"
        assert run.stop() == 0
        eventually(lambda: not any(map(alive, processes)))
    assert run.data == []
    assert engine.dialled == 0
    assert "Traceback" not in run.printed.replace("  | Traceback", "")


def test_a_kill_leaves_no_process(tmp_path: Path, folder: Path) -> None:
    with DevRun(folder, tmp_path, "--no-container") as run:
        pid = run.call("hello").json()["pid"]
        processes = children(run.process.pid)
        assert pid in processes
        run.stop(signal.SIGKILL)
        eventually(lambda: not any(map(alive, processes)))


def test_an_end_takes_what_the_handler_has_started(tmp_path: Path, folder: Path) -> None:
    (folder / "handler.py").write_text(STOPS)
    with DevRun(folder, tmp_path, "--no-container") as run:
        started = [run.call("hello", "child").json(), run.call("hello", "orphan").json()]
        assert all(map(alive, started))
        assert run.stop() == 0
        eventually(lambda: not any(map(alive, started)))


def test_a_closed_terminal_leaves_no_process_and_no_file(tmp_path: Path, folder: Path) -> None:
    with DevRun(folder, tmp_path, "--no-container") as run:
        pid = run.call("hello").json()["pid"]
        assert run.stop(signal.SIGHUP) == 0
        eventually(lambda: not alive(pid))
    assert run.data == []


def test_a_breakpoint_is_on_the_terminal(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "handler.py").write_text(STOPS)
    run = DevRun(folder, tmp_path, "--no-container")
    ours, theirs = pty.openpty()
    try:
        # A session of its own has the terminal that it opens first as its own.
        monkeypatch.setattr("tests.support.dev_run.HEARTH", tmp_path / "hearth")
        (tmp_path / "hearth").write_text(
            f'#!/bin/sh\nexec setsid sh -c \'exec < {os.ttyname(theirs)}; exec {HEARTH} "$@"\' sh "$@"\n'
        )
        (tmp_path / "hearth").chmod(0o755)
        with run, ThreadPoolExecutor(1) as threads:
            calling = threads.submit(run.call, "hello")
            seen = b""
            while b"(Pdb) " not in seen:
                assert select.select([ours], [], [], 20)[0], run.printed
                seen += os.read(ours, 1000)
            os.write(ours, b"found += 1\n")
            os.write(ours, b"continue\n")
            assert calling.result(30).json() == 42
    finally:
        os.close(ours)
        os.close(theirs)
