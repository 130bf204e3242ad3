"""The distribution hearth-client: what it imports, which of Hearth's files it shares, and its version."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import hearth
from pool import __version__
from tests.support.house_rules import LINES_OF_A_MODULE, banned_openings, long_functions

ROOT = Path(__file__).parents[3]
CLIENT = ROOT / "clients" / "python"
FLOORS = ("gateway", "scheduler", "pool", "runtimes")
PROJECT = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]
OWN = sorted(path for path in (CLIENT / "hearth").glob("*.py") if not path.is_symlink())


def imports(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the path of each module below a folder, and each top-level name that it imports."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in names:
                yield str(path.relative_to(folder)), name.partition(".")[0]


def test_it_imports_httpx_and_nothing_else() -> None:
    others = {
        (path, name)
        for path, name in imports(CLIENT)
        if name not in sys.stdlib_module_names and name != "hearth"
    }
    assert {name for _, name in others} == {"httpx", "pytest"}
    assert {path for path, name in others if name == "pytest"} == {"hearth/pytest_plugin.py"}
    assert PROJECT["dependencies"] == ["httpx>=0.27"]


def test_no_floor_imports_it() -> None:
    assert [path for floor in FLOORS for path, name in imports(ROOT / floor) if name == "hearth"] == []


def test_its_version_is_hearth_s() -> None:
    assert hearth.__version__ == __version__
    assert PROJECT["dynamic"] == ["version"]


def test_what_it_shares_with_hearth_is_linked_and_imports_nothing_of_it() -> None:
    linked = {path.name: path.resolve() for path in (CLIENT / "hearth").iterdir() if path.is_symlink()}
    assert {name: str(place.relative_to(ROOT)) for name, place in linked.items()} == {
        "_answer_headers.py": "gateway/http/answer_headers.py",
        "_shim.py": "runtimes/python/shim.py",
        "_version.py": "pool/__init__.py",
    }


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_its_own_modules_keep_the_rules_of_style(path: Path) -> None:
    text = path.read_text()
    assert (banned_openings(text), long_functions(text)) == (0, [])
    assert len(text.splitlines()) <= LINES_OF_A_MODULE
