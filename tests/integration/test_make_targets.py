"""What `make` would run on a machine where nothing is set up yet."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SET_UP, PACKAGES = "hearth setup --yes", "apt-get"
DEVELOPMENT = "deploy.dependencies dev"


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A checkout without .venv, of the files that make looks at."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    return tmp_path


def plan(folder: Path, *arguments: str) -> str:
    """The commands that make would run."""
    make = ["make", "--dry-run", "--no-print-directory", *arguments]
    return subprocess.run(make, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_serving_installs_no_tools_of_development(fresh: Path) -> None:
    planned = plan(fresh, "serve")
    assert [step for step in ("deploy/venv.sh", SET_UP, "hearth serve") if step not in planned] == []
    assert DEVELOPMENT not in planned and PACKAGES not in planned


@pytest.mark.parametrize("target", ["test", "lint", "bench", "coverage", "chaos", "soak", "mutants"])
def test_development_installs_them(fresh: Path, target: str) -> None:
    planned = plan(fresh, target)
    assert planned.index("deploy/venv.sh") < planned.index(DEVELOPMENT)


@pytest.mark.parametrize(
    "places", ["tests/unit", "tests/unit -k ledger", "tests/unit/pool/test_ledger.py tests/property"]
)
def test_unit_tests_need_no_engine_no_images_and_no_packages(fresh: Path, places: str) -> None:
    planned = plan(fresh, "test", f"ARGS={places}")
    assert f"pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder {places}" in planned
    assert [step for step in (SET_UP, PACKAGES) if step in planned] == []


@pytest.mark.parametrize("places", ["", "-k reaper", "tests/unit tests/acceptance", "tests"])
def test_all_other_tests_have_them(fresh: Path, places: str) -> None:
    planned = plan(fresh, "test", f"ARGS={places}")
    assert [step for step in (SET_UP, PACKAGES) if step not in planned] == []


def test_what_is_set_up_is_not_set_up_again(fresh: Path) -> None:
    (fresh / ".venv").mkdir()
    for stamp in (".serving", ".developing"):
        (fresh / ".venv" / stamp).touch()
    planned = plan(fresh, "lint")
    assert "deploy/venv.sh" not in planned and DEVELOPMENT not in planned and "ruff check" in planned
