"""docs/architecture.md names every room and every module of production code, and none that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FLOORS = ("gateway", "scheduler", "pool")
ROW = re.compile(r"^\| `((?:gateway|scheduler|pool)/[\w/]*)` \| ([^|]*) \| ([^|]*) \|$", re.MULTILINE)
PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROWS = {room: (job, modules) for room, job, modules in ROW.findall(PAGE)}


def modules_of(room: str) -> set[str]:
    """Return the names of the modules that lie in a folder, but for those that Python itself wants."""
    return {path.stem for path in (ROOT / room).glob("*.py")} - {"__init__", "__main__"}


def rooms() -> set[str]:
    """Return every folder with modules, as the page writes it."""
    folders = {path.parent for floor in FLOORS for path in (ROOT / floor).rglob("*.py")}
    found = {f"{folder.relative_to(ROOT)}/" for folder in folders}
    return {room for room in found if modules_of(room)}


def test_the_tables_have_every_room() -> None:
    assert set(ROWS) == rooms()


@pytest.mark.parametrize("room", sorted(ROWS))
def test_the_row_of_a_room_has_its_modules_and_no_others(room: str) -> None:
    job, modules = ROWS[room]
    assert job.strip()
    assert set(re.findall(r"`([a-z_\d]+)`", modules)) == modules_of(room)


@pytest.mark.parametrize("room", sorted(rooms()))
def test_a_room_says_what_it_is_for(room: str) -> None:
    assert (ROOT / room / "__init__.py").read_text().startswith('"""')


def test_every_path_in_the_text_leads_to_a_module() -> None:
    named = set(re.findall(r"`([a-z_]+(?:/[a-z_]+)+)`", PAGE))
    missing = {
        path for path in named if not any((ROOT / floor / f"{path}.py").is_file() for floor in FLOORS)
    } - {path for path in named if (ROOT / path).is_dir()}
    assert not missing
