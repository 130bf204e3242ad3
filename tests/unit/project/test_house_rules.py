"""Production code keeps the rules of style, but for a list of what is left, which may only shrink."""

from __future__ import annotations

import json

import pytest

from tests.support.house_rules import LEFT_OVER, banned_openings, long_functions, what_is_left

ALLOWED: dict[str, dict[str, int]] = json.loads(LEFT_OVER.read_text())


@pytest.mark.parametrize("rule", sorted(what_is_left()))
def test_the_list_of_what_is_left_is_true(rule: str) -> None:
    """It may only shrink: mend what is new, and write the list anew where something was mended."""
    assert what_is_left()[rule] == ALLOWED[rule], "see tests/support/house_rules.py"


def test_an_opening_is_found_wherever_a_docstring_may_be() -> None:
    text = (
        '"""What a module is."""\n\nLIMIT = 1\n"""How many."""\n\n\n'
        'class A:\n    """One object."""\n\n    x: int\n    """Of which."""\n'
    )
    assert banned_openings(text) == 3
    assert banned_openings('def f():\n    """Return what is left."""\n') == 0


@pytest.mark.parametrize(("lines", "names"), [(59, []), (60, ["f"])])
def test_the_lines_of_a_function_count_without_its_docstring(lines: int, names: list[str]) -> None:
    text = 'def f():\n    """Say.\n\n    More.\n    """\n' + "    pass\n" * lines
    assert long_functions(text) == names
