"""The check of a function's input against its JSON Schema, in a bounded time whatever a caller sends.

The library is imported with the first check. It matches patterns in linear time and remembers the outcome of
recursive schemas, so that no input makes it slow. It fetches nothing from elsewhere. Only explaining a refusal may be
slow, and is left out where it could be.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from scheduler.definitions.json_schema import JsonSchema, SchemaFault

MOST_BYTES = 256 * 1024
"""Largest input that is checked. It is parsed for that, which takes 24 times its size in memory."""
EXPLAINED_BYTES, EXPLAINED_DEPTH = 1024, 4
"""Largest and deepest input that is explained under a schema with alternatives. The library lists the faults of all
alternatives at all depths; at these bounds this takes some milliseconds."""
LONGEST_REASON = 240
"""Characters of a reason. The library repeats the faulty part of the input in it."""
JSON_TYPES = (b"", b"application/json", b"application/x-www-form-urlencoded")
"""Content types under which a handler is given parsed JSON. `curl -d` sends a form's."""


class InputFault(NamedTuple):
    """The first place where an input does not fit, as a JSON pointer (RFC 6901), and why."""

    pointer: str
    reason: str


class InputCheck:
    """A schema, ready to check inputs. Raises ImportError without the library, and ValueError for a bad schema."""

    def __init__(self, schema: JsonSchema) -> None:
        import jsonschema_rs

        self._validator = jsonschema_rs.Draft202012Validator(
            schema, offline=True, pattern_options=jsonschema_rs.RegexOptions()
        )
        self._fault: type[Any] = jsonschema_rs.ValidationError
        self._schema = schema
        self._alternatives = _has_alternatives(schema)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InputCheck) and self._schema == other._schema

    __hash__ = None  # type: ignore[assignment]

    def fault_of(self, body: bytes, content_type: bytes) -> InputFault | None:
        """Return why an input does not fit, or None if it does. A body that is empty counts as null."""
        kind = content_type.partition(b";")[0].strip().lower()
        if kind not in JSON_TYPES and not kind.endswith(b"+json"):
            return InputFault("", "it must be JSON: send Content-Type: application/json")
        try:
            value = json.loads(body) if body else None
        except RecursionError:
            return InputFault("", "it is nested too deeply")
        except ValueError as error:
            return InputFault("", f"it is not JSON: {error}")
        try:
            if self._validator.is_valid(value):
                return None
            if self._alternatives and (len(body) > EXPLAINED_BYTES or _is_deep(value, EXPLAINED_DEPTH)):
                return InputFault("", "it does not fit the schema; it is too large to say where")
            self._validator.validate(value)
        except self._fault as fault:
            return InputFault(_pointer(fault.instance_path), _shortened(fault.message))
        except (ValueError, RecursionError) as error:  # half of a surrogate pair
            return InputFault("", f"it cannot be checked: {error}")
        return InputFault("", "it does not fit the schema")


def compile_faults(schema: JsonSchema) -> Iterator[SchemaFault]:
    """Yield the fault that keeps a schema from being used, if there is one. Raises ImportError."""
    try:
        InputCheck(schema)
    except ValueError as error:
        path = tuple(getattr(error, "instance_path", ()))
        if path[-1:] == ("pattern",) or "patternProperties" in path[-2:]:
            yield path, "must be a regular expression without look-around and back-references"
        else:
            yield path, f"is not a JSON Schema that can be checked: {getattr(error, 'message', error)}"


def _has_alternatives(part: object) -> bool:
    """Return whether a fault of a schema may list the faults of alternatives.

    They are looked for everywhere: a `$ref` makes a schema of any place, such as the `definitions` of older drafts.
    """
    if isinstance(part, dict):
        return not part.keys().isdisjoint(("anyOf", "oneOf")) or any(map(_has_alternatives, part.values()))
    return isinstance(part, list) and any(map(_has_alternatives, part))


def _is_deep(value: object, levels: int) -> bool:
    """Return whether something lies deeper than so many lists and objects."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return bool(parts) and (not levels or any(_is_deep(part, levels - 1) for part in parts))


def _pointer(path: list[str | int]) -> str:
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def _shortened(reason: str) -> str:
    if len(reason) <= LONGEST_REASON:
        return reason
    return f"{reason[: LONGEST_REASON // 3]} … {reason[-LONGEST_REASON // 2 :]}"
