"""Help texts of all commands: they fit a terminal and show how to use the command."""

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from gateway.cli import main


def commands(group: click.Group, *words: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command below a group, and of the group itself."""
    yield words
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from commands(command, *words, name)
        else:
            yield (*words, name)


ALL = list(commands(main))


def test_all_commands_are_found() -> None:
    assert {("serve",), ("jobs",), ("jobs", "retry"), ("keys", "create")} <= set(ALL)


@pytest.mark.parametrize("columns", (80, 100))
@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help_fits_a_terminal_and_has_an_example(words: tuple[str, ...], columns: int) -> None:
    shown = CliRunner().invoke(main, [*words, "--help"], terminal_width=columns)
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert [line for line in lines if len(line) > columns] == []
    assert any(line.startswith(f"    {' '.join(('hearth', *words))}") for line in lines)


@pytest.mark.parametrize("words", [words for words in ALL if words], ids=" ".join)
def test_the_summary_of_a_command_is_not_cut_in_the_list_of_commands(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(main, [*words[:-1], "--help"], terminal_width=80)
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith(f"  {words[-1]} ")]
    assert line.endswith(".") and not line.endswith("...")


def test_a_command_that_asks_a_gateway_does_not_load_one() -> None:
    """Each start of `hearth`, and each Tab, would take a quarter of a second longer."""
    program = (
        "import sys, gateway.cli.commands.watching.listings, gateway.cli.commands.calling.invoke\n"
        "print(*{name.partition('.')[0] for name in sys.modules} & {'pydantic', 'scheduler', 'fastapi', 'yaml'})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
