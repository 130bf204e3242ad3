"""The service of systemd: its unit, and the calls of systemctl, which a script on PATH writes down."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gateway.setup import service
from gateway.setup.record import SetupRecord
from gateway.setup.service import ServiceError, ServicePlaces, SystemService

SYSTEMCTL = """\
#!/bin/sh
echo "$@" >> {folder}/calls
case "$1" in
is-active|is-enabled) test -e {folder}/on ;;
enable) test -e {folder}/ends || touch {folder}/on ;;
restart|start) test ! -e {folder}/fails || {{ echo "Job for hearth.service failed." >&2; exit 1; }} ;;
esac
"""


STARTED = ["daemon-reload", "enable hearth", "restart hearth"]


class Machine:
    """A folder with a machine's files, and a systemctl that writes its calls down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places = ServicePlaces(
            functions=folder / "etc" / "functions.yaml",
            data_dir=folder / "data",
            unit=folder / "units" / "hearth.service",
            booted=folder / "booted",
        )
        self.places.booted.mkdir()
        self.service = SystemService(self.places)
        self.record = SetupRecord.load(folder / "setup.json")
        program = folder / "bin" / "systemctl"
        program.parent.mkdir()
        program.write_text(SYSTEMCTL.format(folder=folder))
        program.chmod(0o755)

    def calls(self) -> list[str]:
        """Return the calls of systemctl since the last time."""
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(service, "SETTLE_SECONDS", 0.0)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return made


def test_it_is_installed_started_and_then_left_alone(machine: Machine) -> None:
    assert machine.service.look() == [
        f"write {machine.places.functions}, without functions",
        f"write {machine.places.unit}",
        "start hearth.service, and again at each boot",
    ]
    machine.calls()
    machine.service.install(machine.record)
    assert machine.calls() == [*STARTED, "is-active --quiet hearth"]
    assert machine.places.unit.read_text() == machine.service.text()
    assert machine.places.data_dir.stat().st_mode & 0o777 == 0o700
    assert machine.service.look() == []
    assert machine.record.services == ["hearth"]
    assert set(machine.record.files) == {str(machine.places.functions), str(machine.places.unit)}


def test_functions_that_are_there_stay_and_a_changed_unit_is_restarted(machine: Machine) -> None:
    machine.service.install(machine.record)
    machine.places.functions.write_text("version: 1\nfunctions: {}\n# mine\n")
    machine.places.unit.write_text(machine.service.text().replace("[Unit]", "[Unit]\n# changed"))
    machine.calls()
    assert machine.service.look()[0] == f"write {machine.places.unit}"
    machine.calls()
    machine.service.install(machine.record)
    assert machine.calls() == [*STARTED, "is-active --quiet hearth"]
    assert machine.places.functions.read_text().endswith("# mine\n")


def test_only_a_unit_of_setup_is_overwritten(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PRIVATE", ())  # the tests' folder is one
    machine.service.install(machine.record)
    machine.places.unit.write_text(machine.service.text().replace("[Unit]", "[Unit]\n# changed"))
    machine.service.check()
    machine.places.unit.write_text("[Unit]\nDescription=another hearth\n")
    with pytest.raises(ServiceError, match="not of hearth setup; remove or rename it first"):
        machine.service.check()


def test_a_start_that_fails_names_the_log(machine: Machine) -> None:
    (machine.folder / "fails").touch()
    with pytest.raises(
        ServiceError, match=r"Job for hearth\.service failed\.\n  its log: journalctl -u hearth"
    ):
        machine.service.install(machine.record)
    assert machine.record.services == ["hearth"], "--remove disables it"


def test_a_service_that_ends_again_names_the_log(machine: Machine) -> None:
    (machine.folder / "ends").touch()
    with pytest.raises(ServiceError, match=r"has ended again; its log: journalctl -u hearth"):
        machine.service.install(machine.record)


def test_the_unit_names_program_folders_and_engine(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/other docker.sock")
    monkeypatch.setattr(sys, "prefix", "/nowhere")
    lines = machine.service.text().splitlines()
    assert 'Environment="DOCKER_HOST=unix:///run/other docker.sock"' in lines
    assert f"ReadWritePaths={machine.places.data_dir}" in lines
    (start,) = [line for line in lines if line.startswith("ExecStart=")]
    assert start.startswith(f"ExecStart={sys.executable} -P -m gateway.cli serve --functions ")
    assert "@" not in "".join(line for line in lines if not line.startswith(("#", "SystemCallFilter")))


@pytest.mark.parametrize("name", ["a b", "50%", 'say "x"', "back\\slash"])
def test_paths_of_all_kinds_are_quoted(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    text = SystemService(ServicePlaces(data_dir=folder)).text()
    (shown,) = [line for line in text.splitlines() if line.startswith("ReadWritePaths=")]
    value = shown.partition("=")[2].removeprefix('"').removesuffix('"')
    assert value.replace('\\"', '"').replace("\\\\", "\\").replace("%%", "%") == str(folder)


@pytest.mark.parametrize("places", [{"data_dir": Path("/tmp/data")}, {"functions": Path("/var/tmp/f.yaml")}])
def test_a_private_folder_is_refused(machine: Machine, places: dict[str, Path]) -> None:
    service = SystemService(ServicePlaces(booted=machine.places.booted, **places))
    with pytest.raises(ServiceError, match=r"has a /(var/)?tmp of its own; choose another place"):
        service.check()


def test_it_needs_root_and_systemd(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.places.booted.rmdir()
    with pytest.raises(ServiceError, match="hearth serve"):
        machine.service.check()
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(ServiceError, match=r"sudo .*hearth setup --systemd"):
        machine.service.check()
