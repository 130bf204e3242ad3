"""Triggers, from `triggers` of functions.yaml: schedules, events and webhooks that start things by themselves."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from scheduler.definitions.language import key_types as types
from scheduler.definitions.language import rules
from scheduler.definitions.language.cron import Cron, parse_zone
from scheduler.definitions.language.faults import shown
from scheduler.definitions.language.filters import Filters
from scheduler.definitions.language.located_model import Keys, Reader, listed, no_such
from scheduler.definitions.language.timetable import CatchUp, Overlap, Timetable
from scheduler.definitions.language.units import Duration, Size, duration_between, size_between
from scheduler.json_steps import dumps

CAUSES = ("schedule", "events", "webhook")
ACTIONS = ("function", "workflow", "job")
SCHEDULE_KEYS = ("timezone", "overlap", "catch_up", "jitter", "input")
DEFAULT_MESSAGE_BYTES = 2**20
"""Largest message of a webhook without `max_body`."""
MAX_INPUT_BYTES = 256 * 1024
"""Largest `input` as JSON: every fire stores a copy."""
MAX_INPUT_DEPTH = 100
"""Levels of lists and mappings in `input`; far below Python's limit of recursion, 1000."""
SECRET_PREFIX = b"whsec_"
"""Prefix of a Standard Webhooks secret whose rest is base64."""


def _expression(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f'must be a cron expression, like "*/5 * * * *", not {shown(value)}')
    return Cron(value).expression


def _zone(value: object) -> str:
    return parse_zone(value).key


def _json(value: object) -> object:
    try:
        size, depth = len(dumps(value, allow_nan=False)), _depth(value)
    except (TypeError, ValueError, RecursionError):
        raise ValueError("must be a JSON value: mappings, lists, text, numbers, true, false") from None
    if depth > MAX_INPUT_DEPTH:
        raise ValueError(f"must not hold more than {MAX_INPUT_DEPTH} lists and mappings within one another")
    if size > MAX_INPUT_BYTES:
        raise ValueError(f"must be at most {MAX_INPUT_BYTES} bytes as JSON, not {size}")
    return value


def _depth(value: object) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(_depth, value.values() if isinstance(value, dict) else value), default=0)


def _file(value: object) -> Path:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"must be the path of a file, relative to this file, not {shown(value)}")
    return Path(value)


TriggerName = Annotated[
    str,
    types.text(
        types.NAME, "1 to 63 lower-case letters, digits, - or _ with a letter first, to be a trigger's name"
    ),
]


class EventCause(Keys):
    """The cause `events`: published events that pass the filters."""

    filters: Filters
    """An event must pass all of them."""


class Webhook(Keys):
    """The cause `webhook`: signed messages of another system, sent to POST /hooks/NAME."""

    signature: Literal["github", "standard"]
    """Scheme of the signature: X-Hub-Signature-256, or Standard Webhooks."""
    secret_env: Annotated[str, types.text("[A-Za-z_][A-Za-z0-9_]*", "the name of a variable")] | None = None
    """Environment variable of the gateway that holds the secret."""
    secret_file: Annotated[Path, BeforeValidator(_file)] | None = None
    """File that holds the secret. Absolute after `load`."""
    max_body: Annotated[Size, size_between("1B", "64MiB")] = DEFAULT_MESSAGE_BYTES
    """Largest message, bytes."""
    once: Literal["delivery", "body"] = "delivery"
    """Two messages with the same delivery id, or with the same body, start the action once."""
    filters: Filters | None = None
    """The event that a message becomes must pass all of them."""

    @classmethod
    def rule_faults(cls, keys: Mapping[str, Any]) -> Iterator[rules.Blame]:
        """Yield the faults between these keys."""
        yield from _exactly_one(keys, ("secret_env", "secret_file"))

    def secret(self) -> bytes:
        """Read the secret now. Raises ValueError, with advice, if there is none."""
        if self.secret_env is not None:
            secret = os.fsencode(os.environ.get(self.secret_env, "")).strip()
            advice = f"the variable {self.secret_env} is not set; set it where the gateway is started"
        else:
            assert self.secret_file is not None
            advice = f"the file {self.secret_file} is empty; write the secret into it"
            try:
                secret = self.secret_file.read_bytes().strip()
            except OSError as error:
                raise ValueError(f"the file {self.secret_file} cannot be read: {error.strerror}") from None
        if not secret:
            raise ValueError(advice)
        if self.signature == "standard":
            standard_key(secret)
        return secret


