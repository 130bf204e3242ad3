"""Runs of workflows: random DAGs with random outcomes, decided about at random moments, with crashes in between."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.calls.leases import new_owner
from scheduler.calls.model import Claim, Ending, Result, Status
from scheduler.definitions.workflows import StepDefinition, WorkflowDefinition
from scheduler.store.sqlite.calls import SqliteCallStore
from scheduler.store.sqlite.leases import SqliteLeaseStore
from scheduler.store.sqlite.runs import SqliteRunStore
from scheduler.store.sqlite.writer import Writer
from scheduler.work import NewRun
from scheduler.workflows.advance import BeginItems, CloseStep, EndRun, OpenStep, advance
from scheduler.workflows.model import PENDING_STEP, RunStatus, StepState, StepStatus
from scheduler.workflows.moves import decide
from scheduler.workflows.values import value_to_body
from tests.support.store_recount import counted, recounted

MAX_ITEMS = 5
SEEDS = st.integers(0, 2**32)
"""Chance from a seed, and not drawn by draw: one run takes thousands."""


@st.composite
def definitions(draw: st.DrawFn) -> WorkflowDefinition:
    """A DAG: each step may need those before it. Its items and whether it is skipped come from the run's input."""
    steps: dict[str, StepDefinition] = {}
    for number in range(draw(st.integers(1, 6))):
        name = f"s{number}"
        keys: dict[str, object] = {
            "function": draw(st.sampled_from(["f", "g"])),
            "needs": draw(st.lists(st.sampled_from(sorted(steps)), unique=True)) if steps else [],
            "may_fail": draw(st.booleans()),
        }
        if draw(st.booleans()):
            keys |= {"map": f"input.{name}", "parallel": draw(st.integers(1, 3))}
        if draw(st.integers(0, 3)) == 0:
            keys["when"] = f"input.{name}_wanted"
        steps[name] = StepDefinition.model_validate(keys)
    return WorkflowDefinition(steps=steps)


def input_of(definition: WorkflowDefinition, chance: random.Random) -> dict[str, object]:
    made: dict[str, object] = {}
    for name in definition.steps:
        made[name] = list(range(chance.randint(0, MAX_ITEMS)))
        made[f"{name}_wanted"] = chance.random() < 0.5
    return made


class Model:
    """A world in which only states are kept: what `advance` says is done, and calls end as chance will have it."""

    def __init__(self, definition: WorkflowDefinition, chance: random.Random) -> None:
        self.definition = definition
        self.chance = chance
        self.steps: dict[str, StepState] = {}
        self.end: RunStatus | None = None

    def decide(self) -> bool:
        """Do what is to be done; whether there was anything."""
        moves = advance(self.definition, self.steps)
        assert moves == advance(self.definition, dict(self.steps)), "asked again, it says the same"
        for move in moves:
            match move:
                case OpenStep(name):
                    self.open(name)
                    if self.steps[name].status is StepStatus.FAILED:
                        break
                case BeginItems(name, count):
                    state = self.steps[name]
                    assert count > 0
                    self.steps[name] = replace(state, waiting=state.waiting - count, open=state.open + count)
                case CloseStep(name, status):
                    state = self.steps.get(name, PENDING_STEP)
                    assert not state.status.ended and not state.open
                    self.steps[name] = StepState(status)
                case EndRun(status):
                    assert self.end is None
                    self.end = status
            self.check()
        return bool(moves)

    def open(self, name: str) -> None:
        step = self.definition.steps[name]
        assert name not in self.steps, "begun twice"
        assert not self.failed(), "begun after the run had failed"
        for needed in step.needs:
            state = self.steps[needed]
            passable = state.status in (StepStatus.SUCCEEDED, StepStatus.SKIPPED)
            may_fail = self.definition.steps[needed].may_fail and state.status is StepStatus.FAILED
            assert passable or may_fail, "begun before what it needs"
        if self.chance.random() < 0.2:
            self.steps[name] = StepState(self.chance.choice([StepStatus.SKIPPED, StepStatus.FAILED]))
            return
        total = self.chance.randint(0, MAX_ITEMS) if step.map is not None else 1
        begun = min(total, step.parallel)
        self.steps[name] = StepState(StepStatus.RUNNING, total, total - begun, begun)

    def failed(self) -> bool:
        return any(
            not self.definition.steps[name].may_fail and (state.failed or state.status is StepStatus.FAILED)
            for name, state in self.steps.items()
        )

    def check(self) -> None:
        for name, state in self.steps.items():
            assert state.open <= self.definition.steps[name].parallel, "too many at once"
            assert state.waiting + state.open <= state.total

    def end_a_call(self) -> bool:
        """One of the calls that run ends; False: none runs."""
        running = [name for name, state in self.steps.items() if state.open]
        if not running:
            return False
        name = self.chance.choice(running)
        state = self.steps[name]
        failed = state.failed + (self.chance.random() < 0.15)
        self.steps[name] = replace(state, open=state.open - 1, failed=failed)
        return True


