"""The routes of triggers without a gateway: what keys learn of what they may not start, and how much they count."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from gateway.access.access import CURRENT, Access, Admission, KeyHolder
from gateway.access.keys import Key, create
from gateway.access.limits import UNLIMITED, Quota, parse_rate
from gateway.access.scopes import parse_scopes
from gateway.api.parts import ApiParts, WorkQueues
from gateway.api.triggers import events
from gateway.api.triggers import routes as triggers_routes
from gateway.http.problems import Problem, problem_of
from pool.clock import VirtualClock
from pool.observe.metrics import Metrics
from scheduler.calls.running.lease_keeper import LeaseKeeper
from scheduler.calls.store import StoreError
from scheduler.calls.targets import FunctionTarget
from scheduler.definitions.triggers import TriggerDefinition
from scheduler.store.sqlite.calls import SqliteCallStore
from scheduler.store.sqlite.leases import SqliteLeaseStore
from scheduler.store.sqlite.triggers import SqliteTriggerStore
from scheduler.store.sqlite.writer import Writer
from scheduler.triggers.schedules import Schedules
from scheduler.triggers.triggers import Triggers


class World:
    """The routes of a gateway that has the functions `mine` and `foreign`, a trigger `every` of events, and no
    workflow. Whoever has one of `keys` may ask."""

    def __init__(self, file: Path, *keys: Key) -> None:
        self.clock, self.writer = VirtualClock(), Writer(file)
        self.store = SqliteCallStore(self.writer, 2**20)
        functions = FunctionTarget(lambda: {"mine", "foreign"}, lambda: None, self.store)
        targets = {"function": functions}
        store = SqliteTriggerStore(self.writer, self.store.room)
        self.triggers = Triggers(store, targets, self.clock, Metrics())
        every = {"name": "every", "events": {"filters": [{"prefix": {"type": "some"}}]}, "function": "mine"}
        self.triggers.declare({"every": TriggerDefinition.model_validate(every)})
        self.access = Access(self.clock, Metrics(), keys)
        leases = LeaseKeeper(SqliteLeaseStore(self.writer), self.clock, Metrics(), "node")
        self.app = FastAPI()
        self.app.state.parts = cast(
            ApiParts,
            SimpleNamespace(
                triggers=self.triggers,
                schedules=Schedules(self.triggers, targets, self.clock, leases),
                access=self.access,
                dispatcher=SimpleNamespace(draining=False),
                work_queues=WorkQueues(),
            ),
        )
        for module in (triggers_routes, events):
            self.app.include_router(module.router)
        for fault in (Problem, StoreError):
            self.app.add_exception_handler(fault, problem)

    async def ask(self, admission: Admission, method: str, path: str, **more: Any) -> tuple[int, str]:
        """Status and text of what somebody is answered who was admitted so."""
        before = CURRENT.set(admission)
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            answer = await client.request(method, path, **more)
        CURRENT.reset(before)
        return answer.status_code, answer.text

    async def make(self, scopes: str, **action: str) -> tuple[int, str]:
        """What somebody with these scopes is answered who makes a trigger."""
        _, key = create("somebody", parse_scopes(scopes.split()), UNLIMITED, None, 0.0)
        keys = {"schedule": "0 4 * * *", **action}
        return await self.ask(KeyHolder(key, 0.0), "PUT", "/triggers/new", json=keys)

    async def publish(self, key: str, events: int) -> int:
        """The status that a batch of so many events has, which comes with this key."""
        admission = self.access.admit_request([(b"x-hearth-key", key.encode())], "POST", "/events")
        if isinstance(admission, Problem):
            return admission.status
        some = {"specversion": "1.0", "source": "/here", "type": "some"}
        batch = json.dumps([{**some, "id": str(number)} for number in range(events)])
        fields = {"content-type": "application/cloudevents-batch+json"}
        status, _ = await self.ask(admission, "POST", "/events", content=batch, headers=fields)
        return status


async def problem(_: Request, error: Exception) -> Response:
    fault = error if isinstance(error, Problem) else problem_of(error)
    return Response(fault.detail, fault.status)


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


async def test_a_batch_that_could_not_be_kept_is_not_charged_and_comes_again(tmp_path: Path) -> None:
    text, key = create("publisher", parse_scopes(["invoke:*"]), Quota(parse_rate("10/h")), None, 0.0)
    world = World(tmp_path / "calls.db", key)
    await world.triggers.load()
    broken = "CREATE TRIGGER broken BEFORE INSERT ON invocations BEGIN SELECT RAISE(ABORT, 'broken'); END"
    await world.writer.do(lambda db: db.execute(broken))
    assert [await world.publish(text, 20) for _ in range(3)] == [503, 503, 503]
    await world.writer.do(lambda db: db.execute("DROP TRIGGER broken"))
    assert await world.publish(text, 20) == 202
    assert await world.publish(text, 1) == 429
    await world.clock.advance(13 * 360.0 - 1.0)
    assert await world.publish(text, 1) == 429, "3 tries and 20 events: 13 over the rate, and one for this"
    await world.clock.advance(361.0)
    assert await world.publish(text, 1) == 202
    await world.store.close()


async def test_which_variables_there_are_is_not_told_to_who_makes_triggers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path / "calls.db")
    await world.triggers.load()
    _, key = create("somebody", parse_scopes(["deploy", "invoke:*"]), UNLIMITED, None, 0.0)

    async def made(variable: str, signature: str = "github") -> tuple[int, str]:
        webhook = {"signature": signature, "secret_env": variable}
        return await world.ask(
            KeyHolder(key, 0.0), "PUT", "/triggers/new", json={"function": "mine", "webhook": webhook}
        )

    monkeypatch.setenv("SET", "whsec_*")
    monkeypatch.setenv("HEARTH_SECRET_SET", "a secret")
    told = {(name, way): await made(name, way) for name in ("SET", "UNSET") for way in ("github", "standard")}
    assert {(status, text.replace(name, "NAME")) for (name, _), (status, text) in told.items()} == {
        (
            422,
            "webhook: NAME is not among the variables that may be named over the API (HEARTH_SECRET_*); "
            "name one of them, add it to HEARTH_ALLOWED_SECRETS, or declare the trigger in functions.yaml",
        )
    }
    status, text = await made("HEARTH_SECRET_UNSET")
    assert status == 422 and "the variable HEARTH_SECRET_UNSET is not set" in text
    assert (await made("HEARTH_SECRET_SET"))[0] == 200
    await world.store.close()
