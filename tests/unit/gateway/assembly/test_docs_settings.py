"""docs/settings.md documents every setting, with its option and its default; docs/cli.md every command."""

import re
from pathlib import Path

import click
import pytest

from gateway.assembly.settings import Settings
from gateway.cli import COMMANDS, main
from gateway.cli.common import DEFAULT_URL
from gateway.cli.given_settings import OTHERS, SECRET, default_of, option_of, variable_of

DOCS = Path(__file__).parents[4] / "docs"
SETTINGS = (DOCS / "settings.md").read_text()


def rows() -> dict[str, list[str]]:
    """Variable to the other cells of its row."""
    found: dict[str, list[str]] = {}
    for line in SETTINGS.splitlines():
        if line.startswith("| `HEARTH_"):
            variable, *cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            assert variable not in found, f"{variable} is documented twice"
            found[variable.strip("`")] = cells
    return found


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_setting_is_documented_with_its_option_and_default(name: str) -> None:
    option, default, meaning = rows()[variable_of(name)]
    assert option.startswith("none, ") if name in SECRET else option.strip("`") == option_of(name)
    assert default.strip("`") == default_of(name)
    assert meaning


def test_no_setting_is_documented_that_does_not_exist() -> None:
    assert set(rows()) == {variable_of(name) for name in Settings.model_fields} | OTHERS
    assert rows()["HEARTH_URL"][1].strip("`") == DEFAULT_URL


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_documented_and_its_help_has_examples(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert re.search(rf"^\| `hearth {name}\b", (DOCS / "cli.md").read_text(), re.MULTILINE)
    assert "Examples:" in (command.help or "")
    assert f"hearth {name}" in (command.help or "")


def test_every_option_of_the_help_says_what_it_is() -> None:
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts}"
