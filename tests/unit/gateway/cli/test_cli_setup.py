"""`hearth setup`: it asks before it changes anything, and says what to do next."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.cli.commands.serving import setup as command
from gateway.setup.engine import EngineSetupError
from gateway.setup.images import recipes
from gateway.setup.machine import Machine, MissingParts
from gateway.setup.record import SetupRecord


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "hearth" / "setup.json"


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> list[MissingParts]:
    """A machine that lacks everything until it is brought, and notes what was."""
    found: list[MissingParts] = []

    def look(machine: Machine, with_images: bool = True, rebuild: bool = False) -> MissingParts:
        return (
            MissingParts("nothing", [])
            if found
            else MissingParts("install", recipes() if with_images else [])
        )

    monkeypatch.setattr(Machine, "look", look)
    monkeypatch.setattr(Machine, "bring", lambda machine, missing, rebuild: found.append(missing))
    monkeypatch.setattr("gateway.setup.engine_api.EngineApi.version", lambda engine: "20.10.24")
    return found


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["setup", *arguments], prog_name="hearth")


def test_without_a_terminal_it_changes_nothing_and_says_how_to_agree(
    brought: list[MissingParts], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["hearth", "setup"])
    result = run()
    assert (result.exit_code, brought) == (1, [])
    assert "engine    install docker.io, containerd, runc, iptables, ca-certificates" in result.stderr
    assert "images    build hearth-base, hearth-runtime/python, hearth-example/busybox" in result.stderr
    assert result.stderr.endswith("To agree: hearth setup --yes\n")
    assert max(map(len, result.stderr.splitlines()[:-1])) <= 80


def test_with_yes_it_brings_all_and_says_what_comes_next(brought: list[MissingParts]) -> None:
    result = run("--yes")
    assert (result.exit_code, len(brought)) == (0, 1)
    assert result.stdout == "Ready: engine 20.10.24 and images.\nNext: hearth init hello, then hearth serve\n"
    again = run()
    assert (again.exit_code, again.stderr, len(brought)) == (0, "", 1)


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("\n", 0), ("n\n", 1)])
def test_on_a_terminal_it_asks(
    brought: list[MissingParts], monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    monkeypatch.setattr(command, "is_asked", lambda: True)
    result = CliRunner().invoke(main, ["setup"], input=answer)
    assert (result.exit_code, len(brought)) == (status, 1 - status)
    assert ("Nothing was changed." in result.stderr) is bool(status)


def test_a_missing_init_is_compiled_and_it_says_with_which_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = tmp_path / "mycc"
    compiler.touch(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setattr(Machine, "look", lambda *_: MissingParts("nothing", [], init=True))
    lines = " ".join(run().stderr.split())
    assert f"init compile the first process of containers with {compiler}" in lines
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "with zig, which pip fetches (80 MB) and nothing keeps" in " ".join(run().stderr.split())


def test_the_engine_alone(brought: list[MissingParts]) -> None:
    assert run("--yes", "--engine").exit_code == 0
    assert [list(missing.images) for missing in brought] == [[]]


def test_what_cannot_be_brought_ends_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(machine: Machine, *_: bool) -> MissingParts:
        raise EngineSetupError("No container engine answers.\n  Start it: …")

    monkeypatch.setattr(Machine, "look", look)
    result = run("--yes")
    assert (result.exit_code, result.stderr) == (1, "Error: No container engine answers.\n  Start it: …\n")


@pytest.mark.parametrize(
    "arguments",
    [("--remove", "--systemd"), ("--remove", "--rebuild"), ("--with-data",), ("--remove", "--engine")],
)
def test_options_that_contradict_each_other_are_refused(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2 and "goes with" in result.stderr


def test_a_damaged_record_is_named(state: Path) -> None:
    state.parent.mkdir()
    state.write_text("{")
    result = run("--remove")
    assert result.exit_code == 1 and f"cannot read {state}" in result.stderr


def test_a_removal_names_what_goes_and_asks(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    file = tmp_path / "daemon.json"
    record = SetupRecord.load(state)
    record.write_file(file, "{}\n")
    record.add_image("unix:///nowhere", "hearth-base:latest")
    refused = run("--remove")
    assert refused.exit_code == 1 and file.exists()
    assert f"files     {file}\n" in refused.stderr and "images    hearth-base:latest\n" in refused.stderr
    done = run("--remove", "--yes")
    assert (done.exit_code, file.exists()) == (1, False)
    assert "images    hearth-base:latest: no engine answers at unix:///nowhere" in done.stderr
    assert SetupRecord.load(state).images == {"unix:///nowhere": ["hearth-base:latest"]}, "for the next time"


def test_a_file_that_was_changed_stays(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    file = tmp_path / "functions.yaml"
    SetupRecord.load(state).write_file(file, "version: 1\n")
    file.write_text("version: 1\nfunctions: {mine: {}}\n")
    done = run("--remove", "--yes")
    assert "Nothing to remove" in done.stdout and file.exists()
