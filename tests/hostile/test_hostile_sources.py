"""Source folders as attackers. There are no archives to unpack: sources are folders, packages are wheels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from harness import Gateway, eventually, handler

ECHO = "def handle(event, context):\n    return open('/function/data').read()\n"
SECRET = "what nobody outside may read"


def link_to_a_file(folder: Path, outside: Path) -> None:
    (folder / "data").symlink_to(outside / "secret")


def link_up_and_out(folder: Path, outside: Path) -> None:
    (folder / "data").symlink_to(Path("..") / ".." / outside.name / "secret")


def link_to_a_folder(folder: Path, outside: Path) -> None:
    (folder / "package").symlink_to(outside)


def link_by_way_of_proc(folder: Path, outside: Path) -> None:
    (folder / "data").symlink_to(f"/proc/self/root{outside}/secret")


def endless_device(folder: Path, outside: Path) -> None:
    (folder / "data").symlink_to("/dev/zero")


def sparse_file(folder: Path, outside: Path) -> None:
    with (folder / "data").open("wb") as file:
        file.truncate(2**40)


ATTACKS = (
    link_to_a_file,
    link_up_and_out,
    link_to_a_folder,
    link_by_way_of_proc,
    endless_device,
    sparse_file,
)


def test_serve_refuses_sources_that_reach_outside(tmp_path: Path):
    """All of them are found in one look, before the data folder or the engine is touched."""
    here, outside = tmp_path / "here", tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text(SECRET)
    lines = ["version: 1", "functions:"]
    for attack in ATTACKS:
        folder = here / attack.__name__
        folder.mkdir(parents=True)
        (folder / "handler.py").write_text(ECHO)
        attack(folder, outside)
        keys = f"runtime: python, source: {folder.name}, handler: 'handler:handle'"
        lines.append(f"  {folder.name.replace('_', '-')}: {{{keys}}}")
    file = here / "functions.yaml"
    file.write_text("\n".join(lines))
    command = [Path(sys.executable).with_name("hearth"), "serve", "--functions", file, "--port", "0"]
    ran = subprocess.run(
        [*command, "--data-dir", tmp_path / "data"], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode != 0
    for line, attack in enumerate(ATTACKS, start=3):
        assert f"{file}:{line}:" in ran.stderr, attack.__doc__ or attack.__name__
    assert SECRET not in ran.stdout + ran.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.engine
def test_a_link_that_comes_later_is_not_followed_and_what_is_in_service_stays(tmp_path: Path):
    (tmp_path / "secret").write_text(SECRET)
    with Gateway(tmp_path, {"evil": handler(ECHO)}) as gateway:
        gateway.write("evil/data", "its own")
        eventually(lambda: gateway.call("evil").text == "its own")
        (tmp_path / "evil" / "data~").symlink_to(tmp_path / "secret")
        (tmp_path / "evil" / "data~").replace(tmp_path / "evil" / "data")
        eventually(lambda: "data is a link that leaves the folder" in gateway.log)
        assert gateway.call("evil").text == "its own"
        assert SECRET not in gateway.log
