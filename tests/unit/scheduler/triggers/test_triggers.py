"""Triggers on virtual time over a real store: what fires when, once, over restarts; what is recorded of it."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.access.scopes import parse_scopes
from scheduler.calls.destinations import MAX_CALL_DEPTH
from scheduler.calls.model import Result, Status
from scheduler.calls.plans import FunctionPlan
from scheduler.calls.store import StoreError
from scheduler.calls.targets import FunctionTarget, Target
from scheduler.definitions.language.call_overrides import RetryPolicy
from scheduler.definitions.triggers import TriggerDefinition
from scheduler.store.sqlite.triggers import SqliteTriggerStore
from scheduler.triggers.emitted import EmittedEvents
from scheduler.triggers.event import Event
from scheduler.triggers.model import ScheduleWatch
from scheduler.triggers.schedules import RECORD_RETRY, Schedules
from scheduler.triggers.store import FIRES_KEPT
from scheduler.triggers.triggers import LOAD_RETRY, Triggers
from scheduler.work import Outcome
from tests.support.lease_owners import SOMEBODY_ELSE, take_all_leases
from tests.support.virtual_worker import World

PAID = {"filters": [{"exact": {"type": "paid"}}]}


def trigger(name: str, **keys: Any) -> TriggerDefinition:
    return TriggerDefinition.model_validate({"name": name, "function": "f", **keys})


def event(id: str = "1", type: str = "paid", data: bytes = b"{}") -> Event:
    attributes = {"specversion": "1.0", "id": id, "source": "/shop", "type": type}
    return Event({**attributes, "datacontenttype": "application/json"}, data)


@dataclass
class TriggeredWorld(World):
    """A process with triggers beside its worker, and the next ones on the same file."""

    declared: dict[str, TriggerDefinition] = field(default_factory=dict)
    functions: set[str] = field(default_factory=lambda: {"f", "g"})

    def put_together(self) -> None:
        super().put_together()
        targets: dict[str, Target] = {
            "function": FunctionTarget(lambda: self.functions, self.worker.notify, self.store)
        }
        store = SqliteTriggerStore(self.writer, self.store.room)
        self.triggers = Triggers(store, targets, self.clock, self.metrics)
        self.schedules = Schedules(self.triggers, targets, self.clock, self.settings.leases)
        self.worker.followers.append(EmittedEvents(self.triggers).after_call)
        self.worker.on_followed.append(self.triggers.begun)

    def declare(self, *definitions: TriggerDefinition) -> None:
        """Have these in functions.yaml."""
        self.declared = {definition.name: definition for definition in definitions}
        self.triggers.declare(self.declared)

    async def start(self) -> None:
        """Start everything, in the order of the gateway."""
        await self.triggers.load()
        self.triggers.declare(self.declared)
        self.worker.start(self.supervisor)
        self.schedules.start(self.supervisor)
        await self.settle()

    async def stop(self) -> None:
        await self.schedules.stop()
        await self.worker.close()
        await self.store.close()

    async def restart(self, away: float = 0.0) -> None:
        """The process dies, and another begins after so many seconds."""
        await self.schedules.stop()
        await self.kill()
        await self.clock.advance(away)
        await self.start()

    async def outcomes(self, name: str) -> list[str]:
        """What came of each fire of a trigger, oldest first."""
        return [fire.outcome.value for fire in reversed(await self.triggers.store.fires(name, 1000))]

    async def scheduled(self, name: str, outcome: Outcome = Outcome.STARTED) -> list[float]:
        """For which times a schedule had this outcome, oldest first."""
        fires = reversed(await self.triggers.store.fires(name, 1000))
        return [fire.scheduled or 0.0 for fire in fires if fire.outcome is outcome]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[TriggeredWorld]:
    world = TriggeredWorld(tmp_path / "calls.db")
    yield world
    await world.stop()


# -- schedules ------------------------------------------------------------------------------------------------


async def test_a_schedule_starts_its_function_when_it_is_due(world: TriggeredWorld) -> None:
    world.declare(trigger("t", schedule="* * * * *", input={"a": 1}))
    await world.start()
    await world.advance(185)
    assert world.times() == [60.0, 120.0, 180.0]
    call = world.runs[0].claim.call
    assert (
        json.loads(call.body) == {"a": 1} and (b"content-type", b"application/json") in call.request.headers
    )
    assert call.overrides.context == (("Trigger", "t"), ("Scheduled-At", "1970-01-01T00:01:00Z"))
    assert await world.outcomes("t") == ["started"] * 3
    assert world.metrics.trigger_fires.labels("t", "started").value == 3


async def test_a_process_that_was_taken_for_dead_goes_on_to_watch_its_schedules(
    world: TriggeredWorld,
) -> None:
    world.declare(trigger("t", schedule="* * * * *"))
    await world.start()
    await world.advance(61)
    before = world.settings.leases.owner
    await take_all_leases(world.writer)
    await world.advance(62)
    assert world.settings.leases.owner != before
    await world.advance(62)
    assert await world.outcomes("t") == ["started"] * 3


async def test_a_schedule_that_another_process_watches_fires_there_only(world: TriggeredWorld) -> None:
    world.declare(trigger("t", schedule="* * * * *"))
    await world.start()
    await world.advance(61)
    await take_all_leases(world.writer)
    (kept,) = await world.triggers.store.all()
    await world.triggers.store.fire((), world.clock.wall(), ScheduleWatch(SOMEBODY_ELSE, kept.course))
    await world.advance(125)
    assert world.times() == [60.0]


async def test_without_triggers_no_file_is_made(world: TriggeredWorld) -> None:
    await world.start()
    await world.advance(3600)
    assert not world.file.exists()


async def test_a_new_schedule_counts_from_when_it_is_known_and_so_does_a_changed_one(
    world: TriggeredWorld,
) -> None:
    await world.start()
    await world.advance(90)
    world.declare(trigger("t", schedule="* * * * *"))
    await world.advance(90)
    assert world.times() == [120.0, 180.0]
    await world.advance(10)
    world.declare(trigger("t", schedule="*/30 * * * * *"))
    await world.advance(30)
    assert world.times() == [120.0, 180.0, 210.0]


@pytest.mark.parametrize("over_a_restart", [False, True])
async def test_a_schedule_that_was_taken_out_makes_up_for_nothing_when_it_comes_back(
    world: TriggeredWorld, over_a_restart: bool
) -> None:
    definition = trigger("t", schedule="* * * * *", catch_up="all", overlap="allow")
    world.declare(definition)
    await world.start()
    await world.advance(61)
    world.declare()
    if over_a_restart:
        await world.restart()
    await world.advance(300)
    world.declare(definition)
    await world.advance(60)
    assert await world.scheduled("t") == [60.0, 420.0] and await world.outcomes("t") == ["started"] * 2


@pytest.mark.parametrize(
    ("catch_up", "made_up"), [("none", []), ("last", [300.0]), ("all", [120.0, 180.0, 240.0, 300.0])]
)
async def test_a_restart_makes_up_for_what_fell_due(
    world: TriggeredWorld, catch_up: str, made_up: list[float]
) -> None:
    world.declare(trigger("t", schedule="* * * * *", catch_up=catch_up, overlap="allow"))
    await world.start()
    await world.advance(90)
    await world.restart(away=240)
    await world.advance(20)
    assert await world.scheduled("t") == [60.0, *made_up]
    missed = [at for at in (120.0, 180.0, 240.0, 300.0) if at not in made_up]
    assert await world.scheduled("t", Outcome.MISSED) == missed
    await world.advance(60)
    assert (await world.scheduled("t"))[-1] == 360.0


async def test_a_fire_that_was_recorded_is_not_made_again_by_the_next_process(world: TriggeredWorld) -> None:
    world.declare(trigger("t", schedule="* * * * *", catch_up="all"))
    await world.start()
    await world.advance(60)
    await world.restart()
    await world.advance(30)
    assert await world.scheduled("t") == [60.0]
    assert len(await world.calls_of("f")) == 1


async def test_with_skip_a_fire_that_meets_a_running_start_is_dropped(world: TriggeredWorld) -> None:
    world.seconds["f"] = 100.0
    world.declare(trigger("t", schedule="* * * * *"))
    await world.start()
    await world.advance(240)
    assert await world.scheduled("t") == [60.0, 180.0]
    assert await world.scheduled("t", Outcome.SKIPPED) == [120.0, 240.0]


async def test_with_queue_what_waits_starts_one_after_another_also_over_a_restart(
    world: TriggeredWorld,
) -> None:
    world.seconds["f"] = 100.0
    world.declare(trigger("t", schedule="*/20 * * * * *", overlap="queue", catch_up="none"))
    await world.start()
    await world.advance(70)
    assert await world.scheduled("t") == [20.0]
    world.declare()
    world.declared = {"t": trigger("t", schedule="*/20 * * * * *", overlap="queue", catch_up="none")}
    world.seconds["f"] = 1.0
    await world.restart()
    await world.advance(8)
    assert (await world.scheduled("t"))[:3] == [20.0, 40.0, 60.0]
    assert world.most["f"] == 1


async def test_with_allow_starts_run_beside_one_another(world: TriggeredWorld) -> None:
    world.seconds["f"] = 100.0
    world.declare(trigger("t", schedule="* * * * *", overlap="allow"))
    await world.start()
    await world.advance(130)
    assert await world.scheduled("t") == [60.0, 120.0]


async def test_a_start_that_waits_for_a_further_attempt_has_not_ended(world: TriggeredWorld) -> None:
    world.plans["f"] = FunctionPlan(RetryPolicy(attempts=2, backoff=100.0))
    world.answers["f"] = deque([Result(500, [], b"")])
    world.declare(trigger("t", schedule="* * * * *"))
    await world.start()
    await world.advance(121)
    assert await world.outcomes("t") == ["started", "skipped"]


async def test_a_schedule_that_is_paused_rests_over_a_restart_and_makes_up_for_nothing(
    world: TriggeredWorld,
) -> None:
    world.declare(trigger("t", schedule="* * * * *", catch_up="all"))
    await world.start()
    await world.advance(61)
    await world.triggers.pause("t", True)
    await world.advance(120)
    await world.restart(away=60)
    await world.advance(60)
    assert world.triggers.paused == {"t"} and await world.scheduled("t") == [60.0]
    assert world.schedules.next_fire(world.declared["t"]) is None
    await world.triggers.pause("t", False)
    assert world.schedules.next_fire(world.declared["t"]) == 360.0
    await world.advance(60)
    assert await world.outcomes("t") == ["started", "started"]


async def test_a_schedule_that_is_paused_while_it_is_decided_about_fires_no_more(
    world: TriggeredWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.declare(trigger("t", schedule="* * * * *", overlap="skip"))
    await world.start()
    await world.advance(61)
    asked, answered = asyncio.Event(), asyncio.Event()

    async def running(target: FunctionTarget, id: str) -> bool:
        asked.set()
        await answered.wait()
        return False

    monkeypatch.setattr(FunctionTarget, "running", running)
    await world.advance(60)
    assert asked.is_set()
    pause = asyncio.ensure_future(world.triggers.pause("t", True))
    await asyncio.sleep(0)
    answered.set()
    await pause
    await world.advance(60)
    assert await world.scheduled("t") == [60.0]


async def test_jitter_puts_a_fire_off_and_no_further_than_it_says(world: TriggeredWorld) -> None:
    world.declare(trigger("t", schedule="*/10 * * * *", jitter="60s"))
    await world.start()
    await world.advance(1300)
    first, second = world.times()
    assert 600 < first <= 660 and 1200 < second <= 1260
    assert await world.scheduled("t") == [600.0, 1200.0]
    assert (first - 600) != (second - 1200)


async def test_while_the_store_fails_nothing_is_lost_and_nothing_doubled(world: TriggeredWorld) -> None:
    world.declare(trigger("t", schedule="* * * * *"))
    await world.start()
    await world.advance(50)
    world.fault("INSERT")
    await world.advance(15)
    assert world.times() == []
    world.mend()
    await world.advance(2 * RECORD_RETRY.longest)
    assert await world.scheduled("t") == [60.0] and len(world.runs) == 1


async def test_a_name_that_vanishes_is_a_recorded_error_and_the_next_fire_goes_on(
    world: TriggeredWorld,
) -> None:
    definition = trigger("t", schedule="* * * * *")
    world.declare(definition)
    await world.start()
    world.functions.clear()
    assert world.triggers.fault(definition) == "there is no function 'f'"
    await world.advance(61)
    (fire,) = await world.triggers.store.fires("t", 10)
    assert (fire.outcome, fire.detail) == (Outcome.FAILED, "there is no function 'f'")
    world.functions.add("f")
    await world.advance(60)
    assert await world.outcomes("t") == ["failed", "started"]


async def test_when_the_clock_goes_back_it_goes_on_and_starts_nothing_a_second_time(
    world: TriggeredWorld,
) -> None:
    world.declare(trigger("t", schedule="*/10 * * * *"))
    await world.start()
    await world.advance(1300)
    world.clock.shift_wall(-1000.0)  # it is five minutes past midnight again
    await world.advance(950)
    assert await world.scheduled("t") == [600.0, 1200.0]
    assert world.metrics.trigger_fires.labels("t", "known").value == 2
    await world.advance(600)
    assert await world.scheduled("t") == [600.0, 1200.0, 1800.0]


async def test_what_waits_stays_when_the_clock_goes_back(world: TriggeredWorld) -> None:
    world.seconds["f"] = 1000.0
    world.declare(trigger("t", schedule="*/10 * * * *", overlap="queue"))
    await world.start()
    await world.advance(1250)
    assert world.triggers.courses["t"].state.waiting == (1200.0,)
    world.clock.shift_wall(-1000.0)
    await world.advance(400)  # to the end of the first, before the next is due
    assert (await world.scheduled("t"))[:2] == [600.0, 1200.0]


async def test_a_pause_that_is_not_on_disk_is_none(world: TriggeredWorld) -> None:
    world.declare(trigger("t", schedule="0 * * * *"))
    await world.start()
    course = world.triggers.courses["t"]
    await world.advance(100)
    world.fault("UPDATE", "triggers")
    with pytest.raises(StoreError):
        await world.triggers.pause("t", True)
    assert world.triggers.courses["t"] == course and "t" not in world.triggers.paused
    world.mend()


async def test_so_many_fires_are_kept(world: TriggeredWorld) -> None:
    world.declare(trigger("t", schedule="* * * * * *", overlap="allow"))
    await world.start()
    await world.advance(FIRES_KEPT + 20)
    assert len(await world.triggers.store.fires("t", 1000)) == FIRES_KEPT


async def test_what_the_store_has_no_room_for_is_not_started_and_waits(
    world: TriggeredWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world.declare(trigger("t", schedule="* * * * *"))
    await world.start()
    world.store.room.size = 0
    await world.advance(70)
    assert world.times() == [] and caplog.text.count("schedules wait") == 1
    with pytest.raises(StoreError):
        await world.triggers.carry_out([world.triggers.fire_by_hand(world.declared["t"], [], b"")])
    world.store.room.size = 2**30
    await world.advance(RECORD_RETRY.longest)
    assert await world.scheduled("t") == [60.0]


async def test_nothing_fires_until_the_store_can_say_what_is_kept(world: TriggeredWorld) -> None:
    world.file.write_bytes(b"no database" * 100)
    loading = asyncio.ensure_future(world.triggers.load())
    world.triggers.declare({"paid": trigger("paid", events=PAID)})
    await world.advance(LOAD_RETRY.longest + 1)
    assert not loading.done() and not world.triggers.is_ready
    world.file.unlink()
    await world.advance(LOAD_RETRY.longest)
    assert loading.done() and world.triggers.is_ready


# -- events ---------------------------------------------------------------------------------------------------


async def test_an_event_starts_what_its_conditions_say_and_nothing_else(world: TriggeredWorld) -> None:
    world.declare(
        trigger("paid", events=PAID),
        trigger("also", events=PAID, function="g"),
        trigger("lost", events={"filters": [{"exact": {"type": "lost"}}]}),
    )
    await world.start()
    assert await world.triggers.publish(event(data=b'{"order": 1}')) == 2
    assert await world.triggers.publish(event("2", "other")) == 0
    await world.settle()
    assert [run.claim.call.function for run in world.runs] == ["f", "g"]
    call = world.runs[0].claim.call
    assert call.body == b'{"order": 1}'
    assert (
        dict(call.request.headers)[b"ce-type"] == b"paid"
        and dict(call.request.headers)[b"ce-source"] == b"/shop"
    )
    assert dict(call.request.headers)[b"content-type"] == b"application/json"
    assert await world.outcomes("lost") == []


async def test_an_event_that_comes_again_starts_nothing_again_also_in_another_process(
    world: TriggeredWorld,
) -> None:
    world.declare(trigger("paid", events=PAID))
    await world.start()
    assert await world.triggers.publish(event()) == 1
    assert await world.triggers.publish(event()) == 1
    await world.advance(10)
    await world.restart()
    assert await world.triggers.publish(event()) == 1
    assert await world.triggers.publish(event("2")) == 1
    await world.advance(10)
    assert len(world.runs) == 2 and await world.outcomes("paid") == ["started", "started"]
    assert world.metrics.trigger_fires.labels("paid", "known").value == 1


async def test_events_are_on_disk_together_or_not_at_all(world: TriggeredWorld) -> None:
    world.declare(trigger("paid", events=PAID), trigger("also", events=PAID))
    await world.start()
    await world.triggers.publish(event())
    world.fault("INSERT")
    with pytest.raises(StoreError):
        await world.triggers.publish(event("2"))
    world.mend()
    assert len(await world.calls_of("f")) == 2 and await world.outcomes("also") == ["started"]


async def test_an_event_starts_only_what_its_sender_may_invoke(world: TriggeredWorld) -> None:
    world.declare(trigger("a", events=PAID), trigger("b", events=PAID, function="g"))
    await world.start()
    fires = world.triggers.fires_of(event(), allowed=lambda function: function == "g")
    assert [fire.trigger for fire in fires] == ["b"]


@pytest.mark.parametrize("action", ["workflow", "job"])
async def test_one_whose_action_is_gone_is_for_who_may_invoke_everything(
    world: TriggeredWorld, action: str
) -> None:
    definition = TriggerDefinition.model_validate({"name": "t", action: "gone", "events": PAID})
    world.declare(definition)
    await world.start()
    for scopes, is_theirs in (
        ("deploy invoke:gone invoke:f", False),
        ("deploy invoke:*-gone", False),
        ("deploy invoke:*", True),
        ("admin", True),
    ):
        may_invoke = parse_scopes(scopes.split()).may_invoke
        assert world.triggers.may_start(definition, may_invoke) is is_theirs, scopes
        assert bool(world.triggers.fires_of(event(), allowed=may_invoke)) is is_theirs
    assert await world.triggers.publish(event()) == 0
    assert await world.outcomes("t") == ["failed"], "it is told what is wrong with it"


async def test_a_trigger_that_is_paused_takes_no_events(world: TriggeredWorld) -> None:
    world.declare(trigger("paid", events=PAID))
    await world.start()
    await world.triggers.pause("paid", True)
    assert await world.triggers.publish(event()) == 0


async def test_publishing_waits_until_the_triggers_are_known(world: TriggeredWorld) -> None:
    publishing = asyncio.ensure_future(world.triggers.publish(event()))
    await world.settle()
    assert not publishing.done()
    world.declared = {"paid": trigger("paid", events=PAID)}
    await world.start()
    assert await publishing == 1


# -- events of functions ----------------------------------------------------------------------------------------


async def test_the_answer_of_an_accepted_call_may_be_an_event(world: TriggeredWorld) -> None:
    world.declare(trigger("paid", events=PAID, function="g"))
    world.answers["f"] = deque(
        [
            Result(200, [(b"ce-type", b"paid"), (b"content-type", b"text/plain")], b"x"),
            Result(200, [(b"ce-type", b"other")], b"x"),
            Result(400, [(b"ce-type", b"paid")], b"x"),
            Result(200, [(b"content-type", b"application/cloudevents+json")], b"nonsense"),
        ]
    )
    await world.start()
    ids = await world.accept("f", 4)
    await world.advance(20)
    (call,) = [run.claim.call for run in world.runs if run.claim.call.function == "g"]
    assert (call.depth, call.body, call.overrides.context) == (1, b"x", (("Trigger", "paid"),))
    headers = dict(call.request.headers)
    assert (headers[b"ce-id"], headers[b"ce-source"]) == (ids[0].encode(), b"/functions/f")
    assert world.metrics.trigger_fires.labels("paid", "started").value == 1


async def test_a_batch_of_events_fires_for_each(world: TriggeredWorld) -> None:
    world.declare(trigger("paid", events=PAID, function="g"))
    body = json.dumps([{"type": "paid"}, {"type": "other"}, {"type": "paid"}]).encode()
    world.answers["f"] = deque(
        [Result(200, [(b"content-type", b"application/cloudevents-batch+json")], body)]
    )
    await world.start()
    await world.accept("f")
    await world.advance(10)
    assert len(world.times("g")) == 2


async def test_a_circle_of_events_ends(world: TriggeredWorld) -> None:
    world.declare(trigger("paid", events=PAID))
    world.answers["f"] = deque([Result(200, [(b"ce-type", b"paid")], b"")] * 100)
    await world.start()
    await world.accept("f")
    await world.advance(100)
    assert len(world.runs) == MAX_CALL_DEPTH + 1
    assert [run.claim.call.depth for run in world.runs] == list(range(MAX_CALL_DEPTH + 1))
    assert all(record.status is Status.SUCCEEDED for record in await world.calls_of("f"))


# -- triggers that are made over the API --------------------------------------------------------------------------


async def test_one_that_is_made_is_kept_until_it_is_removed(world: TriggeredWorld) -> None:
    await world.start()
    made = trigger("mine", schedule="* * * * *", input=[1], jitter="0s")
    await world.triggers.make(made)
    await world.advance(61)
    await world.restart()
    assert world.triggers.all == {"mine": made}
    await world.advance(60)
    assert await world.outcomes("mine") == ["started"] * 2
    await world.triggers.unmake("mine")
    await world.advance(120)
    assert world.triggers.all == {} and await world.outcomes("mine") == []
    await world.restart()
    assert world.triggers.all == {}


async def test_the_files_goes_before_one_of_the_same_name(world: TriggeredWorld) -> None:
    await world.start()
    await world.triggers.make(trigger("t", events=PAID))
    world.declare(trigger("t", schedule="* * * * *"))
    assert world.triggers.all["t"].cause == "schedule"
    world.declare()
    assert world.triggers.all["t"].cause == "events"


async def test_one_that_this_program_does_not_understand_holds_nothing_up(world: TriggeredWorld) -> None:
    await world.start()
    await world.triggers.store.define("odd", '{"name": "odd", "moon": "full"}')
    await world.triggers.make(trigger("paid", events=PAID))
    await world.restart()
    assert list(world.triggers.all) == ["paid"]


async def test_a_fire_by_hand_has_its_own_body_or_the_input(world: TriggeredWorld) -> None:
    definition = trigger("t", schedule="0 0 1 1 *", input={"a": 1})
    world.declare(definition)
    await world.start()
    await world.triggers.carry_out([world.triggers.fire_by_hand(definition, [], b"")])
    await world.triggers.carry_out([world.triggers.fire_by_hand(definition, [], b"own")])
    await world.settle()
    assert [run.claim.call.body for run in world.runs] == [b'{"a": 1}']
    await world.advance(2)
    assert [run.claim.call.body for run in world.runs] == [b'{"a": 1}', b"own"]
    assert [fire.cause for fire in await world.triggers.store.fires("t", 5)] == ["hand", "hand"]
