"""Adding a function to a functions.yaml, as `hearth init` does.

The file is edited as text, so that the user's comments and formatting stay. Then it is parsed again. The new text is
used only if it has the new entry and differs in nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml

from gateway.cli.scaffold.templates import DEFINITIONS, FunctionTemplate, ScaffoldError, read_template
from scheduler.definitions.file import DefinitionsError, load
from scheduler.definitions.language.located_yaml import parse

Kind = Literal["handler", "http", "command"]

TEMPLATE_OF: dict[Kind, str] = {"handler": "python", "http": "http-image", "command": "command"}


def create(folder: Path, name: str, kind: Kind) -> tuple[list[Path], list[str]]:
    """Write a function into `folder`, declare it, and return the written files and the commands to try next.

    Raises `ScaffoldError` if the name is invalid or taken, if a file exists already, or if functions.yaml cannot be
    edited; and OSError.
    """
    made = read_template(TEMPLATE_OF[kind], name)
    file = folder / "functions.yaml"
    source = folder / "functions" / name
    sources = made.sources()
    if sources and source.exists():
        raise ScaffoldError(f"{source} exists already, and nothing is overwritten; choose another name")
    text = declared(file, made, name)
    written = []
    for path, content in sources.items():
        source.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
        written.append(folder / path)
    target = file.resolve()  # a link stays one
    fresh = target.with_name(f".{target.name}.new")
    fresh.write_bytes(text.encode())
    if target.exists():
        fresh.chmod(target.stat().st_mode & 0o777)
    fresh.replace(target)
    return [*written, file], [step.replace("hearth dev", "hearth serve") for step in made.next_steps]


def declared(file: Path, made: FunctionTemplate, name: str) -> str:
    """Return the text of functions.yaml with the entry. Raises `ScaffoldError`."""
    if not file.exists():
        return made.files[DEFINITIONS]
    text = file.read_bytes().decode(errors="surrogateescape")
    try:
        if name in load(file).functions:
            raise ScaffoldError(f"{file} has a function {name} already; choose another name")
    except DefinitionsError as error:
        # Only `hearth serve` knows which volumes its settings allow, so faults about them do not matter here.
        if any("HEARTH_ALLOWED_VOLUMES" not in fault.message for fault in error.faults):
            raise ScaffoldError(f"{file} has faults; fix them first:\n{error}") from error
    entry = made.entry()
    added = with_entry(text, entry)
    if not differs_only_by(name, text, added, file):
        lines = "\n".join(f"  {line}" for line in entry)
        raise ScaffoldError(f"cannot edit {file} because of its format; add this entry yourself:\n{lines}")
    return added


def with_entry(text: str, entry: list[str]) -> str:
    """Return the text with the entry at the end of `functions`, indented like the others."""
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith(("\n", "\r")):
        lines[-1] += newline
    place = functions_node(text)
    if place is None:
        return text
    key, value = place
    if isinstance(value, yaml.MappingNode) and not value.value:  # functions: {}
        number = value.start_mark.line
        after = lines[value.end_mark.line][value.end_mark.column :].rstrip()
        lines[number : value.end_mark.line + 1] = [
            lines[number][: value.start_mark.column].rstrip()
            + ("  " + after.strip() if after else "")
            + newline
        ]
        indent, at = key.start_mark.column + 2, number + 1
    else:
        indent, at = value.start_mark.column, value.end_mark.line
        if value.end_mark.column and at < len(lines):
            at += 1
        # A comment or blank line before the next section belongs to that section.
        while at and belongs_to_next_section(lines[at - 1], indent):
            at -= 1
    shown = [" " * indent + line + newline for line in entry]
    several = isinstance(value, yaml.MappingNode) and len(value.value) > 1
    spaced = several and not lines[value.value[-1][0].start_mark.line - 1].strip()
    return "".join([*lines[:at], *([newline] if spaced else []), *shown, *lines[at:]])


def belongs_to_next_section(line: str, indent: int) -> bool:
    """Return whether a line is blank, or a comment with less indentation than the functions."""
    stripped = line.lstrip()
    return not stripped or (stripped.startswith("#") and len(line) - len(stripped) < indent)


def functions_node(text: str) -> tuple[yaml.Node, yaml.Node] | None:
    """Return the nodes of the key `functions` at the root and of its value, or None if there is none."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    return next(((key, value) for key, value in pairs if key.value == "functions"), None)


def differs_only_by(name: str, before: str, after: str, file: Path) -> bool:
    """Return whether `after` has one more function than `before`, called `name`, and no other difference."""
    old: Any = parse(before, file).data
    new = parse(after, file)
    if new.faults or not isinstance(new.data, dict) or not isinstance(old, dict):
        return False
    functions = dict(new.data.get("functions") or {})
    added = functions.pop(name, None)
    return isinstance(added, dict) and {**new.data, "functions": functions} == old
