"""Templates of functions: folders of files. The word FUNCTION in them stands for the function's name.

`functions.yaml` of a template declares its functions. `next` has the commands to try afterwards, and is not written.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from scheduler.definitions.language.key_types import NAME
from scheduler.deploy.images.runtimes import BASE_IMAGE, EXAMPLE_IMAGES

FILES = Path(__file__).with_name("files")
SUFFIX = ".tmpl"
"""Ends the name of each file of a template, so that nobody takes it for a part of Hearth."""
IMAGES = {"BASE_IMAGE": BASE_IMAGE, "BUSYBOX_IMAGE": EXAMPLE_IMAGES[0]}
"""Other words, and the images that they stand for."""
DEFINITIONS, NEXT = "functions.yaml", "next"
TEMPLATES = {
    "python": "a Python handler",
    "async": "an async handler: one instance serves several calls",
    "command": "an image with a command: body to stdin, stdout back",
    "http-image": "an image that serves HTTP",
    "workflow": "three functions, and a workflow of them",
    "schedule": "a function that runs by the clock",
    "webhook": "a function that is told of pushes to a repository",
}
"""Description of each template, by name."""


class ScaffoldError(Exception):
    """Nothing was written. The message says why, and what to do."""


@dataclass(frozen=True)
class FunctionTemplate:
    """A template whose words are those of one function."""

    files: dict[str, str]
    """Content by path, functions.yaml among them."""
    next_steps: list[str]
    """Commands to try."""

    def sources(self) -> dict[str, str]:
        """Return the files of the functions themselves."""
        return {path: text for path, text in self.files.items() if path.startswith("functions/")}

    def entry(self) -> list[str]:
        """Return the lines below `functions`, without common indentation."""
        _, _, section = self.files[DEFINITIONS].partition("\nfunctions:\n")
        return [line.removeprefix("  ") for line in section.splitlines()]


def read_template(template: str, name: str) -> FunctionTemplate:
    """Return a template with the name of a function. Raises `ScaffoldError` if the name is not valid."""
    if not re.fullmatch(NAME, name):
        raise ScaffoldError(
            f"{name!r} is not a valid name of a function; use 1 to 63 lower-case letters, digits, - or _, "
            "beginning with a letter"
        )
    folder = FILES / template
    words = {"FUNCTION": name, "SECRET_TEXT": secrets.token_hex(20), **IMAGES}

    def named(text: str) -> str:
        return re.sub("|".join(words), lambda word: words[word[0]], text)

    files = {
        named(str(file.relative_to(folder))).removesuffix(SUFFIX): named(file.read_text())
        for file in sorted(folder.rglob(f"*{SUFFIX}"))
    }
    steps = files.pop(NEXT).splitlines()
    return FunctionTemplate(files, steps)


def write_new(folder: Path, template: FunctionTemplate) -> list[Path]:
    """Write all files of a template into a new folder, and return them. Raises `ScaffoldError` and OSError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ScaffoldError(
            f"{folder} exists already, and nothing is overwritten; choose another name or --folder"
        )
    written = []
    for path, text in template.files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(0o600 if path.endswith(".secret") else 0o666)
        file.write_text(text)
        written.append(file)
    return written
