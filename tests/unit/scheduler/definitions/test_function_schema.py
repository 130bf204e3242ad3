"""The key `schema`: its forms, its files, and its faults with their places."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler.definitions.file import DefinitionsError, FunctionDefinition, load
from scheduler.definitions.function_schema import FunctionSchema

HEAD = """version: 1
functions:
  f:
    runtime: python
    source: code
    handler: app:handle
"""
SCHEMA = {"type": "object", "examples": [{"a": 1}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "app.py").write_text("def handle(event, context): ...\n")
    (tmp_path / "secret.json").write_text("{}")
    return tmp_path


def read(folder: Path, text: str) -> FunctionDefinition:
    (folder / "functions.yaml").write_text(HEAD + text)
    return load(folder / "functions.yaml").functions["f"]


def faults(folder: Path, text: str) -> list[tuple[str, int, int, str]]:
    with pytest.raises(DefinitionsError) as caught:
        read(folder, text)
    return [(f.file.name, f.line, f.column, f.message) for f in caught.value.faults]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{type: object}", FunctionSchema(input={"type": "object"})),
        ("{input: {type: object}, check: true}", FunctionSchema(input={"type": "object"}, check=True)),
        ("{output: true}", FunctionSchema(output=True)),
        ("{example: null}", FunctionSchema(example=None)),
        ("{input: {examples: [3, 4]}}", FunctionSchema(input={"examples": [3, 4]}, example=3)),
        ("{input: {examples: [3]}, example: 5}", FunctionSchema(input={"examples": [3]}, example=5)),
        ("in.json", FunctionSchema(input=SCHEMA, example={"a": 1})),
        (
            "{input: in.json, output: ./in.json}",
            FunctionSchema(input=SCHEMA, output=SCHEMA, example={"a": 1}),
        ),
    ],
)
def test_its_forms(folder: Path, text: str, expected: FunctionSchema) -> None:
    (folder / "code" / "in.json").write_text(json.dumps(SCHEMA))
    found = read(folder, f"    schema: {text}\n").schemas
    assert found is not None
    assert (found, found.has_example) == (expected, expected.has_example)


def test_a_checked_function_takes_a_small_body(folder: Path) -> None:
    checked = read(folder, "    schema: {input: {type: object}, check: true}\n")
    assert (checked.checks_input, checked.body_limit) == (True, 256 * 1024)
    small = read(folder, "    max_body: 1KiB\n    schema: {input: {type: object}, check: true}\n")
    assert small.body_limit == 1024
    unchecked = read(folder, "    schema: {type: object}\n")
    assert (unchecked.checks_input, unchecked.body_limit) == (False, 6 * 2**20)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("{type: strin}", 20, "functions.f.schema.type: must be one of array, boolean, "),
        ("{input: {type: [text]}}", 28, "schema.input.type: must be one of"),
        ("{propertys: {}}", 25, "there is no keyword 'propertys'; did you mean `properties`?"),
        ("{properties: {a: {required: true}}}", 41, "must be a list of properties' names, not true"),
        ("{properties: [a]}", 26, "must be a mapping of JSON Schemas, not a list"),
        ("{anyOf: {}}", 21, "must be a list of JSON Schemas"),
        ("{maxLength: -1}", 25, "must be a whole number from 0"),
        ("{minimum: low}", 23, "must be a number, not 'low'"),
        ("{pattern: 3}", 23, "must be text, not 3"),
        ("{enum: a}", 20, "must be a list, not 'a'"),
        ("{uniqueItems: 1}", 27, "must be true or false, not 1"),
        ("{items: 3}", 21, "must be a JSON Schema, like {type: object}, not 3"),
        ("3", 13, "must be a JSON Schema"),
        ("{input:, check: true}", 20, "must be a JSON Schema, like {type: object}, not nothing"),
        ("{check: yes, input: {}}", 21, "must be true or false, not 'yes'"),
        ("{check: true}", 21, "there is nothing to check; write `input` beside it"),
        ("{input: {}, type: object}", 31, "there is no key 'type'"),
        ("{input: {pattern: '('}, check: true}", 31, "must be a regular expression without look-around"),
        ("{input: {$ref: '#/x'}, check: true}", 21, "is not a JSON Schema that can be checked"),
        ("no.json", 13, "there is no file 'no.json' in the source folder"),
        ("../secret.json", 13, "leaves the source folder"),
    ],
)
def test_its_faults_have_places(folder: Path, text: str, column: int, message: str) -> None:
    [found] = faults(folder, f"    schema: {text}\n")
    assert found[:3] == ("functions.yaml", 7, column)
    assert message in found[3]


def test_faults_of_a_file_are_in_that_file(folder: Path) -> None:
    (folder / "code" / "in.json").write_text('{\n "properties": {\n  "a": {"type": "strin"}\n }\n}\n')
    [found] = faults(folder, "    schema: in.json\n")
    assert found[:3] == ("in.json", 3, 17) and found[3].startswith("properties.a.type: must be one of")
    (folder / "code" / "in.json").write_text('{\n "properties": \n')
    [found] = faults(folder, "    schema: in.json\n")
    assert found[0] == "in.json" and "not YAML" in found[3]


def test_images_have_no_files_and_http_functions_no_check(folder: Path) -> None:
    file = folder / "functions.yaml"
    file.write_text(
        "version: 1\nfunctions:\n  c: {image: x, schema: in.json}\n"
        "  h: {image: x, port: 80, schema: {input: {}, check: true}}\n"
    )
    with pytest.raises(DefinitionsError) as caught:
        load(file)
    assert ["write the schema here" in str(caught.value), "has many paths" in str(caught.value)] == [
        True,
        True,
    ]
    assert [(fault.line, fault.column) for fault in caught.value.faults] == [(3, 25), (4, 54)]


def test_only_a_check_imports_the_library(folder: Path) -> None:
    """What is serving gets no heavier by schemas that only document."""
    program = (
        "import sys; from pathlib import Path; from scheduler.definitions.file import load\n"
        "load(Path(sys.argv[1])); print('jsonschema_rs' in sys.modules)"
    )
    for check in ("false", "true"):
        read(folder, f"    schema: {{input: {{type: object}}, check: {check}}}\n")
        command = [sys.executable, "-c", program, str(folder / "functions.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(check == "true")


def test_a_missing_library_is_a_fault_that_says_how_to_get_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    [found] = faults(folder, "    schema: {input: {type: object}, check: true}\n")
    assert "pip install 'hearth-faas[schema]'" in found[3]
    assert read(folder, "    schema: {type: object}\n").schemas is not None
