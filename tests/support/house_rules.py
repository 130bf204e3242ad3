"""Counts where production code breaks the rules of style that can be counted, from its text alone.

Run as a program, it writes the list of what is left anew: `python -m tests.support.house_rules`.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOORS = ("gateway", "scheduler", "pool")
LEFT_OVER = ROOT / "tests" / "unit" / "project" / "left_over.json"
"""What is left to mend, by file. It may only shrink."""

BANNED_OPENINGS = re.compile(r"(What|Whether|How|That|Those|Whose|Who|Of)\b")
MODULES_IN_A_FOLDER = 14
"""About a dozen: the pool's root has fourteen, and rooms beside them."""
LINES_OF_A_MODULE = 400
LINES_OF_A_FUNCTION = 60

Definition = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> list[tuple[str, str]]:
    """Return path, relative to the root, and text of each production module."""
    found = []
    for floor in FLOORS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            found.append((str(path.relative_to(ROOT)), path.read_text()))
    return found


def docstrings(tree: ast.Module) -> Iterator[str]:
    """Yield every docstring: of modules, classes and functions, and the text below a constant or a field."""
    for node in ast.walk(tree):
        for body in (getattr(node, name, None) for name in ("body", "orelse", "finalbody")):
            if not isinstance(body, list):
                continue
            for statement in body:
                match statement:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        yield text.strip()


def banned_openings(text: str) -> int:
    """Return how many docstrings of a module open with a word that hides what it says."""
    return sum(BANNED_OPENINGS.match(docstring) is not None for docstring in docstrings(ast.parse(text)))


def long_functions(text: str) -> list[str]:
    """Return the names of functions with more than `LINES_OF_A_FUNCTION` lines, their docstring not counted."""
    return [
        node.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, Definition) and _lines(node) > LINES_OF_A_FUNCTION
    ]


def _lines(function: Definition) -> int:
    first = (
        function.body[1]
        if ast.get_docstring(function) is not None and len(function.body) > 1
        else function.body[0]
    )
    assert function.end_lineno is not None
    head = function.body[0].lineno - function.lineno
    return head + function.end_lineno - first.lineno + 1


def class_names() -> dict[str, list[str]]:
    """Return the modules of each class name that more than one has."""
    found = defaultdict[str, list[str]](list)
    for path, text in modules():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(path)
    return {name: paths for name, paths in sorted(found.items()) if len(paths) > 1}


def crowded_folders() -> dict[str, int]:
    """Return how many modules each folder has that has more than `MODULES_IN_A_FOLDER`."""
    count = Counter(str(Path(path).parent) for path, _ in modules() if not path.endswith("__init__.py"))
    return {folder: number for folder, number in sorted(count.items()) if number > MODULES_IN_A_FOLDER}


@cache
def what_is_left() -> dict[str, dict[str, int]]:
    """Return what production code has of each rule's breaches, by file, folder or name."""
    openings, functions, lengths = {}, {}, {}
    for path, text in modules():
        if number := banned_openings(text):
            openings[path] = number
        for name in long_functions(text):
            functions[f"{path}: {name}"] = 1
        if (lines := len(text.splitlines())) > LINES_OF_A_MODULE:
            lengths[path] = lines
    return {
        "docstrings that open with What, Whether, How, That, Those, Whose, Who or Of": openings,
        "class names used twice": {name: len(paths) for name, paths in class_names().items()},
        "functions of over 60 lines": functions,
        "modules of over 400 lines": lengths,
        "folders with too many modules": crowded_folders(),
    }


if __name__ == "__main__":
    LEFT_OVER.write_text(json.dumps(what_is_left(), indent=1) + "\n")
    print({rule: sum(found.values()) for rule, found in what_is_left().items()})
