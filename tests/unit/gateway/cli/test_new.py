"""`hearth new` writes a function with a test that passes at once, and overwrites nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.cli.scaffold.templates import FILES, TEMPLATES
from scheduler.definitions.file import load

CLIENT = Path(__file__).parents[4] / "clients" / "python"


def new(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["new", *map(str, words)])


def own_tests(folder: Path) -> str:
    """Run a folder's own tests as its user would, and return what pytest says."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "-W", "error"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(CLIENT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_is_valid_and_its_own_test_passes(tmp_path: Path, template: str) -> None:
    folder = tmp_path / "made"
    result = new("on-push", "--template", template, "--folder", folder)
    assert result.exit_code == 0, result.output
    definitions = load(folder / "functions.yaml")
    assert definitions.functions and all(name.startswith("on-push") for name in definitions.functions)
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert {f"wrote {file}" for file in files} <= set(result.output.splitlines())
    assert not [file for file in files if "FUNCTION" in file.read_text() or "_IMAGE" in file.read_text()]
    assert f"\nNext:\n  cd {folder}\n  pytest\n" in result.output
    assert " passed" in own_tests(folder)


def test_a_test_of_a_template_can_fail(tmp_path: Path) -> None:
    new("hello", "--folder", tmp_path / "hello")
    handler = tmp_path / "hello/functions/hello/handler.py"
    handler.write_text(handler.read_text().replace("Hello", "Hallo"))
    with pytest.raises(AssertionError, match="2 failed"):
        own_tests(tmp_path / "hello")


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert new("hello").exit_code == 0
    again = new("hello", "--template", "async")
    assert (again.exit_code, "hello exists already, and nothing is overwritten" in again.stderr) == (2, True)
    bad = new("No Name")
    assert (bad.exit_code, "is not a valid name of a function" in bad.stderr) == (2, True)
    assert [each.name for each in tmp_path.iterdir()] == ["hello"]
    unknown = new("x", "--template", "pyhton")
    assert (unknown.exit_code, "'python'" in unknown.stderr) == (2, True)


def test_a_secret_is_new_each_time_and_for_its_owner_alone(tmp_path: Path) -> None:
    for name in ("one", "two"):
        new(name, "--template", "webhook", "--folder", tmp_path / name)
    first, second = (tmp_path / name / "github.secret" for name in ("one", "two"))
    assert len(first.read_text()) == 41 and first.read_text() != second.read_text()
    assert first.stat().st_mode & 0o777 == 0o600


def test_every_template_is_described_and_has_what_a_new_folder_needs() -> None:
    folders = {folder.name: folder for folder in FILES.iterdir()}
    assert set(folders) == set(TEMPLATES)
    for folder in folders.values():
        assert {"functions.yaml.tmpl", "next.tmpl", "tests"} <= {each.name for each in folder.iterdir()}
