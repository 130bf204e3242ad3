"""Options of commands for settings, and messages about faulty settings."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticUndefined

from gateway.assembly.settings import Settings
from scheduler.definitions.language.faults import shown
from scheduler.definitions.language.units import format_duration, format_size
from scheduler.triggers.secret_names import PREFIX as SECRET_PREFIX

Command = TypeVar("Command", bound=Callable[..., Any])

PREFIX = "HEARTH_"
OTHERS = frozenset({"HEARTH_URL", "HEARTH_API_KEY", "HEARTH_API_KEY_FILE"})
"""Variables of commands that call a gateway. They are not settings of the gateway."""
SECRET = frozenset({"api_keys", "callback_secret"})
"""Settings without an option, because everybody on the machine can read the options of a process."""
METAVARS = {
    "functions": "FILE",
    "data_dir": "FOLDER",
    "memory_budget": "SIZE",
    "body_memory": "SIZE",
    "keep_alive_policy": "[gdsf|lru|ttl]",
    "spare_memory": "SHARE",
    "spare_time": "DURATION",
    "async_retention": "DURATION",
    "async_size": "SIZE",
    "log_limit": "SIZE",
    "log_disk": "SIZE",
    "package_size": "SIZE",
    "log_age": "DURATION",
    "drain_timeout": "DURATION",
    "start_timeout": "DURATION",
    "client_timeout": "DURATION",
    "allowed_volumes": "FOLDER[:FOLDER...]",
    "allowed_capabilities": "NAME[,NAME...]",
    "uids": "FIRST-LAST",
    "allowed_hosts": "NAME[,NAME...]",
    "allowed_secrets": "NAME[,NAME...]",
    "callback_allow": "HOST[,HOST...]",
    "log_level": "[debug|info|warning|error]",
    "log_format": "[text|json]",
}


class SettingsFault(Exception):
    """Settings are invalid. The message has a line for each: which, why, and what is allowed."""


def setting_options(*names: str) -> Callable[[Command], Command]:
    """Return a decorator that adds an option for each of these settings, or for all but secrets.

    An option that is not given is None.
    """

    def add(command: Command) -> Command:
        for name in reversed(names or tuple(n for n in Settings.model_fields if n not in SECRET)):
            field = Settings.model_fields[name]
            option = option_of(name)
            text = f"{field.description}. [default: {default_of(name)}; variable: {variable_of(name)}]"
            if field.annotation is bool:
                flags = f"{option}/--no-{option.removeprefix('--')}"
                command = click.option(flags, name, default=None, help=text)(command)
            else:
                command = click.option(option, name, metavar=METAVARS.get(name), help=text)(command)
        return command

    return add


def settings_from(options: Mapping[str, object]) -> Settings:
    """Return the settings. An option overrides a variable, which overrides the default. Raises `SettingsFault`."""
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        faults = (fault_of(detail, given) for detail in error.errors())
        raise SettingsFault("\n".join(faults)) from error


def unknown_variables() -> list[str]:
    """Return a message for each variable that looks like a setting but is none."""
    known = {variable_of(name) for name in Settings.model_fields} | OTHERS
    found = []
    for name in sorted(os.environ):
        if name.startswith(SECRET_PREFIX):
            continue
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f"did you mean {near[0]}?" if near else "hearth serve --help lists them"
            found.append(f"{name} is not a setting; {hint}")
    return found


def fault_of(detail: ErrorDetails, given: Mapping[str, object]) -> str:
    """Return the message for one fault: the option or variable, the value, and what is allowed."""
    name = str(detail["loc"][0])
    value = detail["input"]
    context = detail.get("ctx", {})
    match detail["type"]:
        case "value_error":
            wrong = str(context["error"])
        case "literal_error":
            wrong = f"must be {context['expected']}, not {shown(value)}"
        case "int_parsing" | "int_type" | "int_from_float":
            wrong = f"must be a whole number, not {shown(value)}"
        case "greater_than_equal" | "less_than_equal":
            bounds = {type(m).__name__: m for m in Settings.model_fields[name].metadata}
            low, high = getattr(bounds.get("Ge"), "ge", "any"), getattr(bounds.get("Le"), "le", "any")
            wrong = f"must be from {low} to {high}, not {shown(value)}"
        case "bool_parsing" | "bool_type":
            wrong = f"must be true or false, not {shown(value)}"
        case _:
            wrong = f"{detail['msg']}, not {shown(value)}"
    return f"{option_of(name) if name in given else variable_of(name)}: {wrong}"


def option_of(name: str) -> str:
    """Return the option of a setting."""
    return f"--{name.replace('_', '-')}"


def variable_of(name: str) -> str:
    """Return the environment variable of a setting."""
    return f"{PREFIX}{name.upper()}"


def default_of(name: str) -> str:
    """Return the default of a setting as a user would write it."""
    field = Settings.model_fields[name]
    if name == "memory_budget":
        return "75 % of this machine's RAM"
    if name == "body_memory":
        return "a sixteenth of this machine's RAM, from 64MiB to 1GiB"
    if name == "log_format":
        return "text on a terminal, else json"
    value = field.get_default(call_default_factory=True, validated_data={})
    assert value is not PydanticUndefined
    if value == [] or value is None:
        return "none"
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    if METAVARS.get(name) == "SIZE":
        return format_size(value)
    return format_duration(value) if METAVARS.get(name) == "DURATION" else str(value)
