"""The definition of a trigger in the JSON of a request."""

from __future__ import annotations

from pydantic import ValidationError

from gateway.http.problems import Problem
from scheduler.definitions.language.faults import shown
from scheduler.definitions.language.located_model import message_of
from scheduler.definitions.triggers import TriggerDefinition
from scheduler.json_steps import dumps, loads
from scheduler.triggers.triggers import Triggers


def definition_of(name: str, body: bytes, triggers: Triggers) -> TriggerDefinition:
    """Return the trigger that JSON describes. Raises `Problem` with everything that is wrong with it."""
    try:
        keys = loads(body)
        dumps(keys, ensure_ascii=False)  # neither the store nor an answer can hold half a character
    except (ValueError, RecursionError) as error:
        raise Problem("bad-request", f"the body is no JSON: {error}") from None
    if not isinstance(keys, dict):
        raise Problem("invalid-input", f"a trigger is a JSON object with its keys, not {shown(keys)}")
    webhook = keys.get("webhook")
    if isinstance(webhook, dict) and "secret_file" in webhook:
        raise Problem("invalid-input", "webhook.secret_file: is for functions.yaml only; name a secret_env")
    if "name" in keys:
        raise Problem("invalid-input", "name: stands in the path")
    try:
        definition = TriggerDefinition.model_validate({**keys, "name": name})
        if definition.webhook is not None:
            triggers.secret(definition)
    except ValidationError as error:
        faults = (
            ": ".join((".".join(str(part) for part in detail["loc"] if part != "[key]"), message_of(detail)))
            for detail in error.errors()
        )
        raise Problem("invalid-input", "; ".join(fault.removeprefix(": ") for fault in faults)) from None
    except ValueError as error:
        raise Problem("invalid-input", f"webhook: {error}") from None
    except RecursionError:
        raise Problem("invalid-input", "it is nested too deep") from None
    return definition
