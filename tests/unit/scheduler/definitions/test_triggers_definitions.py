"""`triggers` of functions.yaml: what is read, what is refused and where; docs/triggers.md says the same."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.api.triggers.views import definition_view
from scheduler.definitions.file import Definitions, DefinitionsError, load
from scheduler.definitions.language.units import format_duration
from scheduler.definitions.triggers import MAX_INPUT_DEPTH, TriggerDefinition, Webhook

DOCUMENT = (Path(__file__).parents[4] / "docs" / "triggers.md").read_text()
KEYS = {name: field for name, field in TriggerDefinition.model_fields.items() if name != "name"}
HEAD = 'version: 1\nfunctions: {f: {image: x, command: ["y"]}}\nworkflows: {w: [f]}\ntriggers:\n'


def read(tmp_path: Path, text: str) -> Definitions:
    file = tmp_path / "functions.yaml"
    file.write_text(HEAD + text)
    return load(file)


def test_every_kind_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    (tmp_path / "secret").write_text(" y\n")
    triggers = read(
        tmp_path,
        """
  a: {schedule: "*/5  * * * *", timezone: Europe/Berlin, overlap: queue, catch_up: all, jitter: 10s,
      input: {a: [1, 2.5, true]}, function: f}
  b: {events: {filters: [{exact: {type: x}}, {not: {any: [{prefix: {source: /a}}]}}]}, workflow: w}
  c: {webhook: {signature: github, secret_env: A_SECRET, max_body: 1KiB}, function: f}
  d: {webhook: {signature: standard, secret_file: secret, filters: [{exact: {type: hearth.webhook}}]}, function: f}
""",
    ).triggers
    assert [trigger.cause for trigger in triggers.values()] == ["schedule", "events", "webhook", "webhook"]
    assert triggers["a"].schedule == "*/5 * * * *" and triggers["a"].input == {"a": [1, 2.5, True]}
    assert triggers["b"].action == ("workflow", "w")
    assert triggers["c"].webhook is not None and triggers["c"].webhook.secret() == b"x"
    assert triggers["d"].webhook is not None and triggers["d"].webhook.secret() == b"y"
    for trigger in triggers.values():
        kept = trigger.model_dump_json(by_alias=True, exclude_unset=True)
        assert TriggerDefinition.model_validate(json.loads(kept)) == trigger


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("§{}", "t: must have one of schedule, events, webhook"),
        ("§7", "t: must be a mapping with the trigger's keys, not 7"),
        ('§{schedule: "* * * * *"}', "t: must have one of function, workflow, job"),
        ('{schedule: "* * * * *", function: §g}', "function: there is no function 'g'; allowed: f"),
        ('{schedule: "* * * * *", workflow: §v}', "workflow: there is no workflow 'v'; allowed: w"),
        ('{schedule: "* * * * *", job: §j}', "job: there is no job 'j'"),
        ('{schedule: "* * * * *", function: f, workflow: §w}', "workflow: cannot be beside `function`"),
        ('{schedule: §"* * *", function: f}', "schedule: '* * *' is not a cron expression"),
        ("{schedule: §5, function: f}", "schedule: must be a cron expression"),
        ('{schedule: "* * * * *", timezone: §Mars, function: f}', "timezone: 'Mars' is not a time zone"),
        ('{schedule: "* * * * *", overlap: §no, function: f}', "overlap: must be 'skip', 'queue' or 'allow'"),
        (
            '{schedule: "* * * * *", catch_up: §some, function: f}',
            "catch_up: must be 'none', 'last' or 'all'",
        ),
        ('{schedule: "* * * * *", jitter: §10, function: f}', "jitter: 10 has no unit"),
        ('{schedule: "* * * * *", when: §1, function: f}', "when: there is no key 'when'"),
        (
            "{events: {filters: [{exact: {a: b}}]}, input: §1, function: f}",
            "input: belongs to a trigger with",
        ),
        ("{events: §{}, function: f}", "events.filters: is missing; write it"),
        ("{events: {filters: §[]}, function: f}", "filters: must be a list with at least one filter"),
        ("{events: {filters: [§{exct: {a: b}}]}, function: f}", "events.filters.0: must have one of exact"),
        ("{events: {filters: [{exact: {a: §1}}]}, function: f}", "exact.a: must be text that is not empty"),
        (
            "{events: {filters: [§{exact: }]}, function: f}",
            "events.filters.0: `exact` is empty; write the text",
        ),
        (
            "{webhook: {signature: standard, secret_env: §ONLY_A_PREFIX}, function: f}",
            "no valid base64 follows",
        ),
        ("{webhook: {signature: standard, secret_env: §NO_BASE64}, function: f}", "no valid base64 follows"),
        ("{webhook: {signature: §x, secret_env: HOME}, function: f}", "must be 'github' or 'standard'"),
        ("{webhook: §{signature: github}, function: f}", "webhook: must have one of secret_env, secret_file"),
        (
            "{webhook: {signature: github, secret_env: §NOT_SET_7}, function: f}",
            "NOT_SET_7 is not set; set it",
        ),
        ("{webhook: {signature: github, secret_file: §none}, function: f}", "cannot be read: No such file"),
    ],
    ids=str,
)
def test_faults_are_told_by_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: str, message: str
) -> None:
    """§ stands before the value at fault."""
    monkeypatch.setenv("ONLY_A_PREFIX", "whsec_")
    monkeypatch.setenv("NO_BASE64", "whsec_1234!")
    with pytest.raises(DefinitionsError) as refused:
        read(tmp_path, f"  t: {keys.replace('§', '')}\n")
    place = (5, len("  t: ") + keys.index("§") + 1)
    told = [fault for fault in refused.value.faults if message in fault.message]
    assert [(fault.line, fault.column) for fault in told] == [place], refused.value


def test_an_input_that_is_taken_over_the_api_can_be_shown_again() -> None:
    def of(depth: int) -> TriggerDefinition:
        input = json.loads("[" * depth + "]" * depth)
        return TriggerDefinition(name="t", schedule="* * * * *", function="f", input=input)

    definition = of(MAX_INPUT_DEPTH)
    assert TriggerDefinition.model_validate({**definition_view(definition), "name": "t"}) == definition
    with pytest.raises(ValidationError, match="more than 100 lists and mappings within one another"):
        of(MAX_INPUT_DEPTH + 1)


def test_a_secret_may_be_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HOOK", os.fsdecode(b"\xff\xfe"))
    assert Webhook(signature="github", secret_env="HOOK").secret() == b"\xff\xfe"


def test_a_name_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(DefinitionsError, match="to be a trigger's name, not 'T'"):
        read(tmp_path, '  T: {schedule: "* * * * *", function: f}\n')


def test_the_documents_example_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_SECRET", "x")
    example = DOCUMENT.split("```yaml\n")[1].partition("```")[0]
    functions = ", ".join(f"{name}: {{image: x, port: 1}}" for name in ("report", "thumbnail", "build"))
    file = tmp_path / "functions.yaml"
    file.write_text(f"version: 1\nfunctions: {{{functions}}}\n{example}")
    assert set(load(file).triggers) == {"nightly", "thumbnails", "on-push"}


def test_every_key_is_documented_with_its_default() -> None:
    section = DOCUMENT.partition("## Keys")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", section, re.MULTILINE))
    assert set(rows) == set(KEYS)
    for name, field in KEYS.items():
        default = format_duration(field.default) if isinstance(field.default, float) else field.default
        assert rows[name].strip("`") == ("none" if default is None else default)
