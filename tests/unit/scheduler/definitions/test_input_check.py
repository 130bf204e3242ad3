"""An input fits a schema or not, with the place and the reason, and no input takes long."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scheduler.definitions.input_check import LONGEST_REASON, MOST_BYTES, InputCheck, compile_faults
from scheduler.definitions.json_schema import JsonSchema

PERSON: JsonSchema = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]+$"},
        "a/b~c": {"items": {"type": "integer"}},
        "kind": {"anyOf": [{"const": 1}, {"type": "string"}]},
    },
    "required": ["name"],
}
JSON = b"application/json"


def fault(schema: JsonSchema, value: object, kind: bytes = JSON) -> tuple[str, str] | None:
    return InputCheck(schema).fault_of(json.dumps(value).encode(), kind)


@pytest.mark.parametrize(
    ("value", "pointer", "reason"),
    [
        ({"name": "ada"}, None, ""),
        ({"name": 3}, "/name", '3 is not of type "string"'),
        ({"name": "ada", "a/b~c": [1, "x"]}, "/a~1b~0c/1", '"x" is not of type "integer"'),
        ({}, "", '"name" is a required property'),
        ([], "", '[] is not of type "object"'),
        ({"name": "ada", "kind": 2}, "/kind", "anyOf"),
        ({"name": "ADA"}, "/name", "does not match"),
    ],
)
def test_a_fault_has_its_place_and_its_reason(value: object, pointer: str | None, reason: str) -> None:
    found = fault(PERSON, value)
    if pointer is None:
        assert found is None
    else:
        assert found is not None and found[0] == pointer and reason in found[1]


@pytest.mark.parametrize("kind", [b"", JSON, b"application/json; charset=utf-8", b"Application/Problem+JSON"])
def test_what_a_handler_gets_as_json_is_checked(kind: bytes) -> None:
    assert fault({"type": "object"}, {}, kind) is None
    assert fault({"type": "object"}, {}, b"application/x-www-form-urlencoded") is None


def test_what_is_no_json_does_not_fit() -> None:
    check = InputCheck({"type": ["object", "null"]})
    assert check.fault_of(b"", b"") is None, "an empty body is null"
    for body, kind, reason in (
        (b"{}", b"text/plain", "Content-Type: application/json"),
        (b"three words", b"", "it is not JSON"),
        (b"\xff\xfe{", JSON, "it is not JSON"),
        (b"[" * 100_000, JSON, "nested too deeply"),
    ):
        found = check.fault_of(body, kind)
        assert found is not None and found.pointer == "" and reason in found.reason
    found = InputCheck({"type": "string"}).fault_of(b'"\\ud800"', JSON)
    assert found is not None and "cannot be checked" in found.reason


def nested(levels: int, key: str = "c") -> Any:
    value: Any = {"z": 3}
    for _ in range(levels):
        value = {key: value}
    return value


TWICE: JsonSchema = {
    "anyOf": [
        {"properties": {"c": {"$ref": "#"}, "z": {"const": 1}}},
        {"properties": {"c": {"$ref": "#"}, "z": {"const": 2}}},
    ]
}
"""Looks twice at each level: without a memory of what was looked at, the time doubles with every level."""
HARD = [
    ({"type": "string", "pattern": "^(a+)+$"}, "a" * 100_000 + "!"),
    ({"type": "string", "pattern": "(a{1,500}b)+"}, "a" * 250_000),
    (TWICE, nested(100)),
    ({"items": {"anyOf": [{"type": "integer"}, {"type": "boolean"}]}}, ["x"] * 50_000),
    ({"items": {"type": "integer"}}, ["x"] * 50_000),
    ({"uniqueItems": True}, [{"a": n} for n in range(20_000)] + [{"a": 0}]),
]


@pytest.mark.parametrize(
    ("schema", "value"), HARD, ids=["pattern", "counts", "recursion", "alternatives", "items", "unique"]
)
@pytest.mark.timeout(30)
def test_no_input_takes_long_and_its_refusal_is_short(schema: JsonSchema, value: object) -> None:
    """Without the bounds each takes from half a minute to years; with them, milliseconds."""
    body = json.dumps(value).encode()
    assert len(body) <= 2 * MOST_BYTES
    check = InputCheck(schema)
    found = check.fault_of(body, JSON)
    assert found is not None and len(found.reason) <= LONGEST_REASON + 3


def test_a_fault_among_alternatives_is_explained_where_that_is_cheap() -> None:
    small = fault(TWICE, nested(2))
    assert small is not None and "anyOf" in small[1]
    assert fault(TWICE, nested(9)) == ("", "it does not fit the schema; it is too large to say where")


@pytest.mark.parametrize("place", ["definitions", "x-schemas"])
def test_alternatives_are_found_wherever_a_reference_can_point(place: str) -> None:
    """Older drafts have `definitions`. Explaining 60 bytes under them took seconds, and twice that a level deeper."""
    child = {"$ref": f"#/{place}/node"}
    node = {"anyOf": [{"properties": {"c": child, "z": {"const": number}}} for number in (1, 2)]}
    schema: JsonSchema = {**child, place: {"node": node}}
    assert fault(schema, nested(9)) == ("", "it does not fit the schema; it is too large to say where")


@pytest.mark.parametrize(
    ("schema", "place", "reason"),
    [
        ({"properties": {"a": {"pattern": "("}}}, ("properties", "a", "pattern"), "regular expression"),
        ({"pattern": "(?=a)b"}, ("pattern",), "without look-around"),
        ({"$ref": "#/$defs/a"}, (), "/$defs/a"),
        ({"$ref": "file:///etc/passwd"}, (), "Retrieval is disabled"),
        ({"$ref": "http://example.org/"}, (), "Retrieval is disabled"),
    ],
)
def test_a_schema_that_cannot_be_used_is_a_fault(
    schema: JsonSchema, place: tuple[str, ...], reason: str
) -> None:
    [(path, message)] = compile_faults(schema)
    assert path == place and reason in message


def test_checks_of_the_same_schema_are_equal() -> None:
    assert InputCheck({"type": "object"}) == InputCheck({"type": "object"}) != InputCheck(True)
