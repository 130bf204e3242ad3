"""First functions that `hearth init` writes, and their entries in functions.yaml.

The file is edited as text, so that the user's comments and formatting stay. Then it is parsed again. The new text is
used only if it has the new entry and differs in nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from scheduler.definitions.file import DefinitionsError, load
from scheduler.definitions.language.key_types import NAME
from scheduler.definitions.language.located_yaml import parse
from scheduler.deploy.images.runtimes import BASE_IMAGE, EXAMPLE_IMAGES

Kind = Literal["handler", "http", "command"]

NEW_FILE = """\
# Functions of this gateway. All keys and their defaults: docs/functions-yaml.md
version: 1
"""
PREWARM = "prewarm: {python: 1}                  # instances kept ready for any function, by runtime\n"

HANDLER = '''\
"""{name}: call it with hearth invoke {name} --data '{{"name":"Ada"}}'"""


def handle(event, context):
    # event: the parsed JSON of the request, bytes for other content types, None without a body.
    # context: invocation_id, function, version, remaining(), method, path, query, headers.
    name = event.get("name", "world") if isinstance(event, dict) else "world"
    print("greeting", name)  # in the invocation's log: hearth logs INVOCATION_ID
    return {{"message": f"Hello, {{name}}!"}}  # JSON; or bytes, text, (body, status, headers), a generator
'''

SERVER = '''\
"""{name}: an ordinary HTTP server that knows nothing about Hearth. It answers although it has no network."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"{name} was asked for {{self.path}}\\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8000"))), Handler).serve_forever()
'''

DOCKERFILE = f"""\
# You can use any image that serves HTTP; `hearth setup` builds this one.
FROM {BASE_IMAGE}
COPY server.py /app/server.py
ENV PYTHONUNBUFFERED=1
CMD ["python3", "/app/server.py"]
"""


class ScaffoldError(Exception):
    """Nothing was written. The message says why, and what to do."""


@dataclass
class Scaffold:
    """Text of a new function: its entry, its files, and the commands to try next."""

    entry: list[str]
    """Lines of the entry, without common indentation."""
    files: dict[str, str] = field(default_factory=dict)
    """Content by name of the file in functions/NAME."""
    next_steps: list[str] = field(default_factory=list)


def template(name: str, kind: Kind) -> Scaffold:
    """Return a new function of this kind."""
    if kind == "handler":
        return Scaffold(
            [f"{name}:", "  runtime: python", f"  source: functions/{name}", "  handler: handler:handle"],
            {"handler.py": HANDLER.format(name=name)},
            ["hearth serve", f"""hearth invoke {name} --data '{{"name":"Ada"}}'"""],
        )
    if kind == "http":
        image = f"{name}:latest"
        return Scaffold(
            [
                f"{name}:",
                f"  image: {image}",
                "  port: 8000                        # also in the variable PORT",
            ],
            {"server.py": SERVER.format(name=name), "Dockerfile": DOCKERFILE},
            [
                f"docker build --tag {image} functions/{name}",
                "hearth serve",
                f"hearth invoke {name} --path /",
            ],
        )
    return Scaffold(
        [
            f"{name}:                             # body to stdin, stdout is the answer",
            f"  image: {EXAMPLE_IMAGES[0]}",
            "  command: [wc, -w]",
        ],
        next_steps=["hearth serve", f"printf 'one two three' | hearth invoke {name} -"],
    )


def create(folder: Path, name: str, kind: Kind) -> tuple[list[Path], list[str]]:
    """Write a function into `folder`, declare it, and return the written files and the commands to try next.

    Raises `ScaffoldError` if the name is invalid or taken, if a file exists already, or if functions.yaml cannot be
    edited; and OSError.
    """
    if not re.fullmatch(NAME, name):
        raise ScaffoldError(
            f"{name!r} is not a valid name of a function; use 1 to 63 lower-case letters, digits, - or _, "
            "beginning with a letter"
        )
    made = template(name, kind)
    file = folder / "functions.yaml"
    source = folder / "functions" / name
    if made.files and source.exists():
        raise ScaffoldError(f"{source} exists already, and nothing is overwritten; choose another name")
    text = declared(file, made.entry, name)
    written = []
    for file_name, content in made.files.items():
        source.mkdir(parents=True, exist_ok=True)
        (source / file_name).write_text(content)
        written.append(source / file_name)
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_bytes(text.encode())
    if file.exists():
        fresh.chmod(file.stat().st_mode & 0o777)
    fresh.replace(file)
    return [*written, file], made.next_steps


def declared(file: Path, entry: list[str], name: str) -> str:
    """Return the text of functions.yaml with the entry. Raises `ScaffoldError`."""
    if not file.exists():
        prewarm = PREWARM if "  runtime: python" in entry else ""
        return NEW_FILE + prewarm + "\nfunctions:\n" + "".join(f"  {line}\n" for line in entry)
    text = file.read_bytes().decode(errors="surrogateescape")
    try:
        if name in load(file).functions:
            raise ScaffoldError(f"{file} has a function {name} already; choose another name")
    except DefinitionsError as error:
        # Only `hearth serve` knows which volumes its settings allow, so faults about them do not matter here.
        if any("HEARTH_ALLOWED_VOLUMES" not in fault.message for fault in error.faults):
            raise ScaffoldError(f"{file} has faults; fix them first:\n{error}") from error
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
