"""Commands that the README and the pages in docs/ show: read from the files, so that none is forgotten."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]

OPERATOR = re.compile(r"[|;&<>()]+")
ASSIGNMENT = re.compile(r"[A-Z_]+=")

NOT_RUN = {
    r"make ": "sets this machine up, or takes minutes; test_make_targets.py looks at what it would do",
    r"docker ": "needs Docker's own command; test_gateway_image.py runs the image and the compose file",
    r"(HEARTH_\S+ )?hearth serve\b": "does not end by itself; the commands here ask a gateway that it has started",
    r"hearth init hello": "is for an empty folder; the examples have a function hello",
    r"python -m (pytest|tests)|git diff": "is for those who work on Hearth, in a checkout with its tests",
    r"hearth (dev|shell)\b": "goes on until its user ends it; test_dev.py and test_shell.py do",
    r"hearth prune --all": "is about every gateway of this machine",
    r"hearth (logs|calls) (.* )?(-f|--follow)\b|hearth top\b": "does not end by itself; its own tests stop it",
    r"curl -N .*(/logs|/calls)": "follows for as long as it is let; its own tests do the same",
    r"hearth setup": "changes this machine; the tests of gateway/setup try it out elsewhere",
    r"pipx ": "installs for the user; the tests of gateway/setup install the wheel elsewhere",
    r"python3 -m venv|app/bin/pip ": "asks a package index; test_client_installed.py does the same without",
}
"""What begins like this is parsed, but not run, and why."""

FILES = ("photo.jpg", "a.jpg", "order.json", "names.jsonl")
"""Files that commands read, and that a reader is thought to have."""


@dataclass(frozen=True)
class ShownCommand:
    """A command of a page: one line, or several that belong together."""

    page: str
    line: int
    text: str
    block: int
    """First line of the block that it is in."""

    @property
    def why_not_run(self) -> str | None:
        """Return the reason why no test runs it, or None if one does."""
        return next((reason for start, reason in NOT_RUN.items() if re.match(start, self.text)), None)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def commands() -> list[ShownCommand]:
    """Return every command of every page, in the order of the page."""
    return [command for page in PAGES for command in commands_of(page)]


def commands_of(page: Path) -> list[ShownCommand]:
    """Return the commands in the `sh` blocks and in the indented blocks of a page."""
    name = str(page.relative_to(ROOT))
    found = []
    for first, lines in blocks(page.read_text().splitlines()):
        pending: list[str] = []
        for number, line in enumerate(lines, first):
            pending.append(line)
            text = "\n".join(pending)
            if complete(text):
                if words_of(text):
                    place = number - len(pending) + 1
                    found.append(ShownCommand(name, place, text.replace(".venv/bin/", ""), first))
                pending = []
        assert not pending, f"{name}:{first}: the block ends within a command"
    return found


def blocks(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line, and the lines, of each block with commands."""
    language: str | None = None
    block: list[str] = []
    for number, line in enumerate([*lines, ""], 1):
        if language is not None:
            if not line.startswith("```"):
                block.append(line)
                continue
            if language == "sh":
                yield number - len(block), block
            language, block = None, []
        elif line.startswith("```"):
            language = line.removeprefix("```")
        elif line.startswith("    ") and (block or not lines[number - 2].strip()):
            block.append(line[4:])
        elif block:
            yield number - len(block), block
            block = []


def complete(text: str) -> bool:
    """Return whether a shell would run this text, and not wait for more of it."""
    try:
        words_of(text)
    except ValueError:
        return False
    return not text.endswith("\\")


def words_of(text: str) -> list[str]:
    """Return the words of a command; operators of the shell are words. Raises ValueError within quotes."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def calls_of_hearth(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each `hearth` in a command, also within `$(…)`."""
    for inner in re.findall(r"\$\((hearth [^)]*)\)", text):
        yield from calls_of_hearth(inner)
    words = words_of(text.replace("\\\n", " "))
    for place, word in enumerate(words):
        before = words[place - 1] if place else ";"
        if word == "hearth" and (OPERATOR.fullmatch(before) or ASSIGNMENT.match(before)):
            rest = words[place + 1 :]
            ends = (index for index, other in enumerate(rest) if OPERATOR.fullmatch(other))
            yield rest[: next(ends, len(rest))]
