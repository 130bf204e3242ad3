"""The lines of README's table "you have, you write" work as they are printed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from harness import Gateway

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"^\| [^|]+ \| `(\w+: \{.*\})` \| ", re.MULTILINE)


def lines() -> dict[str, dict[str, Any]]:
    """Return the functions of the table."""
    table = (ROOT / "README.md").read_text().partition("| you have | you write |")[2].partition("\n\n")[0]
    found = LINE.findall(table)
    assert len(found) == table.count("\n| "), "each row has one line of functions.yaml"
    return {name: keys for line in found for name, keys in yaml.safe_load(line).items()}


def test_each_line_of_the_table_is_a_function_that_answers(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "functions" / "hello", tmp_path / "functions" / "hello")
    with Gateway(tmp_path, lines()) as gateway:
        said = {
            "hello": lambda: gateway.call("hello", {"name": "Ada"}),
            "api": lambda: gateway.http.get("/invoke/api/healthz"),
            "words": lambda: gateway.call("words", content=b"one two three"),
            "sorted": lambda: gateway.call("sorted", content=b"b\na\n"),
        }
        answers: dict[str, httpx.Response] = {name: said[name]() for name in lines()}
        assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(said, 200)
        assert answers["hello"].json() == {"message": "Hello, Ada!"}
        assert answers["words"].text == "3\n"
        assert answers["sorted"].text == "a\nb\n"
        assert said["sorted"]().headers["x-hearth-start"] == "warm"
