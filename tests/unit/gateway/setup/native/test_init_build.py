"""Building init: it is built anew when its sources have changed, and says what to do where there is no compiler."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from gateway.setup.native import init_build
from gateway.setup.native.init_build import InitBuildError, build, is_current, own_compiler, sources_digest
from pool.host.init_program import file_name


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that writes its arguments into what it makes."""
    program = tmp_path / "compiler"
    program.write_text(
        '#!/bin/sh\nfor word; do [ "$last" = -o ] && to=$word; last=$word; done\necho "$@" >$to\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("CC", str(program))
    return program


def test_the_machine_s_own_compiler_builds_all_sources(compiler: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    assert not is_current(platform.machine(), folder)
    made = build(folder=folder)
    assert made == folder / file_name(platform.machine()) and made.stat().st_mode & 0o777 == 0o755
    words = made.read_text().split()
    assert {"-nostdlib", "-static"} <= set(words)
    assert {Path(word).name for word in words if word.endswith(".c")} >= {"main.c", "loop.c", "relay.c"}
    assert is_current(platform.machine(), folder)
    assert sorted(path.name for path in folder.iterdir()) == [made.name, f"{made.name}.sources"]


def test_it_is_outdated_when_a_source_has_changed(
    compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "main.c").write_text("one")
    monkeypatch.setattr(init_build, "SOURCES", sources)
    build(folder=tmp_path / "bin")
    first = sources_digest()
    (sources / "main.c").write_text("two")
    assert sources_digest() != first and not is_current(platform.machine(), tmp_path / "bin")


def test_what_a_compiler_says_is_shown(compiler: Path, tmp_path: Path) -> None:
    compiler.write_text("#!/bin/sh\necho 'main.c:1: no' >&2\nexit 1\n")
    with pytest.raises(InitBuildError, match=f"{compiler} cannot compile init:\nmain.c:1: no"):
        build(folder=tmp_path / "bin")
    assert list((tmp_path / "bin").iterdir()) == []


def test_without_any_compiler_it_says_which_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert own_compiler() is None
    with pytest.raises(InitBuildError, match=r"pip could not fetch one[\s\S]*Install gcc or clang"):
        build(folder=tmp_path / "bin")


def test_a_machine_without_an_init_is_named(tmp_path: Path) -> None:
    with pytest.raises(InitBuildError, match="init runs on x86_64 and aarch64, not on riscv64"):
        build("riscv64", tmp_path)
