"""docs/sources.md says every key, outcome and state of sources, and its examples are true."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from gateway.api.brokers.views import SourceView
from gateway.brokers.consumer import ConsumerState, MessageOutcome
from scheduler.definitions.brokers import BrokerKeys, JetStream, MessageHandling, MqttTopic, RedisStream
from scheduler.definitions.file import load

DOCUMENT = (Path(__file__).parents[4] / "docs" / "sources.md").read_text()
SHARED = set(BrokerKeys.model_fields)


def table(first: str) -> dict[str, dict[str, str]]:
    """The rows of the table whose first column is called `first`, by that column."""
    rows: dict[str, dict[str, str]] = {}
    columns: list[str] = []
    for line in DOCUMENT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("|") else []
        if not cells or set(line) <= set("|-"):
            columns = columns if cells else []
        elif not columns:
            columns = [cell.strip("` |") for cell in cells]
        elif columns[0] == first:
            rows[cells[0].strip("` ")] = dict(zip(columns, cells, strict=False))
    return rows


def written(model: type[BaseModel], key: str, made: dict[str, Any]) -> str:
    field = model.model_fields[key]
    if field.is_required():
        return "required"
    return "none" if made[key] is None else str(made[key])


@pytest.mark.parametrize(
    ("first", "model", "keys"),
    [
        ("source", MessageHandling(), set(MessageHandling.model_fields)),
        ("server", RedisStream(url="redis://h", stream="s"), SHARED),
        ("redis", RedisStream(url="redis://h", stream="s"), set(RedisStream.model_fields) - SHARED),
        ("nats", JetStream(url="nats://h", stream="s"), set(JetStream.model_fields) - SHARED),
        ("mqtt", MqttTopic(url="mqtt://h", topic="t"), set(MqttTopic.model_fields) - SHARED),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_key_is_documented_with_its_default(first: str, model: BaseModel, keys: set[str]) -> None:
    rows, made = table(first), model.model_dump(mode="json")
    assert set(rows) == keys
    for key, row in rows.items():
        default = row["default"].strip("`")
        assert key in SHARED or default == written(type(model), key, made), key
        assert row["meaning"]


def test_outcomes_and_states_are_those_that_there_are() -> None:
    assert set(table("outcome")) == set(get_args(MessageOutcome))
    assert set(table("state")) == set(get_args(ConsumerState))


def test_the_examples_are_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_URL", "redis://127.0.0.1:6379/0")
    example = re.search(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert example is not None
    functions = "version: 1\nfunctions: {on-order: {image: x}, on-power: {image: x}}\n"
    (tmp_path / "functions.yaml").write_text(functions + example[1])
    assert set(load(tmp_path / "functions.yaml").sources) == {"orders", "pictures", "meters"}
    answer = re.search(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    assert answer is not None
    assert set(json.loads(answer[1])) == set(SourceView.model_fields)
    SourceView.model_validate_json(answer[1])
