"""The routes of triggers without a gateway: what keys are told of what they may not start."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx
from fastapi import APIRouter, FastAPI, Request, Response

from gateway.access.access import CURRENT, Tenant
from gateway.access.keys import create
from gateway.access.limits import UNLIMITED
from gateway.access.scopes import parse_scopes
from gateway.problems import Problem
from gateway.triggers.routes import add_trigger_routes
from pool.clock import VirtualClock
from pool.metrics import Metrics
from scheduler.dispatcher import Dispatcher
from scheduler.durable.sqlite import SqliteStore
from scheduler.durable.targets import FunctionTarget
from scheduler.durable.writer import Writer
from scheduler.triggers.schedules import Schedules
from scheduler.triggers.store import TriggerStore
from scheduler.triggers.triggers import Triggers


class World:
    """The routes of a gateway that has the functions `mine` and `foreign`, and no workflow."""

    def __init__(self, file: Path) -> None:
        clock, writer = VirtualClock(), Writer(file)
        self.store = SqliteStore(writer, 2**20)
        functions = FunctionTarget(lambda: {"mine", "foreign"}, lambda: None, self.store)
        targets = {"function": functions}
        triggers = Triggers(TriggerStore(writer, self.store.make_room), targets, clock, Metrics())
        triggers.declare({})
        self.triggers = triggers
        router = APIRouter()
        open = cast(Dispatcher, SimpleNamespace(draining=False))
        add_trigger_routes(router, triggers, Schedules(triggers, targets, clock), open)
        self.app = FastAPI()
        self.app.include_router(router)

        @self.app.exception_handler(Problem)
        async def problem(_: Request, error: Exception) -> Response:
            assert isinstance(error, Problem)
            return Response(error.detail, error.status)

    async def make(self, scopes: str, **action: str) -> tuple[int, str]:
        """Status and text of what somebody with these scopes is answered who makes a trigger."""
        _, key = create("somebody", parse_scopes(scopes.split()), UNLIMITED, None, 0.0)
        before = CURRENT.set(Tenant(key, 0.0))
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            answer = await client.put("/triggers/new", json={"schedule": "0 4 * * *", **action})
        CURRENT.reset(before)
        return answer.status_code, answer.text


async def test_who_may_not_start_a_function_is_not_told_whether_it_is_there(tmp_path: Path) -> None:
    world = World(tmp_path / "calls.db")
    await world.triggers.load()
    told = {
        name: await world.make("deploy invoke:mine", function=name) for name in ("foreign", "there-is-none")
    }
    assert told == {
        name: (403, f"only a key that may invoke {name} decides about this trigger") for name in told
    }
    for scopes in ("deploy invoke:*", "deploy invoke:there-*", "admin"):
        assert await world.make(scopes, function="there-is-none") == (
            422,
            "there is no function 'there-is-none'",
        )
    for scopes in ("deploy invoke:mine", "admin"):
        assert await world.make(scopes, workflow="none") == (422, "there is no workflow 'none'")
    assert (await world.make("deploy invoke:mine", function="mine"))[0] == 200
    await world.store.close()
