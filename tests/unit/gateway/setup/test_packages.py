"""Debian packages, with an apt-get that writes its calls down and answers as the real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.setup import packages
from gateway.setup.packages import PackagesError

APT_GET = """\
#!/bin/sh
echo "$@" >> {folder}/calls
case "$*" in
*broken*) echo "E: Unable to locate package broken"; exit 100 ;;
"--simulate install"*)
    echo "Inst runc (1.1.5+ds1-1+deb12u1 Debian:12.8/stable [amd64])"
    echo "Inst openssl [3.0.14-1] (3.0.15-1 Debian:12.8/stable [amd64])"
    echo "Inst docker.io:amd64 (20.10.24+dfsg1-1 Debian:12.8/stable [amd64]) []"
    echo "Conf runc (1.1.5+ds1-1+deb12u1 Debian:12.8/stable [amd64])" ;;
"--simulate purge"*) echo "Purg docker.io [20.10.24]"; echo "Remv docker-compose [1.29.2]" ;;
*Status-Fd=*)
    for word in "$@"; do case $word in *Status-Fd=*) fd=${{word##*=}} ;; esac; done
    echo "pmstatus:runc:50.0:Unpacking runc" > /dev/fd/$fd ;;
esac
"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "apt-get"
    program.write_text(APT_GET.format(folder=tmp_path))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_new_packages_are_noted_before_they_come_and_upgraded_ones_are_not(machine: Path) -> None:
    shown: list[tuple[str, float | None]] = []
    noted: list[str] = []

    def note(names: list[str]) -> None:
        noted.extend(names)
        assert (machine / "calls").read_text().splitlines()[-1].startswith("--simulate install")

    packages.install(["docker.io"], lambda text, done: shown.append((text, done)), note)
    assert noted == ["runc", "docker.io"]
    assert ("Unpacking runc", 0.5) in shown
    assert (
        (machine / "calls")
        .read_text()
        .splitlines()[-1]
        .endswith("install -y --no-install-recommends docker.io")
    )


def test_packages_that_need_ours_are_found() -> None:
    assert packages.needed_by_others(["docker.io"]) == ["docker-compose"]
    assert packages.needed_by_others(["docker.io", "docker-compose"]) == []


def test_a_failure_shows_what_apt_get_said() -> None:
    with pytest.raises(PackagesError, match="Unable to locate package broken"):
        packages.install(["broken"], lambda text, done: None, lambda names: None)


@pytest.mark.parametrize(
    ("release", "debian"),
    [
        ("ID=debian\n", True),
        ('NAME=x\nID="ubuntu"\n', True),
        ("ID=fedora\nID_LIKE=debian\n", False),
        (None, False),
    ],
)
def test_debian_and_ubuntu_are_known(
    machine: Path, monkeypatch: pytest.MonkeyPatch, release: str | None, debian: bool
) -> None:
    file = machine / "os-release"
    monkeypatch.setattr(packages, "RELEASE", file)
    if release is not None:
        file.write_text(release)
    assert packages.is_debian() is debian
