"""The form of a JSON Schema (draft 2020-12): the keywords that hold schemas, and faults that a person writes.

It needs no library, so that a schema that only documents a function costs a gateway nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Any

from scheduler.definitions.language.faults import shown
from scheduler.definitions.language.located_yaml import KeyPath

JsonSchema = dict[str, Any] | bool
SIMPLE_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
ONE = frozenset(
    {
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
    }
    | {"unevaluatedItems", "unevaluatedProperties"}
)
"""Keywords whose value is a schema."""
SEVERAL = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
"""Keywords whose value is a list of schemas."""
BY_NAME = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
"""Keywords whose value is a mapping of schemas."""
_COUNTS = frozenset(
    {"maxContains", "maxItems", "maxLength", "maxProperties"}
    | {"minContains", "minItems", "minLength", "minProperties"}
)
_NUMBERS = frozenset({"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"})
_TEXTS = frozenset(
    {"$anchor", "$comment", "$dynamicAnchor", "$dynamicRef", "$id", "$ref", "$schema"}
    | {"contentEncoding", "contentMediaType", "description", "format", "pattern", "title"}
)
_SWITCHES = frozenset({"deprecated", "readOnly", "uniqueItems", "writeOnly"})
_LISTS = frozenset({"enum", "examples"})
_OTHERS = frozenset({"$vocabulary", "example", "const", "default", "dependentRequired", "required", "type"})
KEYWORDS = sorted(ONE | SEVERAL | BY_NAME | _COUNTS | _NUMBERS | _TEXTS | _SWITCHES | _LISTS | _OTHERS)
NEARLY_THE_SAME = 0.8
"""Similarity of a misspelt keyword. Schemas may have keywords of their own, so only near ones are faults."""
SchemaFault = tuple[KeyPath, str]
"""A place in a schema, and what is wrong there."""


def schema_faults(schema: object, path: KeyPath = ()) -> Iterator[SchemaFault]:
    """Yield the faults in the form of a schema."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        yield path, f"must be a JSON Schema, like {{type: object}}, not {shown(schema)}"
        return
    for keyword, value in schema.items():
        place = (*path, keyword)
        if keyword in ONE:
            yield from schema_faults(value, place)
        elif keyword in SEVERAL:
            if not isinstance(value, list) or not value:
                yield place, f"must be a list of JSON Schemas, not {shown(value)}"
                continue
            for index, each in enumerate(value):
                yield from schema_faults(each, (*place, index))
        elif keyword in BY_NAME:
            if not isinstance(value, dict):
                yield place, f"must be a mapping of JSON Schemas, not {shown(value)}"
                continue
            for name, each in value.items():
                yield from schema_faults(each, (*place, name))
        else:
            yield from _value_faults(keyword, value, place)


def _value_faults(keyword: str, value: object, place: KeyPath) -> Iterator[SchemaFault]:
    """Yield the faults of a keyword's value that is no schema."""
    if keyword == "type":
        types = value if isinstance(value, list) and value else [value]
        for wrong in [each for each in types if each not in SIMPLE_TYPES]:
            yield place, f"must be one of {', '.join(SIMPLE_TYPES)}, not {shown(wrong)}"
    elif keyword == "required":
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            yield place, f"must be a list of properties' names, not {shown(value)}"
    elif keyword in _COUNTS:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            yield place, f"must be a whole number from 0, not {shown(value)}"
    elif keyword in _NUMBERS:
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield place, f"must be a number, not {shown(value)}"
    elif keyword in _TEXTS:
        if not isinstance(value, str):
            yield place, f"must be text, not {shown(value)}"
    elif keyword in _SWITCHES:
        if not isinstance(value, bool):
            yield place, f"must be true or false, not {shown(value)}"
    elif keyword in _LISTS:
        if not isinstance(value, list):
            yield place, f"must be a list, not {shown(value)}"
    elif keyword not in _OTHERS and (
        near := difflib.get_close_matches(keyword, KEYWORDS, n=1, cutoff=NEARLY_THE_SAME)
    ):
        yield place, f"there is no keyword {shown(keyword)}; did you mean `{near[0]}`?"


def map_subschemas(schema: JsonSchema, change: Callable[[dict[str, Any]], dict[str, Any]]) -> JsonSchema:
    """Return a copy of a schema in which `change` was applied to it and to each schema in it."""
    if not isinstance(schema, dict):
        return schema
    copy: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in ONE:
            copy[keyword] = map_subschemas(value, change)
        elif keyword in SEVERAL:
            copy[keyword] = [map_subschemas(each, change) for each in value]
        elif keyword in BY_NAME:
            copy[keyword] = {name: map_subschemas(each, change) for name, each in value.items()}
        else:
            copy[keyword] = value
    return change(copy)
