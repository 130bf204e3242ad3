"""JMESPath expressions of workflows: checked when they are declared, evaluated when a step begins. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.parser import ParsedResult

LONGEST = 4096
"""Characters of an expression."""
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
"""Nodes whose first child alone sees what the whole expression is evaluated over."""
_PASS = frozenset(
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
"""Nodes all of whose children do."""


class ExpressionError(ValueError):
    """An expression is none, or cannot be evaluated over what there is."""


@lru_cache(maxsize=4096)
def compiled(text: str) -> ParsedResult:
    """The expression. Raises `ExpressionError`."""
    if len(text) > LONGEST:
        raise ExpressionError(f"has {len(text)} characters, and {LONGEST} is the most")
    try:
        return jmespath.compile(text)
    except JMESPathError as error:
        raise ExpressionError(f"is no JMESPath expression: {_first_line(error)}") from error
    except RecursionError:
        raise ExpressionError("is nested too deep") from None


def steps_named(text: str, names: frozenset[str]) -> frozenset[str]:
    """The steps that it looks at as `steps.NAME`. `names` are what else it may begin with, such as `input`.

    Raises `ExpressionError` for an expression that begins with something else, or takes all steps together: what
    it needs must be known before.
    """
    return frozenset(_steps(dict(compiled(text).parsed), names))


def evaluate(text: str, values: Mapping[str, object]) -> Any:
    """What it gives over these values. Raises `ExpressionError`."""
    try:
        return compiled(text).search(dict(values))
    except (JMESPathError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ExpressionError(f"{text}: {error}") from error


def is_true(value: object) -> bool:
    """Truth as JMESPath has it: null, false and what is empty are not true; 0 is."""
    return value is not None and value is not False and value not in ("", [], {})


def _steps(node: dict[str, Any], names: frozenset[str]) -> Iterator[str]:
    kind, children = node["type"], node["children"]
    if kind == "subexpression" and children[0] == {"type": "field", "children": [], "value": "steps"}:
        yield _leftmost(children[1])
    elif kind == "subexpression" or kind in _FIRST_ONLY:
        yield from _steps(children[0], names)
    elif kind in _PASS:
        for child in children:
            yield from _steps(child, names)
    elif kind == "field" and node["value"] == "steps":
        raise ExpressionError("takes `steps` as a whole; name the step, as in steps.NAME.output")
    elif kind == "field" and node["value"] not in names:
        begins = ", ".join((*sorted(names), "steps.NAME"))
        raise ExpressionError(
            f"begins with `{node['value']}`, which is not there; it can begin with {begins}"
        )
    elif kind in ("current", "identity"):
        begins = ", ".join((*sorted(names), "steps.NAME"))
        raise ExpressionError(f"takes everything together; it can begin with {begins}")


def _leftmost(node: dict[str, Any]) -> str:
    """The field that comes right after `steps`."""
    while node["type"] != "field":
        if node["type"] != "subexpression" and node["type"] not in _FIRST_ONLY:
            raise ExpressionError("takes `steps` as a whole; name the step, as in steps.NAME.output")
        node = node["children"][0]
    return str(node["value"])


def _first_line(error: JMESPathError) -> str:
    """What the library says, without the expression, which it repeats below with a mark."""
    return str(error).splitlines()[0].removesuffix(", for expression:").removesuffix(":")
