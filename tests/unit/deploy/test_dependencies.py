"""Setting .venv up: what it is asked to install, and how little it says."""

from __future__ import annotations

import io
import sys
import tomllib
from pathlib import Path

import pytest

from deploy.dependencies import PURPOSES, TAIL_LINES, main, pip_command, run_quietly
from gateway.setup.gateway_image import EXTRAS

ROOT = Path(__file__).parents[3]
CHATTER = "for n in range(400): print(f'Collecting package-{n}')"


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_serving_asks_for_the_clients_of_brokers_and_for_no_tool_of_development() -> None:
    extras = pip_command("serve")[-1].removeprefix(".[").removesuffix("]").split(",")
    assert extras == list(EXTRAS), "a checkout serves what the gateway's image serves"
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    needed = " ".join(package for extra in extras for package in declared[extra])
    assert "pytest" in " ".join(declared["dev"])
    assert "dev" not in extras and "pytest" not in needed and "hearth-faas" not in needed


@pytest.mark.parametrize("purpose", PURPOSES)
def test_every_purpose_installs_the_checkout_with_pinned_versions(purpose: str) -> None:
    command = pip_command(purpose)
    assert command[0] == sys.executable and command[1:4] == ["-m", "pip", "install"]
    assert "--constraint=constraints.txt" in command and command[-2] == "--editable"


def test_hundreds_of_lines_become_two() -> None:
    out = io.StringIO()
    assert run_quietly("Installing it", [sys.executable, "-c", CHATTER], out)
    begun, done = out.getvalue().splitlines()
    assert begun == "Installing it ..." and done.startswith("Installing it: done in ")


def test_a_terminal_has_one_line_that_moves() -> None:
    out = Terminal()
    assert run_quietly("Installing it", [sys.executable, "-c", CHATTER], out)
    *drawn, done = out.getvalue().split("\r\033[K")
    assert any("collecting package-" in line for line in drawn)
    assert "\n" not in "".join(drawn) and done.startswith("Installing it: done in ") and done.endswith(" s\n")


def test_a_failure_shows_the_end_of_what_was_printed() -> None:
    out = io.StringIO()
    code = f"{CHATTER}\nraise SystemExit('no index answers')"
    assert not run_quietly("Installing it", [sys.executable, "-u", "-c", code], out)
    _, *shown = out.getvalue().splitlines()
    assert len(shown) == TAIL_LINES and shown[-2:] == ["Collecting package-399", "no index answers"]


def test_the_command_names_the_next_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "raise SystemExit('no index answers')"
    monkeypatch.setattr("deploy.dependencies.pip_command", lambda purpose: [sys.executable, "-c", code])
    assert main(["dev"]) == 1
    said = capsys.readouterr().err
    assert "no index answers" in said
    assert said.splitlines()[-1].startswith("error: pip could not install the tools of development; ")
