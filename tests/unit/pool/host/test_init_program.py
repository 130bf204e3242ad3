"""The init program in a folder that containers mount."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from pool.host.init_program import InitMissing, file_name, installed_init, place_init


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    folder = tmp_path / "installed"
    folder.mkdir()
    (folder / file_name(platform.machine())).write_bytes(b"program")
    return folder


def test_it_gets_a_folder_of_its_own_that_every_user_can_read(installed: Path, tmp_path: Path) -> None:
    placed = place_init(tmp_path / "init", installed)
    assert [path.name for path in placed.folder.iterdir()] == ["init"]
    assert (placed.folder / "init").read_bytes() == b"program"
    assert placed.digest in placed.folder.name
    for path in (placed.folder, placed.folder / "init"):
        assert path.stat().st_mode & 0o777 == 0o755


def test_it_is_copied_once_and_an_older_one_stays(installed: Path, tmp_path: Path) -> None:
    first = place_init(tmp_path / "init", installed)
    made = (first.folder / "init").stat().st_mtime_ns
    assert place_init(tmp_path / "init", installed) == first
    assert (first.folder / "init").stat().st_mtime_ns == made
    (installed / file_name(platform.machine())).write_bytes(b"newer")
    second = place_init(tmp_path / "init", installed)
    assert sorted((tmp_path / "init").iterdir()) == sorted([first.folder, second.folder])


def test_a_missing_one_is_named_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(InitMissing, match="no init program for aarch64; run `hearth setup`"):
        installed_init("aarch64", tmp_path)
    with pytest.raises(InitMissing, match="it exists for x86_64 and aarch64"):
        installed_init("riscv64", tmp_path)
