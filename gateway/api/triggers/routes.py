"""The routes of triggers: what there is, firing by hand, pausing, and making some over the API."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import ValidationError

from gateway.access.access import CURRENT
from gateway.api.openapi import problem_responses
from gateway.api.triggers.events import check_open
from gateway.api.triggers.views import (
    StartedView,
    TriggerView,
    TriggerWithFiresView,
    definition_view,
    fire_view,
    started_view,
)
from gateway.api.views import moment
from gateway.http.pieces import Desk, json_response, list_response, unhurried
from gateway.http.problems import Problem
from gateway.invoke.body import whole_body, whole_document
from scheduler.definitions.language.faults import shown
from scheduler.definitions.language.located_model import message_of
from scheduler.definitions.triggers import TriggerDefinition
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.json_steps import dumps, loads
from scheduler.store.sqlite.rows.trigger_rows import FIRES_KEPT
from scheduler.triggers.model import FireRecord
from scheduler.triggers.schedules import Schedules
from scheduler.triggers.triggers import Triggers

TAGS: list[str | Enum] = ["triggers"]
LARGEST_DEFINITION = 512 * 1024
LARGEST_INPUT = 6 * 2**20
"""Bytes of what a trigger is fired with by hand."""
STORE = problem_responses("store-failed")
FOUND = problem_responses("not-found", "store-failed", "forbidden")
CONFLICT = problem_responses("not-found", "conflict", "store-failed", "forbidden")
MADE = problem_responses(
    "bad-request",
    "conflict",
    "invalid-input",
    "body-timeout",
    "body-too-large",
    "busy",
    "store-failed",
    "no-capacity",
    "draining",
    "forbidden",
)
FIRED = problem_responses(
    "not-found", "body-timeout", "body-too-large", "busy", "store-failed", "draining", "forbidden"
)
EXAMPLE = {
    "schedule": "0 3 * * *",
    "timezone": "Europe/Berlin",
    "function": "hello",
    "input": {"name": "Ada"},
}
DEFINITION: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The trigger's keys, as in functions.yaml. "
        "A webhook's secret is in a variable of the gateway that HEARTH_ALLOWED_SECRETS lists",
        "content": {"application/json": {"schema": {"type": "object"}, "example": EXAMPLE}},
    }
}
ANY_BODY: dict[str, Any] = {
    "requestBody": {
        "description": "What its action is started with, instead of its `input`; at most 6 MiB",
        "content": {"application/json": {"schema": {}}, "*/*": {"schema": {}}},
    }
}
Name = Annotated[str, Path(description="Name of the trigger", examples=["nightly"])]


def add_trigger_routes(
    router: APIRouter, triggers: Triggers, schedules: Schedules, dispatcher: Dispatcher
) -> None:
    """Add the routes of one gateway."""

    desk = Desk()

    def find(name: str) -> TriggerDefinition:
        definition = triggers.all.get(name)
        if definition is None or not triggers.may_start(definition, CURRENT.get().may_name):
            raise Problem("not-found", f"there is no trigger {name!r}; GET /triggers lists them")
        return definition

    def find_own(name: str) -> TriggerDefinition:
        definition = find(name)
        check_allowed(definition)
        return definition

    def check_allowed(definition: TriggerDefinition) -> None:
        if not triggers.may_start(definition, CURRENT.get().may_invoke):
            names = ", ".join(sorted(triggers.functions(definition)))
            raise Problem("forbidden", f"only a key that may invoke {names} decides about this trigger")

    def view(definition: TriggerDefinition, last: FireRecord | None) -> TriggerView:
        next_fire = schedules.next_fire(definition)
        kind, target = definition.action
        return TriggerView(
            name=definition.name,
            origin="file" if definition.name in triggers.declared else "api",
            cause=definition.cause,  # type: ignore[arg-type]
            action={kind: target},
            paused=definition.name in triggers.paused,
            fault=triggers.fault(definition),
            next=None if next_fire is None else moment(next_fire),
            last=None if last is None else fire_view(last),
            definition=definition_view(definition),
        )

    async def one(definition: TriggerDefinition) -> Response:
        store = triggers.store
        fires = await store.fires(definition.name, FIRES_KEPT) if store.exists else []
        shown_as = view(definition, fires[0] if fires else None)
        await asyncio.sleep(0)  # a condition may have thousands of filters: to show them takes two turns
        # Its parts were checked as they were made.
        whole = TriggerWithFiresView.model_construct(**dict(shown_as), fires=[*map(fire_view, fires)])
        return json_response(whole.model_dump_json(by_alias=True).encode())

    @router.get(
        "/triggers",
        tags=TAGS,
        summary="List the triggers",
        response_model=list[TriggerView],
        responses=STORE,
    )
    async def list_triggers() -> Response:
        """Those of functions.yaml and those made over the API, each with its latest fire."""
        may_name = CURRENT.get().may_name
        every = [definition for _, definition in sorted(triggers.all.items())]
        shown = [each async for each in unhurried(every) if triggers.may_start(each, may_name)]
        names = [definition.name for definition in shown]
        latest = await triggers.store.latest_fires(names) if triggers.store.exists else {}
        return await list_response(shown, lambda each: view(each, latest.get(each.name)))

    @router.get(
        "/triggers/{name}",
        tags=TAGS,
        summary="Show a trigger",
        response_model=TriggerWithFiresView,
        responses=FOUND,
    )
    async def show_trigger(name: Name) -> Response:
        """One trigger, with its latest fires and what was wrong with them."""
        return await one(find(name))

    @router.put(
        "/triggers/{name}",
        tags=TAGS,
        summary="Make a trigger",
        response_model=TriggerWithFiresView,
        responses=MADE,
        openapi_extra=DEFINITION,
    )
    async def make_trigger(name: Name, request: Request) -> Response:
        """Make a trigger that is kept in the store, or change one. Those of functions.yaml are changed there."""
        check_open(triggers, dispatcher)
        if name in triggers.declared:
            raise Problem("conflict", f"{name} is declared in functions.yaml, and changed there")
        if (earlier := triggers.made.get(name)) is not None and not triggers.may_start(
            earlier, CURRENT.get().may_invoke
        ):
            raise Problem(
                "conflict", f"there is a trigger {name} that is not yours to change; take another name"
            )
        async with whole_document(
            request, LARGEST_DEFINITION, "the most that a trigger's keys may have"
        ) as body:
            definition = await desk.do(len(body), lambda: definition_of(name, body, triggers))
        fault = triggers.fault(definition)
        if fault is None or definition.function is not None:  # else the fault tells which functions there are
            check_allowed(definition)
        if fault is not None:
            raise Problem("invalid-input", fault)
        await triggers.make(definition)
        return await one(definition)

    @router.delete(
        "/triggers/{name}",
        tags=TAGS,
        status_code=204,
        summary="Remove a trigger",
        response_description="It is gone. What it has started goes on",
        responses=CONFLICT,
    )
    async def remove_trigger(name: Name) -> Response:
        """Remove a trigger that was made over the API, with the record of its fires."""
        find_own(name)
        if name in triggers.declared:
            raise Problem("conflict", f"{name} is declared in functions.yaml, and removed there")
        await triggers.unmake(name)
        return Response(status_code=204)

    @router.post(
        "/triggers/{name}/pause",
        tags=TAGS,
        summary="Pause a trigger",
        response_model=TriggerWithFiresView,
        responses=FOUND,
    )
    async def pause_trigger(name: Name) -> Response:
        """Nothing fires it any more, but by hand, until it is resumed; also after a restart."""
        definition = find_own(name)
        await triggers.pause(name, True)
        return await one(definition)

    @router.post(
        "/triggers/{name}/resume",
        tags=TAGS,
        summary="Resume a trigger",
        response_model=TriggerWithFiresView,
        responses=FOUND,
    )
    async def resume_trigger(name: Name) -> Response:
        """Let it fire again. What a schedule would have fired meanwhile is not made up for."""
        definition = find_own(name)
        await triggers.pause(name, False)
        return await one(definition)

    @router.post(
        "/triggers/{name}/fire",
        tags=TAGS,
        status_code=202,
        summary="Fire a trigger by hand",
        response_description="What it starts is on disk",
        responses=FIRED,
        openapi_extra=ANY_BODY,
    )
    async def fire_trigger(name: Name, request: Request) -> StartedView:
        """Start its action now, whatever its cause and also while it is paused."""
        check_open(triggers, dispatcher)
        definition = find_own(name)
        body = await whole_body(request, LARGEST_INPUT, "the most that a trigger is fired with")
        headers = [(key, value) for key, value in request.scope["headers"] if key == b"content-type"]
        fire = await desk.do(len(body), lambda: triggers.fire_by_hand(definition, headers, body))
        (outcome,) = await triggers.carry_out([fire], sender=CURRENT.get().caller)
        return started_view(fire, outcome)


def definition_of(name: str, body: bytes, triggers: Triggers) -> TriggerDefinition:
    """The trigger of this JSON. Raises `Problem`, with everything that is wrong with it."""
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
