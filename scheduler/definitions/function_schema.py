"""The key `schema` of a function: JSON Schemas of its input and output, an example, and whether input is checked."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from scheduler.definitions.input_check import compile_faults
from scheduler.definitions.json_schema import JsonSchema, schema_faults
from scheduler.definitions.language.faults import Fault, shown
from scheduler.definitions.language.located_model import Reader
from scheduler.definitions.language.located_yaml import Document, KeyPath, read

PARTS = ("input", "output", "example", "check")
"""A mapping without any of these keys is the schema of the input itself."""
RecordFault = Callable[[KeyPath, str], None]
"""Records a fault at a path below a value."""


class FunctionSchema(BaseModel):
    """The JSON Schemas of a function's input and output. `example` is set if an example of the input is known."""

    model_config = ConfigDict(frozen=True)

    input: JsonSchema | None = None
    output: JsonSchema | None = None
    example: Any = None
    check: bool = False
    """True if input that does not fit is refused."""

    @property
    def has_example(self) -> bool:
        """Return whether there is an example. It may be null."""
        return "example" in self.model_fields_set

    @cached_property
    def text(self) -> str:
        """Return it as JSON, without what it does not have."""
        return self.model_dump_json(exclude_unset=True)


def read_schema(reader: Reader, given: object, source: Path | None, path: KeyPath) -> FunctionSchema | None:
    """Return the value of a key `schema`, or None if it has faults, which are recorded.

    Files lie in the folder `source`; None for a function without one.
    """
    if isinstance(given, str) or not (isinstance(given, dict) and given.keys() & set(PARTS)):
        given, places = {"input": given}, {"input": path}
    else:
        places = {part: (*path, part) for part in PARTS}
    before = len(reader.faults)
    keys = reader.known(given, PARTS, path)
    found: dict[str, Any] = {
        part: _read_part(
            reader, keys[part], source, places[part], keys.get("check") is True and part == "input"
        )
        for part in ("input", "output")
        if part in keys
    }
    check = keys.get("check", False)
    if not isinstance(check, bool):
        reader.fault(places["check"], f"must be true or false, not {shown(check)}")
    if check is True and "input" not in keys:
        reader.fault(places["check"], "there is nothing to check; write `input` beside it")
    if len(reader.faults) > before:
        return None
    schema = found.get("input")
    listed = schema.get("examples") if isinstance(schema, dict) else None
    if "example" in keys:
        found["example"] = keys["example"]
    elif listed:
        found["example"] = listed[0]
    return FunctionSchema(check=check, **found)


def _read_part(reader: Reader, given: object, source: Path | None, path: KeyPath, checked: bool) -> Any:
    """Return a schema that is written in functions.yaml, or in a file that is named there."""

    def record(below: KeyPath, message: str) -> None:
        reader.fault((*path, *below), message)

    if not isinstance(given, str):
        _check_schema(given, checked, record)
        return given
    document = _read_file(given, source, record)
    if document is None:
        return None
    reader.faults.extend(document.faults)
    if not document.faults:
        _check_schema(
            document.data, checked, partial(_record_in_file, reader, document, (source or Path()) / given)
        )
    return document.data


def _check_schema(schema: object, checked: bool, record: RecordFault) -> None:
    """Record the faults of a schema; if it is to be `checked`, also those that keep it from being used."""
    faults = list(schema_faults(schema))
    if checked and not faults and isinstance(schema, dict | bool):
        try:
            faults = list(compile_faults(schema))
        except ImportError:
            advice = "run pip install 'hearth-faas[schema]'"
            faults = [((), f"`check` needs a package that is not installed; {advice}")]
    for below, message in faults:
        record(below, message)


def _read_file(name: str, source: Path | None, record: RecordFault) -> Document | None:
    """Return a file of the source folder, or None if there is none of this name; the fault is recorded."""
    if source is None:
        record((), "a function with an image has no folder for a file; write the schema here")
        return None
    file = Path(os.path.realpath(source / name))
    if "\0" in name or not file.is_relative_to(os.path.realpath(source)):
        record((), f"{shown(name)} leaves the source folder; put the file into it")
        return None
    if not os.path.isfile(file):  # noqa: PTH113  Path's methods raise for a name that is too long
        record((), f"there is no file {shown(name)} in the source folder; name a JSON or YAML file")
        return None
    return read(source / name)


def _record_in_file(reader: Reader, document: Document, file: Path, below: KeyPath, message: str) -> None:
    position = document.position(below)
    named = ".".join(map(str, below))
    text = f"{named}: {message}" if below else message
    reader.faults.append(Fault(file, position.line, position.column, text))
