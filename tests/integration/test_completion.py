"""Completion in real shells, as somebody presses Tab in them."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

HEARTH = Path(sys.executable).with_name("hearth")
FUNCTIONS = """\
version: 1
functions:
  resize-fast: {image: busybox}
  resize-well: {image: busybox}
  "bad name; touch oops": {image: busybox}
workflows:
  monthly: {steps: {one: {function: resize-fast}}}
"""
CASES = {
    "hearth wor": ["workflows"],
    "hearth invoke resize": ["resize-fast", "resize-well"],
    "hearth invoke bad": [],
    "hearth invoke --inc": ["--include"],
    "hearth ps --function resize-f": ["resize-fast"],
    "hearth start ": ["monthly"],
}
"""Line so far to what Tab offers."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a functions.yaml, and no gateway beside it."""
    (tmp_path / "functions.yaml").write_text(FUNCTIONS)
    return tmp_path


def environment() -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HEARTH_")}
    path = f"{HEARTH.parent}{os.pathsep}{os.environ['PATH']}"
    return {**clean, "PATH": path, "HEARTH_URL": "http://127.0.0.1:9", "TERM": "dumb"}


def shell(folder: Path, *command: str, **variables: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment() | variables, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "Tab says nothing but what it completes"
    return done.stdout


BASH = """\
eval "$(hearth completion bash)"
while IFS= read -r line; do
    COMP_WORDS=($line); [ "${line% }" = "$line" ] || COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
    _hearth_completion hearth
    echo "${COMPREPLY[*]}"
done
"""


def test_bash_completes_commands_options_and_names(folder: Path) -> None:
    done = subprocess.run(
        ["bash", "--norc", "-c", f"compopt() {{ :; }}; {BASH}"],
        cwd=folder,
        env=environment(),
        input="".join(f"{line}\n" for line in CASES),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = [line.split() for line in done.stdout.splitlines()]
    assert dict(zip(CASES, found, strict=True)) == CASES


def test_fish_completes_names(folder: Path) -> None:
    ask = "hearth completion fish | source; complete -C 'hearth invoke resize'"
    shown = shell(folder, "fish", "--no-config", "-c", ask, HOME=str(folder))
    assert [line.split("\t")[0] for line in shown.splitlines()] == ["resize-fast", "resize-well"]


def test_zsh_completes_a_name_when_tab_is_pressed(folder: Path) -> None:
    main, terminal = pty.openpty()
    zsh = subprocess.Popen(
        ["zsh", "-f", "-i"],
        cwd=folder,
        env=environment(),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    try:
        os.write(
            main, b'autoload -U compinit; compinit -u -D; eval "$(hearth completion zsh)"; echo set-"up"\n'
        )
        read_until(main, b"set-up\r")
        os.write(main, b"hearth start mon\t")
        read_until(main, b"hearth start monthly ")
    finally:
        zsh.kill()
        zsh.wait()
        os.close(main)


def read_until(terminal: int, text: bytes) -> None:
    """Read what a terminal shows, until it shows this."""
    shown = b""
    while text not in shown:
        shown += os.read(terminal, 65536)
