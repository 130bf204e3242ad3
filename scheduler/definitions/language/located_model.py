"""Reader that turns a YAML file into models and records every fault with its position."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from scheduler.definitions.language import rules
from scheduler.definitions.language.faults import Fault, shown
from scheduler.definitions.language.located_yaml import Document, KeyPath

_RULE = "rule"
"""Type of pydantic's error for a broken rule between keys."""
_TEXT_KEYS = ("env", "labels", "command")
"""Keys with text values, even where a value looks like a number."""
_MAY_BE_NULL = frozenset({"max_invocations"})
NO_ADVICE: Mapping[str, str] = {}


class Keys(BaseModel):
    """The keys of one mapping in functions.yaml. Immutable; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        given = {key: value for key in self.model_fields_set if (value := getattr(self, key)) is not None}
        for _, message in self.rule_faults(given):
            raise PydanticCustomError(_RULE, "{message}", {"message": message})
        return self

    @classmethod
    def rule_faults(cls, keys: Mapping[str, Any]) -> Iterator[rules.Blame]:
        """Yield the faults between these keys: the key to blame, or "", and a message."""
        return iter(())


_Model = TypeVar("_Model", bound=Keys)


class Reader:
    """One pass over one file. It records a fault and goes on, so that all are reported together."""

    def __init__(self, document: Document) -> None:
        self.file = document.file
        self.document = document
        self.faults = list(document.faults)

    def model(
        self, model: type[_Model], keys: dict[str, Any], own: dict[str, Any], path: KeyPath
    ) -> tuple[_Model | None, set[object]]:
        """Return the model of `keys`, or None if it has faults, and the keys at fault.

        `own` are the keys that are written at `path`; the others come from `defaults`.
        """
        made = None
        faulty: set[object] = {
            key for key, value in keys.items() if value is None and key not in _MAY_BE_NULL
        }
        for key in faulty:
            self.fault((*path, str(key)), "has no value; write one, or remove the key")
        try:
            made = model.model_validate({key: value for key, value in keys.items() if key not in faulty})
        except ValidationError as error:
            faulty |= self.validation_faults(error, path)
        for key, message in model.rule_faults(keys):
            from_defaults = " (it comes from `defaults`)" if key in keys and key not in own else ""
            self.fault((*path, key) if key else path, message + from_defaults)
            faulty.add(key)
        return made, faulty

    def validation_faults(self, error: ValidationError, path: KeyPath) -> set[object]:
        """Record the faults that pydantic found below `path`; return the keys at fault."""
        blamed: set[object] = set()
        for detail in error.errors():
            if detail["type"] != _RULE:  # `model` reports each broken rule with its key
                where = tuple(part for part in detail["loc"] if part != "[key]")
                self.fault((*path, *where), message_of(detail))
                blamed |= set(where[:1])
        return blamed

    def mapping(self, root: dict[str, Any], key: str) -> dict[str, Any]:
        """Return the mapping at a root key; empty if the key is absent or at fault."""
        value = root.get(key, {})
        if isinstance(value, dict):
            return value
        self.fault((key,), f"must be a mapping, or {{}} for an empty one, not {shown(value)}")
        return {}

    def known(
        self,
        keys: dict[str, Any],
        allowed: Sequence[str],
        path: KeyPath,
        instead: Mapping[str, str] = NO_ADVICE,
    ) -> dict[str, Any]:
        """Return the allowed keys, numbers as text where text is wanted. Every other key is a fault.

        `instead` says what to write in place of keys that people bring from elsewhere.
        """
        for key in keys:
            if key in instead:
                self.fault((*path, key), f"there is no key {shown(key)}; {instead[key]}")
            elif key not in allowed:
                self.fault((*path, key), no_such("key", key, allowed))
        known = {key: value for key, value in keys.items() if key in allowed}
        return {
            key: self._as_written(value, (*path, key)) if key in _TEXT_KEYS else value
            for key, value in known.items()
        }

    def _as_written(self, value: object, path: KeyPath) -> object:
        """Return numbers as the text they are written as: `1.10` in `env` means 1.10, not 1.1."""
        if isinstance(value, dict):
            return {key: self._as_written(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._as_written(item, (*path, index)) for index, item in enumerate(value)]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return self.document.position(path).text if is_number else value

    def fault(self, path: KeyPath, message: str) -> None:
        """Record a fault at `path`, unless the value there has a fault of its YAML already."""
        if self.document.is_broken(path):
            return
        position = self.document.position(path)
        named = ".".join(
            part if re.fullmatch(r"[\w/-]+", str(part)) else shown(part) for part in map(str, path)
        )
        self.faults.append(
            Fault(self.file, position.line, position.column, f"{named}: {message}" if path else message)
        )


def message_of(detail: ErrorDetails) -> str:
    """Return the message for a fault that pydantic found."""
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    if detail["type"] == "literal_error":
        return f"must be {detail['ctx']['expected']}, not {shown(detail['input'])}"
    if detail["type"] == "missing":
        return "is missing; write it"
    if detail["type"] == "extra_forbidden":
        return "is not a known key here; remove it"
    if detail["type"] in ("dict_type", "model_type"):
        return f"must be a mapping, like {{key: value}}, not {shown(detail['input'])}"
    return detail["msg"]


def no_such(what: str, name: str, allowed: Sequence[str]) -> str:
    """Return a message that a name does not exist, with the nearest one or all that do."""
    near = difflib.get_close_matches(name, allowed, n=1)
    advice = f"did you mean `{near[0]}`?" if near else f"allowed: {listed(allowed) or 'none is declared'}"
    return f"there is no {what} {shown(name)}; {advice}"


def listed(names: Collection[object]) -> str:
    """Return names as a list for a sentence."""
    return ", ".join(map(str, names))