@given(definitions(), SEEDS)
@settings(max_examples=200)
def test_whatever_happens_steps_begin_in_order_and_the_run_ends(
    definition: WorkflowDefinition, seed: int
) -> None:
    chance = random.Random(seed)
    model = Model(definition, chance)
    for _ in range(1000):
        if model.end is not None:
            break
        if chance.random() < 0.5:
            model.decide()
        elif not model.end_a_call():
            assert model.decide() or model.end is not None, "nothing runs, and nothing is to be done"
    assert model.end is not None
    assert all(state.status.ended for state in model.steps.values())
    assert len(model.steps) == len(definition.steps)
    assert (model.end is RunStatus.FAILED) == model.failed()


# -- over a real store ----------------------------------------------------------------------------------------


class Gateway:
    """A process that decides and runs calls, killed at any moment."""

    def __init__(self, file: Path, chance: random.Random) -> None:
        self.file = file
        self.chance = chance
        self.now = 1000.0
        self.finished: Counter[tuple[str, str]] = Counter()
        """How often each part of the run ended well."""
        self.leased: list[Claim] = []
        self.put_together()

    def put_together(self) -> None:
        self.writer = Writer(self.file)
        self.calls = SqliteCallStore(self.writer, 2**30)
        self.me = new_owner("a")
        self.runs = SqliteRunStore(self.writer, self.calls.room)

    async def check_counted(self) -> None:
        """What a run and its calls count with is what is there of them."""
        assert await self.writer.do(counted) == await self.writer.do(recounted)

    async def die_and_start_again(self) -> None:
        await self.calls.close()
        self.put_together()
        await SqliteLeaseStore(self.writer).requeue_abandoned(self.me, self.now, 10.0)
        self.leased = []

    async def decide(self, id: str) -> None:
        """Decide about the run; perhaps the process dies before, or after, it is written."""
        progress = await self.runs.progress(self.me, id, self.now)
        if progress is None:
            return
        changes = await decide(self.runs, progress)
        if self.chance.random() < 0.15:
            await self.die_and_start_again()
            return
        if changes:
            assert await self.runs.apply(self.me, id, changes, progress.record.revision, self.now)
        if self.chance.random() < 0.1:
            await self.die_and_start_again()

        await self.check_counted()

    async def lease(self) -> None:
        backlogs = await self.calls.backlogs(self.now)
        self.leased += await self.calls.claim(self.me, dict.fromkeys(backlogs, 2), self.now)

    async def end_one(self, failing: float) -> None:
        """A call that was leased ends, and this is recorded; or the process dies before that."""
        if not self.leased:
            return
        claim = self.leased.pop(self.chance.randrange(len(self.leased)))
        if self.chance.random() < 0.1:
            await self.die_and_start_again()
            return
        part = (claim.call.owner, claim.call.part)
        assert not self.finished[part], "run again after it was recorded"
        failed = self.chance.random() < failing
        answer = Result(200, [(b"content-type", b"application/json")], json.dumps(claim.call.part).encode())
        status = Status.FAILED if failed else Status.SUCCEEDED
        ending = Ending(claim.call.id, status, int(failed), answer)
        assert await self.calls.finish(self.me, [ending], self.now) == [True]
        self.finished[part] += not failed

    async def to_the_end(self, id: str, failing: float) -> RunStatus:
        for _ in range(2000):
            self.now += 1.0
            await self.chance.choice([self.lease, lambda: self.end_one(failing), lambda: self.decide(id)])()
            record = await self.runs.show(id)
            assert record is not None
            if record.status.ended:
                return record.status
        raise AssertionError("the run does not end")


@given(definitions(), SEEDS, st.sampled_from([0.0, 0.2]))
@settings(max_examples=25, deadline=None)
def test_no_crash_loses_or_repeats_what_was_recorded(
    definition: WorkflowDefinition, seed: int, failing: float
) -> None:
    chance = random.Random(seed)

    async def live(folder: str) -> None:
        gateway = Gateway(Path(folder) / "calls.db", chance)
        run = NewRun("r" * 32, "w", definition, value_to_body(input_of(definition, chance)))
        await gateway.runs.begin(run, gateway.now)
        status = await gateway.to_the_end(run.id, failing)
        assert status is RunStatus.SUCCEEDED or failing
        while status is not RunStatus.SUCCEEDED:  # what succeeded before is not run again: see `end_one`
            await gateway.runs.resume(run.id)
            status = await gateway.to_the_end(run.id, failing / 4)
        record = await gateway.runs.show(run.id)
        assert record is not None
        found = await gateway.runs.steps(record)
        assert found is not None and {step.step for step in found[1]} == set(definition.steps)
        for step in found[1]:
            assert step.status.ended
            if step.status is StepStatus.SUCCEEDED:
                assert step.total == sum(step.calls.values()), "every item was called"
        await gateway.runs.forget(run.id)
        assert await gateway.runs.show(run.id) is None
        assert not await gateway.calls.counts()
        await gateway.calls.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(folder))
