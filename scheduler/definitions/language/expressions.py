"""JMESPath expressions of workflows: checked when declared, evaluated when a step begins. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.parser import ParsedResult

MAX_EXPRESSION_CHARACTERS = 4096
"""Longest expression; the bound limits the time to parse one."""
_FIRST_ONLY = frozenset(
    {
        "projection",
        "value_projection",
        "filter_projection",
        "flatten",
        "index_expression",
        "slice",
        "pipe",
    }
)
"""Node types in which only the first child is evaluated over the input of the whole expression."""
_ALL_CHILDREN = frozenset(
    {
        "multi_select_list",
        "multi_select_dict",
        "key_val_pair",
        "or_expression",
        "and_expression",
        "not_expression",
        "comparator",
        "function_expression",
    }
)
"""Node types in which every child is evaluated over that input."""


class ExpressionError(ValueError):
    """An expression is not valid JMESPath, or cannot be evaluated over the values given."""


@lru_cache(maxsize=4096)
def compiled(text: str) -> ParsedResult:
    """Return the parsed expression. Raises `ExpressionError`."""
    if len(text) > MAX_EXPRESSION_CHARACTERS:
        raise ExpressionError(
            f"has {len(text)} characters; shorten it to {MAX_EXPRESSION_CHARACTERS} at most"
        )
    try:
        return jmespath.compile(text)
    except JMESPathError as error:
        raise ExpressionError(f"is not a JMESPath expression: {_first_line(error)}") from error
    except RecursionError:
        raise ExpressionError("is nested too deeply; simplify it") from None


def steps_named(text: str, names: frozenset[str]) -> frozenset[str]:
    """Return the steps that an expression reads as `steps.NAME`. `names` are its other roots, such as `input`.

    Raises `ExpressionError` for an unknown root, and for `steps` as a whole: the steps that it needs must be known
    before the run begins.
    """
    return frozenset(_steps(dict(compiled(text).parsed), names))


def evaluate(text: str, values: Mapping[str, object]) -> Any:
    """Return the value of an expression over these values. Raises `ExpressionError`."""
    try:
        return compiled(text).search(dict(values))
    except (JMESPathError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ExpressionError(f"{text}: {error}") from error


def is_true(value: object) -> bool:
    """Return whether JMESPath takes a value as true: null, false and empty values are not; 0 is."""
    return value is not None and value is not False and value not in ("", [], {})


def _steps(node: dict[str, Any], names: frozenset[str]) -> Iterator[str]:
    kind, children = node["type"], node["children"]
    if kind == "subexpression" and children[0] == {"type": "field", "children": [], "value": "steps"}:
        yield _leftmost(children[1])
    elif kind == "subexpression" or kind in _FIRST_ONLY:
        yield from _steps(children[0], names)
    elif kind in _ALL_CHILDREN:
        for child in children:
            yield from _steps(child, names)
    elif kind == "field" and node["value"] == "steps":
        raise ExpressionError("takes `steps` as a whole; name the step, as in steps.NAME.output")
    elif kind == "field" and node["value"] not in names:
        begins = ", ".join((*sorted(names), "steps.NAME"))
        raise ExpressionError(
            f"begins with `{node['value']}`, which does not exist; it can begin with {begins}"
        )
    elif kind in ("current", "identity"):
        begins = ", ".join((*sorted(names), "steps.NAME"))
        raise ExpressionError(f"takes everything together; it can begin with {begins}")


def _leftmost(node: dict[str, Any]) -> str:
    """Return the field that follows right after `steps`."""
    while node["type"] != "field":
        if node["type"] != "subexpression" and node["type"] not in _FIRST_ONLY:
            raise ExpressionError("takes `steps` as a whole; name the step, as in steps.NAME.output")
        node = node["children"][0]
    return str(node["value"])


def _first_line(error: JMESPathError) -> str:
    """Return the library's message without the expression, which it repeats below with a mark."""
    return str(error).splitlines()[0].removesuffix(", for expression:").removesuffix(":")
