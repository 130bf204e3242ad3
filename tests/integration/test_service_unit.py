"""The unit of the service, as systemd's own tool judges it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gateway.setup.service import ServicePlaces, SystemService

EXPOSURE = 45
"""Tenths of systemd-analyze's measure that the unit may have, of 100. A unit without any hardening has 96."""


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    file = tmp_path / "hearth.service"
    file.write_text(SystemService(ServicePlaces(data_dir=tmp_path / "a data folder, 100%")).text())
    return file


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True)


def test_systemd_understands_every_line(unit: Path) -> None:
    done = analyze("verify", "--man=no", unit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    unit.write_text(unit.read_text().replace("ProtectSystem=strict", "ProtectSystem=strictly"))
    assert "strictly" in analyze("verify", "--man=no", unit).stderr


def test_it_is_hardened(unit: Path) -> None:
    judged = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", unit)
    assert judged.returncode == 0, judged.stdout
    unit.write_text(unit.read_text().replace("SystemCallFilter", "#").replace("CapabilityBoundingSet", "#"))
    assert analyze("security", "--offline=true", f"--threshold={EXPOSURE}", unit).returncode != 0
