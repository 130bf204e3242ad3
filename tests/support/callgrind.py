"""Counting the instructions of a program, which do not depend on what else the machine does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def instructions(module: str, *arguments: str, report: Path) -> int:
    """How many a module of the tests takes, of all its threads, as a program of its own. Skips the test where there
    is no valgrind."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        pytest.skip("valgrind counts instructions; make test installs it where it can")
    ran = run(valgrind, "--tool=callgrind", f"--callgrind-out-file={report}", *program(module, *arguments))
    line = next(line for line in ran.stderr.splitlines() if "Collected" in line)
    return int(line.rsplit(":", 1)[1])


def compile_first(module: str, *arguments: str) -> None:
    """Run it once, so that compiling what has changed is not counted."""
    run(*program(module, *arguments))


def program(module: str, *arguments: str) -> tuple[str, ...]:
    """The command of a module."""
    return sys.executable, "-m", module, *arguments


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose hashes are the same each time."""
    environment = {"PYTHONHASHSEED": "0", "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
