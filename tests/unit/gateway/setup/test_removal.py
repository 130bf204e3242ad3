"""`hearth setup --remove` on machines whose engine setup has not brought."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from gateway.setup.engine import Places
from gateway.setup.engine_api import EngineApi, EngineForbiddenError, EngineSilentError
from gateway.setup.record import SetupRecord
from gateway.setup.removal import SetupRemoval

PROGRAMS = {
    "dpkg-query": "echo mmdebstrap installed",
    "apt-get": """echo "$@" >> {folder}/calls; echo "Purg mmdebstrap [1.3]" """,
    "systemctl": """echo "$@" >> {folder}/calls""",
}


@pytest.fixture
def record(tmp_path: Path) -> SetupRecord:
    return SetupRecord(tmp_path / "record.json")


@pytest.fixture
def removal(tmp_path: Path, record: SetupRecord, monkeypatch: pytest.MonkeyPatch) -> SetupRemoval:
    """A removal, with `PROGRAMS` in place of the machine's, and an engine that has a container."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in PROGRAMS.items():
        (folder / name).write_text(f"#!/bin/sh\n{text.format(folder=tmp_path)}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    places = Places(**{place.name: tmp_path / place.name for place in fields(Places)})
    monkeypatch.setattr(EngineApi, "containers", lambda _: ["database"])
    return SetupRemoval(record, places, None)


def test_a_package_goes_although_the_users_own_engine_has_containers(
    removal: SetupRemoval, record: SetupRecord, tmp_path: Path
) -> None:
    record.add_packages(["mmdebstrap"])
    removal.run()
    assert removal.left == [], "nobody is told to remove containers of an engine that is not ours"
    assert "purge -y mmdebstrap" in (tmp_path / "calls").read_text()
    assert SetupRecord.load(tmp_path / "record.json").empty


@pytest.mark.parametrize("package", ["docker.io", "mmdebstrap"])
def test_an_engine_of_ours_with_containers_stays_with_its_packages(
    removal: SetupRemoval, record: SetupRecord, tmp_path: Path, package: str
) -> None:
    record.add_packages([package])
    if package != "docker.io":
        record.add_service("docker")
    removal.run()
    assert removal.left == [("engine", "it has containers: database. Remove them, then run this again")]
    assert not (tmp_path / "calls").exists()


def fail_with(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Have the engine fail when it is asked for its containers."""

    def fail(_: EngineApi) -> list[str]:
        raise error

    monkeypatch.setattr(EngineApi, "containers", fail)


def test_an_engine_that_this_user_may_not_ask_is_not_taken_for_empty(
    removal: SetupRemoval, record: SetupRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, EngineForbiddenError("Permission denied"))
    record.add_service("docker")
    with pytest.raises(EngineForbiddenError):
        removal.run()
    assert not (tmp_path / "calls").exists()


def test_an_engine_of_ours_that_runs_and_does_not_answer_stays(
    removal: SetupRemoval, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, EngineSilentError("timed out"))
    shutil.copy("/bin/sleep", tmp_path / "dockerd")
    with subprocess.Popen([tmp_path / "dockerd", "60"]) as daemon:
        (tmp_path / "state").write_text(json.dumps({"dockerd": daemon.pid}))
        removal.run()
        assert daemon.poll() is None
        daemon.kill()
    assert removal.left == [("engine", "it runs, but does not say whether it has containers: timed out")]


def test_a_service_is_disabled_where_no_dpkg_is(
    removal: SetupRemoval, record: SetupRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EngineApi, "containers", lambda _: [])
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin" / "dpkg-query").unlink()
    record.add_service("docker")
    removal.run()
    assert (tmp_path / "calls").read_text() == "disable --now docker\n"
    assert SetupRecord.load(tmp_path / "record.json").empty
