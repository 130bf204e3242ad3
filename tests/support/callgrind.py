"""Counting the instructions of a program, which do not depend on what else the machine does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def instructions(module: str, *arguments: str, report: Path) -> int:
    """Return how many instructions a module of the tests takes, of all its threads, where it has them counted.

    The module runs as a program of its own and calls `counted` around its measured part: the rest, mostly imports, is
    run without counting, which is several times as fast. Skips the test where there is no valgrind.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        pytest.skip("valgrind counts instructions; make test installs it where it can")
    options = ("--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={report}")
    ran = run(valgrind, *options, *program(module, *arguments), COUNTED="yes")
    line = next(line for line in ran.stderr.splitlines() if "Collected" in line)
    return int(line.rsplit(":", 1)[1])


@contextmanager
def counted() -> Iterator[None]:
    """Have valgrind count instructions within the block. Without valgrind it does nothing."""
    switch("on")
    try:
        yield
    finally:
        switch("off")


def switch(state: str) -> None:
    """Have the valgrind that runs this process begin or end counting."""
    if "COUNTED" not in os.environ:
        return
    command = ["vgdb", f"--pid={os.getpid()}", "instrumentation", state]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as asking:
        while asking.poll() is None:  # valgrind looks for orders while this process runs
            time.sleep(0.001)
    assert asking.returncode == 0, "valgrind does not take orders: is vgdb of the same version?"


def compile_first(module: str, *arguments: str) -> None:
    """Run it once, so that compiling what has changed is not counted."""
    run(*program(module, *arguments))


def program(module: str, *arguments: str) -> tuple[str, ...]:
    """The command of a module."""
    return sys.executable, "-m", module, *arguments


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose hashes are the same each time."""
    environment = {"PYTHONHASHSEED": "0", "PATH": "/usr/bin:/bin", **variables}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
