"""docs/functions-yaml.md documents every key of a function, with its default, and its examples are true."""

import re
from pathlib import Path

import pytest

from scheduler.definitions.file import (
    FUNCTION_KEYS,
    Defaults,
    Definitions,
    DefinitionsError,
    FunctionDefinition,
    load,
)
from scheduler.definitions.language import located_yaml
from scheduler.definitions.language.located_yaml import remembering_parse

ROOT = Path(__file__).parents[4]
DOCUMENT = (ROOT / "docs" / "functions-yaml.md").read_text()
KEYS = FUNCTION_KEYS


def documented() -> dict[str, dict[str, str]]:
    """Every row of the tables that describe keys: key to cells by column."""
    rows: dict[str, dict[str, str]] = {}
    columns: list[str] = []
    for line in DOCUMENT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("| ") else []
        if not cells:
            continue
        if cells[0] == "key":
            columns = cells
            continue
        row = dict(zip(columns, cells, strict=True))
        key = row["key"].strip("`")
        assert key not in rows, f"{key} is documented twice"
        rows[key] = row
    return rows


def written(key: str) -> str:
    """The default of a key as one would write it in functions.yaml."""
    model = FunctionDefinition(name="f", image="x")
    value = model.model_dump(mode="json", by_alias=True)[key] if key != "image" else None
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


@pytest.mark.parametrize("key", KEYS)
def test_each_key_is_documented_with_its_default(key: str) -> None:
    row = documented()[key]
    default = row["default"].rpartition(", for a command ")[2]  # the model below is a command's
    assert default.strip("`") == written(key)
    assert row["meaning"]


def test_no_key_is_documented_that_does_not_exist() -> None:
    assert set(documented()) == set(KEYS) | set(Definitions.model_fields)


def test_the_keys_that_defaults_may_not_hold_are_those_of_code_or_image() -> None:
    section = DOCUMENT.partition("## Code or image")[2].partition("\n## ")[0]
    keys = set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE))
    assert keys == set(KEYS) - set(Defaults.model_fields)


@pytest.mark.parametrize("key", [key for key, row in documented().items() if " to " in row.get("range", "")])
def test_documented_ranges_hold_and_end_where_they_say(key: str, tmp_path: Path) -> None:
    low, high = documented()[key]["range"].replace("`", "").split(" to ")
    number = re.compile(r"[0-9.]+")

    def accepts(text: str) -> bool:
        file = tmp_path / "functions.yaml"
        room = "" if key == "max_instances" else "max_instances: 1000, "
        file.write_text(f"version: 1\nfunctions: {{f: {{image: x, port: 1, {room}{key}: {text}}}}}\n")
        try:
            load(file)
        except DefinitionsError:
            return False
        return True

    def shifted(text: str, step: float) -> str:
        match = number.match(text)
        assert match is not None
        value = float(match[0]) + step
        return f"{value:g}" + text[match.end() :]

    assert accepts(low) and accepts(high)
    assert not accepts(shifted(high, 1))
    assert not accepts(shifted(low, -0.001 if low == "0.01" else -1))


def test_the_example_is_sound(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert example is not None
    (tmp_path / "functions.yaml").write_text(example[1])
    (tmp_path / "functions").symlink_to(ROOT / "functions")
    assert set(load(tmp_path / "functions.yaml").functions) == {"hello", "api", "wordcount"}


def test_the_faults_shown_are_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["version: 1", "functions:", "  hello:", "    runtime: python", "    source: hello"]
    lines += ["    handler: handler:handle", "    cpus: 0.5", "    memory: 128", "    timout: 3s"]
    monkeypatch.chdir(tmp_path)
    Path("hello").symlink_to(ROOT / "functions" / "hello")
    Path("functions.yaml").write_text("\n".join(lines))
    with pytest.raises(DefinitionsError) as caught:
        load(Path("functions.yaml"))
    assert f"```\n{caught.value}\n```" in DOCUMENT


@pytest.mark.parametrize("file", ["functions.yaml", "examples/two-demo/functions.yaml"])
def test_reading_a_document_leaves_it_as_it_was(file: str) -> None:
    parse = remembering_parse()
    first = load(ROOT / file, parse=parse)
    assert load(ROOT / file, parse=parse) == first
    text = (ROOT / file).read_text()
    assert parse(text, ROOT / file) is parse(text, ROOT / file)
    assert parse(text, ROOT / file) == located_yaml.parse(text, ROOT / file)
