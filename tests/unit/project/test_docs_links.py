"""Links between the pages lead somewhere. Commands that README and docs/cli.md show exist with their options."""

import re
import shlex
from pathlib import Path

import click
import pytest

from gateway.cli import main

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
CODE = re.compile(r"```.*?```", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
COMMAND = re.compile(r"^(?: {4}|.*\| )?(?:\.venv/bin/)?(hearth .*)$", re.MULTILINE)


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = HEADING.findall(CODE.sub("", page.read_text()))
    shown = (LINK.sub("", heading).replace("[", "") for heading in headings)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in shown}


def is_broken(page: Path, target: str) -> bool:
    """Return whether a link of a page leads to no file, or to no heading of it."""
    name, _, anchor = target.partition("#")
    linked = page.parent / name if name else page
    return not linked.exists() or bool(anchor and anchor not in anchors_of(linked))


def commands_in(page: Path) -> list[str]:
    """Return the `hearth` command lines in the code of a page, each on one line."""
    code = CODE.findall(page.read_text()) if page.name == "README.md" else [page.read_text()]
    return [line for block in code for line in COMMAND.findall(block.replace("\\\n", " "))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    targets = LINK.findall(CODE.sub("", page.read_text()))
    local = [target for target in targets if not target.startswith(("http", "mailto:"))]
    assert [target for target in local if is_broken(page, target)] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "cli.md"], ids=lambda page: page.stem)
def test_each_command_shown_exists_with_its_options(page: Path) -> None:
    lines = commands_in(page)
    assert len(lines) >= 10
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        words = words[: words.index("--")] if "--" in words else words
        command: click.Command = main
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None, line
            command = found
        known = {option for parameter in command.params for option in parameter.opts}
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= known, line
