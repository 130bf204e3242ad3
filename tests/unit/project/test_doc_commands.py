"""Every command that README and docs show is one that `hearth` and a shell understand."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gateway.cli import main
from tests.support.doc_commands import FILES, NOT_RUN, ShownCommand, calls_of_hearth, commands, complete

ALL = commands()


def parse(words: list[str]) -> None:
    """Raise `click.ClickException` if `hearth` does not understand these words. Nothing is run."""
    command: click.Command = main
    arguments, path = words, "hearth"
    context = click.Context(
        main, **main.context_settings
    )  # a command keeps the --help that it is first asked for
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        found = command.get_command(context, arguments[0])
        if found is None:
            raise click.UsageError(f"there is no command {path} {arguments[0]}")
        command, path, arguments = found, f"{path} {arguments[0]}", arguments[1:]
    if isinstance(command, click.Group) and "list" in command.list_commands(click.Context(command)):
        listing = command.get_command(click.Context(command), "list")
        assert listing is not None
        command = listing
    with suppress(click.exceptions.Exit):  # --help and --version
        command.make_context(path, list(arguments), parent=context)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that commands read."""
    place = tmp_path_factory.mktemp("reader")
    for name in FILES:
        (place / name).touch()
    return place


def test_commands_are_found_where_they_are_shown() -> None:
    pages = {command.page for command in ALL}
    assert {"README.md", "docs/cli.md", "docs/http-api.md", "docs/workflows.md"} <= pages
    assert len(ALL) > 100


@pytest.mark.parametrize("command", ALL, ids=str)
def test_hearth_understands_a_command_of_the_docs(
    command: ShownCommand, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for words in calls_of_hearth(command.text):
        parse(words)


def test_a_shell_understands_all_commands_of_the_docs() -> None:
    text = "\n".join(command.text for command in ALL)
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_each_reason_not_to_run_a_command_is_needed() -> None:
    for start, reason in NOT_RUN.items():
        assert any(command.why_not_run == reason for command in ALL), f"nothing begins with {start}"


def examples(command: click.Command, path: str = "hearth") -> Iterator[tuple[str, str]]:
    """Yield each line of a command's help that shows a call of `hearth`, and of those below it."""
    help_text = CliRunner().invoke(main, [*path.split()[1:], "--help"], terminal_width=200).output
    shown = (line for line in help_text.splitlines() if line.startswith("    "))
    pending = ""
    for line in shown:
        pending += re.split(" {2,}", line.strip())[0]  # an explanation may follow
        if complete(pending):
            yield path, pending
            pending = ""
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), name)
            assert found is not None
            yield from examples(found, f"{path} {name}")


def test_hearth_understands_the_examples_of_every_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        (tmp_path / name).touch()
    parsed = 0
    for path, line in examples(main):
        for words in calls_of_hearth(line):
            try:
                parse(words)
            except click.ClickException as error:
                pytest.fail(f"{path} --help: {line}: {error.format_message()}")
            parsed += 1
    assert parsed > 60
