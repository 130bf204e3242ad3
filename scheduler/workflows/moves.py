"""Decides all that a run does now: asks `advance`, and reads and evaluates what the moves need."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from scheduler.workflows.advance import Close, End, More, Open, advance
from scheduler.workflows.evaluation import (
    LARGEST_TOGETHER,
    Ended,
    Facts,
    StepFault,
    bodies_of,
    looks_at,
    output_looks_at,
    output_of,
)
from scheduler.workflows.model import (
    WAITS,
    Changes,
    Closed,
    Opened,
    RunEnd,
    RunProgress,
    RunStatus,
    StepState,
    StepStatus,
)
from scheduler.workflows.store import RunStore
from scheduler.workflows.values import NOTHING


async def decide(store: RunStore, progress: RunProgress) -> Changes:
    """What one transaction is to write of a run. Raises `StoreError`."""
    return await _Moves(store, progress).decide()


class _Moves:
    """One run, as it will stand when its changes are written."""

    def __init__(self, store: RunStore, progress: RunProgress) -> None:
        self._store = store
        self._id = progress.record.id
        self._definition = progress.definition
        self._states: dict[str, StepState] = dict(progress.steps)
        self._changes = Changes()

    async def decide(self) -> Changes:
        """All moves, until only calls that run can change anything."""
        while self._changes.end is None and (moves := advance(self._definition, self._states)):
            for move in moves:
                match move:
                    case Open(step):
                        await self._open(step)
                        if self._states[step].status is StepStatus.FAILED:
                            break  # the other moves were for a run that goes on
                    case More(step, count):
                        self._begin_more(step, count)
                    case Close(step, status):
                        await self._close(step, status)
                    case End(status):
                        self._changes.end = await self._end(status)
        return self._changes

    async def _open(self, name: str) -> None:
        step = self._definition.steps[name]
        try:
            facts = await self._facts(looks_at(step))
            # In a thread: it may take what it costs to parse, and to write, some megabytes of JSON.
            bodies = await asyncio.to_thread(bodies_of, step, facts)
        except StepFault as fault:
            self._record(Closed(name, StepStatus.FAILED, "expression-failed", str(fault)))
            return
        if bodies is None:
            self._record(Closed(name, StepStatus.SKIPPED))
            return
        at_once = min(len(bodies), step.parallel)
        self._changes.opened.append(Opened(name, bodies, at_once))
        self._states[name] = StepState(StepStatus.RUNNING, len(bodies), len(bodies) - at_once, at_once)

    def _begin_more(self, name: str, count: int) -> None:
        self._changes.more.append((name, count))
        state = self._states[name]
        self._states[name] = StepState(
            state.status, state.total, state.waiting - count, state.open + count, state.failed
        )

    async def _close(self, name: str, status: StepStatus) -> None:
        closed = Closed(name, status)
        if (
            status is StepStatus.FAILED
            and (found := await self._store.first_failure(self._id, name)) is not None
        ):
            number, error, detail = found
            where = f"item {number}: " if self._definition.steps[name].map is not None else ""
            closed = Closed(name, status, error, where + detail)
        self._record(closed)

    def _record(self, closed: Closed) -> None:
        self._changes.closed.append(closed)
        self._states[closed.step] = StepState(closed.status)

    async def _end(self, status: RunStatus) -> RunEnd:
        if status is RunStatus.SUCCEEDED:
            try:
                facts = await self._facts(output_looks_at(self._definition))
                return RunEnd(status, await asyncio.to_thread(output_of, self._definition, facts))
            except StepFault as fault:
                return RunEnd(RunStatus.FAILED, error="output-failed", detail=str(fault))
        failed = [name for name, state in self._states.items() if state.status is StepStatus.FAILED]
        blamed = [name for name in failed if not self._definition.steps[name].may_fail]
        return RunEnd(status, error="step-failed", detail=f"{', '.join(blamed)} failed")

    async def _facts(self, steps: Iterable[str]) -> Facts:
        """What there is to look at. Raises `StepFault` if it is too much."""
        ended = {}
        for name in sorted(steps):
            status = self._states.get(name, WAITS).status
            answers = None
            if status is StepStatus.SUCCEEDED:
                answers = await self._store.answers(self._id, name, LARGEST_TOGETHER)
                if answers is None:
                    raise StepFault(
                        f"the answers of {name} have over {LARGEST_TOGETHER} bytes, which is the most"
                    )
            ended[name] = Ended(status, answers or (), self._definition.steps[name].map is not None)
        return Facts(await self._store.input(self._id) or NOTHING, ended)