def standard_key(secret: bytes) -> bytes:
    """Return the bytes that Standard Webhooks signs with. Raises ValueError."""
    if not secret.startswith(SECRET_PREFIX):
        return secret
    try:
        key = base64.b64decode(secret[len(SECRET_PREFIX) :], validate=True)
    except ValueError:
        key = b""
    if not key:  # anybody can sign with nothing
        raise ValueError("the secret begins with whsec_, but no valid base64 follows; copy it again")
    return key


class TriggerDefinition(Keys):
    """One trigger as it is declared: one cause, and one action."""

    name: TriggerName
    schedule: Annotated[str, BeforeValidator(_expression)] | None = None
    """Cron expression of five fields, or six with the seconds first."""
    timezone: Annotated[str, BeforeValidator(_zone)] = "UTC"
    overlap: Overlap = "skip"
    """Rule for a fire whose predecessor's action has not ended."""
    catch_up: CatchUp = "last"
    """Fires to make up for that fell due while no gateway ran."""
    jitter: Annotated[Duration, duration_between("0s", "24h")] = 0.0
    """Seconds that a fire may be put off, so that not everything starts at once."""
    input: Annotated[Any, BeforeValidator(_json)] = None
    """Input of a schedule's action, a JSON value."""
    events: EventCause | None = None
    webhook: Webhook | None = None
    function: types.FunctionName | None = None
    workflow: types.FunctionName | None = None
    job: types.FunctionName | None = None

    @property
    def cause(self) -> str:
        """Return which of `CAUSES` it has."""
        return next(key for key in CAUSES if getattr(self, key) is not None)

    @property
    def action(self) -> tuple[str, str]:
        """Return the kind and the name of what it starts."""
        return next((key, name) for key in ACTIONS if (name := getattr(self, key)) is not None)

    def timetable(self) -> Timetable | None:
        """Return the timetable of a schedule, or None for another cause."""
        if self.schedule is None:
            return None
        cron = Cron(self.schedule, self.timezone)
        return Timetable(self.name, cron, self.overlap, self.catch_up, self.jitter)

    @classmethod
    def rule_faults(cls, keys: Mapping[str, Any]) -> Iterator[rules.Blame]:
        """Yield the faults between these keys."""
        yield from _exactly_one(keys, CAUSES)
        yield from _exactly_one(keys, ACTIONS)
        if "schedule" not in keys:
            yield from (
                (key, "belongs to a trigger with `schedule`; remove it")
                for key in SCHEDULE_KEYS
                if key in keys
            )


_KEYS = tuple(key for key in TriggerDefinition.model_fields if key != "name")


def read_triggers(
    reader: Reader, given: Mapping[str, Any], names: Mapping[str, Collection[str]]
) -> dict[str, TriggerDefinition]:
    """Return the triggers of a file that have no fault. `names` are the names that can be started, by kind."""
    sound: dict[str, TriggerDefinition] = {}
    for name, keys in given.items():
        path = ("triggers", name)
        if not isinstance(keys, dict):
            reader.fault(path, f"must be a mapping with the trigger's keys, not {shown(keys)}")
            continue
        own = reader.known(keys, _KEYS, path)
        merged = {**own, "name": name}
        webhook = own.get("webhook")
        if (
            isinstance(webhook, dict)
            and isinstance(file := webhook.get("secret_file"), str)
            and "\0" not in file
        ):
            merged["webhook"] = (
                {**webhook, "secret_file": reader.file.parent.absolute() / file} if file else webhook
            )
        made = reader.model(TriggerDefinition, merged, own, path)[0]
        if isinstance(webhook, dict):
            for key, message in Webhook.rule_faults(webhook):
                reader.fault((*path, "webhook", *((key,) if key else ())), message)
        for kind in ACTIONS:
            wanted = own.get(kind)
            known = names.get(kind, ())
            if isinstance(wanted, str) and re.fullmatch(types.NAME, wanted) and wanted not in known:
                reader.fault((*path, kind), no_such(kind, wanted, sorted(known)))
        if made is None:
            continue
        if made.webhook is not None:
            key = "secret_env" if made.webhook.secret_env else "secret_file"
            try:
                made.webhook.secret()
            except ValueError as error:
                reader.fault((*path, "webhook", key), str(error))
        sound[name] = made
    return sound


def _exactly_one(keys: Mapping[str, Any], wanted: tuple[str, ...]) -> Iterator[rules.Blame]:
    given = [key for key in wanted if key in keys]
    if not given:
        yield "", f"must have one of {listed(wanted)}"
    for key in given[1:]:
        yield key, f"cannot be beside `{given[0]}`; write one of {listed(wanted)}"
