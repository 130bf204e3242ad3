"""Hearth's version: said in one place, and read by everything that shows it."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.assembly.runtime import Runtime
from gateway.assembly.settings import Settings
from gateway.cli import main
from gateway.edge.app import build_app
from pool import __version__
from pool.clock import LoopClock
from pool.data_folder import DataFolder
from pool.engine.memory import MemoryEngine

ROOT = Path(__file__).parents[3]
CODE = ("gateway", "scheduler", "pool", "runtimes", "deploy")
SAYING = (".py", ".sh", ".html", "Dockerfile")
"""Ends of the names of files that could say it."""
SOURCES = [ROOT / name for name in ("pyproject.toml", "Makefile", "functions.yaml")] + [
    path for floor in CODE for path in (ROOT / floor).rglob("*") if path.name.endswith(SAYING)
]


def test_it_is_said_in_one_place() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", __version__)
    saying = [str(path.relative_to(ROOT)) for path in SOURCES if f'"{__version__}"' in path.read_text()]
    assert saying == ["pool/__init__.py"]


def test_the_distribution_reads_it_there() -> None:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in content["project"] and content["project"]["dynamic"] == ["version"]
    assert content["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "pool.__version__"}


def test_the_command_says_it_where_hearth_is_not_an_installed_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the gateway's image it is on the path only."""

    def not_installed(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", not_installed)
    said = CliRunner().invoke(main, ["--version"])
    assert (said.exit_code, said.output) == (0, f"hearth, version {__version__}\n")


async def test_the_api_s_document_says_it(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    runtime = Runtime(Settings(), folder, MemoryEngine(LoopClock()))
    assert build_app(runtime.api_parts).version == __version__
    folder.close()


def test_the_changelog_has_a_section_and_a_note_for_it() -> None:
    released = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == __version__
    minor = ".".join(__version__.split(".")[:2])
    assert (ROOT / "docs" / "releases" / f"{minor}.md").read_text().startswith(f"# Hearth {minor}\n")
