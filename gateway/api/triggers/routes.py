"""The routes of triggers: what there is, firing by hand, pausing, and making some over the API."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from gateway.access.access import CURRENT
from gateway.api.dependencies import DispatcherPart, SchedulesPart, TriggersPart, WorkQueuesPart
from gateway.api.openapi import problem_responses
from gateway.api.triggers.definitions import definition_of
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
from gateway.http.pieces import json_response, list_response, unhurried
from gateway.http.problems import Problem
from gateway.invoke.body import whole_body, whole_document
from pool.clock import next_turn
from scheduler.definitions.triggers import TriggerDefinition
from scheduler.triggers.model import FireRecord
from scheduler.triggers.schedules import Schedules
from scheduler.triggers.store import FIRES_KEPT
from scheduler.triggers.triggers import Triggers

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
TriggerName = Annotated[str, Path(description="Name of the trigger", examples=["nightly"])]

router = APIRouter(tags=["triggers"])


def find_trigger(triggers: Triggers, name: str) -> TriggerDefinition:
    """Return a trigger that the caller may see. Raises `Problem`."""
    definition = triggers.all.get(name)
    if definition is None or not triggers.may_start(definition, CURRENT.get().may_name):
        raise Problem("not-found", f"there is no trigger {name!r}; GET /triggers lists them")
    return definition


def find_own_trigger(triggers: Triggers, name: str) -> TriggerDefinition:
    """Return a trigger that the caller may decide about. Raises `Problem`."""
    definition = find_trigger(triggers, name)
    check_allowed(triggers, definition)
    return definition


def check_allowed(triggers: Triggers, definition: TriggerDefinition) -> None:
    """Raise `Problem` unless the caller may decide about such a trigger."""
    if not triggers.may_start(definition, CURRENT.get().may_invoke):
        names = ", ".join(sorted(triggers.functions(definition)))
        raise Problem("forbidden", f"only a key that may invoke {names} decides about this trigger")


def trigger_view(
    triggers: Triggers, schedules: Schedules, definition: TriggerDefinition, last: FireRecord | None
) -> TriggerView:
    """Return a trigger as the API shows it. `last` is its latest fire."""
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


async def trigger_response(
    triggers: Triggers, schedules: Schedules, definition: TriggerDefinition
) -> Response:
    """Return a trigger with its latest fires as an answer."""
    store = triggers.store
    fires = await store.fires(definition.name, FIRES_KEPT) if store.exists else []
    shown_as = trigger_view(triggers, schedules, definition, fires[0] if fires else None)
    await next_turn()  # a condition may have thousands of filters: to show them takes two turns
    # Its parts were checked as they were made.
    whole = TriggerWithFiresView.model_construct(**dict(shown_as), fires=[*map(fire_view, fires)])
    return json_response(whole.model_dump_json(by_alias=True).encode())


@router.get(
    "/triggers",
    summary="List the triggers",
    response_model=list[TriggerView],
    responses=STORE,
)
async def list_triggers(triggers: TriggersPart, schedules: SchedulesPart) -> Response:
    """List the triggers of functions.yaml and those made over the API, each with its latest fire."""
    may_name = CURRENT.get().may_name
    every = [definition for _, definition in sorted(triggers.all.items())]
    shown = [each async for each in unhurried(every) if triggers.may_start(each, may_name)]
    names = [definition.name for definition in shown]
    latest = await triggers.store.latest_fires(names) if triggers.store.exists else {}
    return await list_response(
        shown, lambda each: trigger_view(triggers, schedules, each, latest.get(each.name))
    )


@router.get(
    "/triggers/{name}",
    summary="Show a trigger",
    response_model=TriggerWithFiresView,
    responses=FOUND,
)
async def show_trigger(name: TriggerName, triggers: TriggersPart, schedules: SchedulesPart) -> Response:
    """Show one trigger, with its latest fires and what was wrong with them."""
    return await trigger_response(triggers, schedules, find_trigger(triggers, name))


@router.put(
    "/triggers/{name}",
    summary="Make a trigger",
    response_model=TriggerWithFiresView,
    responses=MADE,
    openapi_extra=DEFINITION,
)
async def make_trigger(
    name: TriggerName,
    request: Request,
    triggers: TriggersPart,
    dispatcher: DispatcherPart,
    schedules: SchedulesPart,
    work_queues: WorkQueuesPart,
) -> Response:
    """Make a trigger that is kept in the store, or change one. Those of functions.yaml are changed there."""
    check_open(triggers, dispatcher)
    if name in triggers.declared:
        raise Problem("conflict", f"{name} is declared in functions.yaml, and changed there")
    if (earlier := triggers.made.get(name)) is not None and not triggers.may_start(
        earlier, CURRENT.get().may_invoke
    ):
        raise Problem("conflict", f"there is a trigger {name} that is not yours to change; take another name")
    async with whole_document(request, LARGEST_DEFINITION, "the most that a trigger's keys may have") as body:
        definition = await work_queues.triggers.do(len(body), lambda: definition_of(name, body, triggers))
    fault = triggers.fault(definition)
    if fault is None or definition.function is not None:  # else the fault tells which functions there are
        check_allowed(triggers, definition)
    if fault is not None:
        raise Problem("invalid-input", fault)
    await triggers.make(definition)
    return await trigger_response(triggers, schedules, definition)


@router.delete(
    "/triggers/{name}",
    status_code=204,
    summary="Remove a trigger",
    response_description="It is gone. What it has started goes on",
    responses=CONFLICT,
)
async def remove_trigger(name: TriggerName, triggers: TriggersPart) -> Response:
    """Remove a trigger that was made over the API, with the record of its fires."""
    find_own_trigger(triggers, name)
    if name in triggers.declared:
        raise Problem("conflict", f"{name} is declared in functions.yaml, and removed there")
    await triggers.unmake(name)
    return Response(status_code=204)


@router.post(
    "/triggers/{name}/pause",
    summary="Pause a trigger",
    response_model=TriggerWithFiresView,
    responses=FOUND,
)
async def pause_trigger(name: TriggerName, triggers: TriggersPart, schedules: SchedulesPart) -> Response:
    """Let nothing fire it until it is resumed, except by hand. It stays paused after a restart."""
    definition = find_own_trigger(triggers, name)
    await triggers.pause(name, True)
    return await trigger_response(triggers, schedules, definition)


@router.post(
    "/triggers/{name}/resume",
    summary="Resume a trigger",
    response_model=TriggerWithFiresView,
    responses=FOUND,
)
async def resume_trigger(name: TriggerName, triggers: TriggersPart, schedules: SchedulesPart) -> Response:
    """Let it fire again. What a schedule would have fired meanwhile is not made up for."""
    definition = find_own_trigger(triggers, name)
    await triggers.pause(name, False)
    return await trigger_response(triggers, schedules, definition)


@router.post(
    "/triggers/{name}/fire",
    status_code=202,
    summary="Fire a trigger by hand",
    response_description="What it starts is on disk",
    responses=FIRED,
    openapi_extra=ANY_BODY,
)
async def fire_trigger(
    name: TriggerName,
    request: Request,
    triggers: TriggersPart,
    dispatcher: DispatcherPart,
    work_queues: WorkQueuesPart,
) -> StartedView:
    """Start its action now, whatever its cause and also while it is paused."""
    check_open(triggers, dispatcher)
    definition = find_own_trigger(triggers, name)
    body = await whole_body(request, LARGEST_INPUT, "the most that a trigger is fired with")
    headers = [(key, value) for key, value in request.scope["headers"] if key == b"content-type"]
    fire = await work_queues.triggers.do(len(body), lambda: triggers.fire_by_hand(definition, headers, body))
    (outcome,) = await triggers.carry_out([fire], sender=CURRENT.get().caller)
    return started_view(fire, outcome)
