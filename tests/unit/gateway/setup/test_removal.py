"""`hearth setup --remove` on machines whose engine setup has not brought."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from gateway.setup.engine import Places
from gateway.setup.engine_api import EngineApi
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
