"""The triggers of a gateway: which there are, which of them an event fires, and what is started by that."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from pool.clock import Clock
from pool.observe.metrics import Metrics
from scheduler.calls.store import StoreError
from scheduler.calls.targets import Start, Target
from scheduler.definitions.language.call_overrides import CallOverrides
from scheduler.definitions.language.filters import Filter, match_all
from scheduler.definitions.triggers import TriggerDefinition
from scheduler.triggers.due import ScheduleState
from scheduler.triggers.event import Event
from scheduler.triggers.model import Course, start_id
from scheduler.triggers.secret_names import SecretNames
from scheduler.triggers.store import TriggerStore
from scheduler.triggers.wire import STRUCTURED, binary_headers, structured
from scheduler.work import Fire, HeaderList, Outcome, Work

log = logging.getLogger("hearth.triggers")

LOAD_RETRY = 15.0
"""Seconds until the store is asked again what it keeps of triggers; each failure is logged."""
EVERY = "*"
"""In place of a function's name: who may invoke this may invoke all of them."""
Allowed = Callable[[str], bool]
"""Whether a function may be invoked by whoever causes this."""


def anybody(function: str) -> bool:
    """What the gateway itself causes may invoke every function."""
    return True


class Triggers:
    """One a gateway. `targets` are what can be started, by kind; more may come until it is loaded."""

    def __init__(
        self,
        store: TriggerStore,
        targets: Mapping[str, Target],
        clock: Clock,
        metrics: Metrics,
        secret_names: SecretNames | None = None,
    ) -> None:
        self.store = store
        self._secret_names = secret_names or SecretNames()
        self._targets = targets
        self._clock = clock
        self._metrics = metrics
        self.declared: dict[str, TriggerDefinition] = {}
        """Those of functions.yaml."""
        self.made: dict[str, TriggerDefinition] = {}
        """Those that were made over the API."""
        self.paused: set[str] = set()
        self.courses: dict[str, Course] = {}
        """How each schedule stands, as it is in the store."""
        self.on_change: Callable[[], None] = lambda: None
        """Called whenever there are other triggers than before, or others are paused."""
        self._loaded = asyncio.Event()
        self._declared = asyncio.Event()

    # -- which there are ------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read what the store keeps, however long it takes to be able to."""
        while self.store.exists:
            try:
                kept = await self.store.all()
            except StoreError:
                await self._clock.sleep(LOAD_RETRY)
                continue
            for one in kept:
                if one.definition is not None:
                    self._take_over(one.name, one.definition)
                if one.paused:
                    self.paused.add(one.name)
                if one.course.timetable:
                    self.courses[one.name] = one.course
            break
        self._loaded.set()

    def _take_over(self, name: str, definition: str) -> None:
        try:
            made = self.made[name] = TriggerDefinition.model_validate(json.loads(definition))
        except ValueError:  # of another version of this program
            log.error(
                "trigger %s, made over the API, is not understood any more; it is kept and does nothing", name
            )
            return
        try:
            self.check_secret_name(made)
        except ValueError as error:
            log.warning("trigger %s, made over the API, takes no messages: %s", name, error)

    def declare(self, definitions: Mapping[str, TriggerDefinition]) -> None:
        """Have these of functions.yaml, and no others of it. What they start is known by now."""
        self.declared = dict(definitions)
        self._declared.set()
        self.on_change()

    async def ready(self) -> None:
        """Return when it is known which triggers there are."""
        await self._loaded.wait()
        await self._declared.wait()

    @property
    def is_ready(self) -> bool:
        """Whether it is known which triggers there are."""
        return self._loaded.is_set() and self._declared.is_set()

    @property
    def all(self) -> dict[str, TriggerDefinition]:
        """Every trigger; of two of a name that of the file."""
        return {**self.made, **self.declared}

    def fault(self, definition: TriggerDefinition) -> str | None:
        """Why a trigger cannot start anything now; None: it can."""
        kind, name = definition.action
        target = self._targets.get(kind)
        return None if target is not None and name in target.names() else f"there is no {kind} {name!r}"

    def check_secret_name(self, definition: TriggerDefinition) -> None:
        """Raise ValueError, with what to do, if a trigger of the API's names a variable that it may not name."""
        webhook = definition.webhook
        if webhook is not None and webhook.secret_env is not None and definition.name not in self.declared:
            self._secret_names.check(webhook.secret_env)

    def secret(self, definition: TriggerDefinition) -> bytes:
        """Return what the messages of a trigger with a webhook are signed with, as it is now.

        Raises ValueError, with what to do.
        """
        assert definition.webhook is not None
        self.check_secret_name(definition)
        return definition.webhook.secret()

    def functions(self, definition: TriggerDefinition) -> Collection[str]:
        """The functions that its action calls; `EVERY` where that is not known any more, as a workflow or a job is
        gone: to nobody may it belong whom it did not belong to before."""
        kind, name = definition.action
        if kind == "function":
            return (name,)
        target = self._targets.get(kind)
        return (EVERY,) if target is None or name not in target.names() else target.functions(name)

    def startable(self) -> Iterator[str]:
        """Every function that some trigger could call as things are now, and the names of jobs that run an image."""
        for target in self._targets.values():
            for name in target.names():
                yield from target.functions(name)

    def may_start(self, definition: TriggerDefinition, allowed: Allowed) -> bool:
        """Whether somebody who may invoke only what is `allowed` may start its action."""
        return all(map(allowed, self.functions(definition)))

    async def make(self, definition: TriggerDefinition) -> None:
        """Have one that is none of the file's, in place of an earlier one. Raises `StoreError`."""
        shown = definition.model_dump_json(by_alias=True, exclude_unset=True)
        await self.store.define(definition.name, shown)
        self.made[definition.name] = definition
        self.on_change()

    async def unmake(self, name: str) -> None:
        """Have one no more that was made over the API. Raises `StoreError`."""
        await self.store.forget(name)
        self.made.pop(name, None)
        self.paused.discard(name)
        self.courses.pop(name, None)
        self.on_change()

    async def pause(self, name: str, paused: bool) -> None:
        """Let it fire no more, or again: until told otherwise, by whichever process. Raises `StoreError`."""
        course = self.courses.get(name)
        if course is not None:  # what falls due meanwhile is not made up for
            course = replace(course, state=ScheduleState(self._clock.wall()))
        before = frozenset(self.paused)
        if paused:
            self.paused.add(name)  # a fire that is being decided now must not follow the answer to the pause
        try:
            await self.store.pause(name, paused, course)
        except BaseException:
            if name not in before:
                self.paused.discard(name)
            raise
        if course is not None:
            self.courses[name] = course
        if not paused:
            self.paused.discard(name)
        self.on_change()

    # -- what an event fires --------------------------------------------------------------------------------

    def fires_of(self, event: Event, depth: int = 0, allowed: Allowed = anybody) -> list[Fire]:
        """A fire for each trigger whose condition the event meets and whose action is `allowed`."""
        return [fire for fire in self.looks(event, depth, allowed) if fire is not None]

    def looks(self, event: Event, depth: int = 0, allowed: Allowed = anybody) -> Iterator[Fire | None]:
        """Yield for each trigger its fire, or None if the event does not fire it or it is not `allowed`."""
        for definition in self.all.values():
            meets = (
                definition.events is not None
                and definition.name not in self.paused
                and self.passes(definition.events.filters, event)
                and self.may_start(definition, allowed)
            )
            yield self.fire_of(definition, event, "event", depth) if meets else None

    def passes(self, filters: Iterable[Filter], event: Event) -> bool:
        """Whether an event meets a condition."""
        return match_all(filters, event.attributes)

    def fire_of(
        self,
        definition: TriggerDefinition,
        event: Event,
        cause: str,
        depth: int = 0,
        known_by: str | None = None,
    ) -> Fire:
        """The fire of one trigger by this event. The same event gives the same start: the same is one from the same
        source with the same id, or, if it is `known_by` something else, with the same of that."""
        if definition.action[0] == "function":
            headers, body = binary_headers(event), event.data
        else:
            headers, body = [(b"content-type", STRUCTURED.encode())], structured(event)
        id = start_id(definition.name, cause, event.source, known_by or event.id)
        return self._fire(definition, cause, id, headers, body, depth=depth)

    def scheduled_fire(self, definition: TriggerDefinition, scheduled: float) -> Fire:
        """The fire of a schedule for this time."""
        moment = datetime.fromtimestamp(scheduled, UTC).isoformat().replace("+00:00", "Z")
        headers, body = input_of(definition)
        id = start_id(definition.name, "schedule", moment)
        return self._fire(definition, "schedule", id, headers, body, scheduled=scheduled, moment=moment)

    def fire_by_hand(self, definition: TriggerDefinition, headers: HeaderList, body: bytes) -> Fire:
        """A fire that somebody asks for: with this body, or with the trigger's `input` if it is empty."""
        if not body:
            headers, body = input_of(definition)
        return self._fire(definition, "hand", secrets.token_hex(16), headers, body)

    def _fire(
        self,
        definition: TriggerDefinition,
        cause: str,
        id: str,
        headers: HeaderList,
        body: bytes,
        depth: int = 0,
        scheduled: float | None = None,
        moment: str | None = None,
    ) -> Fire:
        kind, name = definition.action
        trigger = definition.name
        fault = self.fault(definition)
        if fault is None:
            told = (("Trigger", trigger), *((("Scheduled-At", moment),) if moment else ()))
            start = Start(id, name, body, headers, CallOverrides(context=told), depth)
            try:
                work = self._targets[kind].work(start)
                return Fire(trigger, cause, Outcome.STARTED, kind, name, id, scheduled=scheduled, work=work)
            except ValueError as error:
                fault = str(error)
        return Fire(trigger, cause, Outcome.FAILED, kind, name, detail=fault, scheduled=scheduled)

    # -- having it done -------------------------------------------------------------------------------------

    async def carry_out(
        self, fires: Sequence[Fire], course: Course | None = None, sender: str | None = None
    ) -> list[Outcome]:
        """Start what these fires start, all in one commit; what came of each. `sender` is that of a `Fire`. Raises
        `StoreError`."""
        if sender is not None:
            fires = [replace(fire, sender=sender) for fire in fires]
        if not fires and course is None:
            return []
        outcomes = await self.store.fire(fires, self._clock.wall(), course)
        if course is not None:
            self.courses[course.trigger] = course
        self._begun(fires, outcomes)
        return outcomes

    async def forget_course(self, name: str) -> None:
        """Of a schedule that is no more, nothing is made up for should it come back. Raises `StoreError`."""
        await self.store.fire((), self._clock.wall(), Course(name, "", ScheduleState(0.0)))
        self.courses.pop(name, None)

    async def publish(self, event: Event) -> int:
        """As `scheduler.triggers.event.Publish` says."""
        await self.ready()
        outcomes = await self.carry_out(self.fires_of(event))
        return sum(outcome in (Outcome.STARTED, Outcome.KNOWN) for outcome in outcomes)

    def begun(self, works: Iterable[Work]) -> None:
        """What somebody had of `fires_of` is on disk, in a commit of his own."""
        fires = [work for work in works if isinstance(work, Fire)]
        self._begun(fires, [fire.outcome for fire in fires])

    def _begun(self, fires: Sequence[Fire], outcomes: Sequence[Outcome]) -> None:
        for fire, outcome in zip(fires, outcomes, strict=True):
            self._metrics.trigger_fires.labels(fire.trigger, outcome.value).value += 1
            if outcome is Outcome.FAILED:
                log.warning("trigger %s: %s", fire.trigger, fire.detail)
        for kind in {fire.kind for fire in fires if fire.work is not None}:
            self._targets[kind].begun(
                [fire.id for fire in fires if fire.kind == kind and fire.work is not None]
            )


def input_of(definition: TriggerDefinition) -> tuple[HeaderList, bytes]:
    """Headers and body of a start with the trigger's `input`; without one the body is empty."""
    if definition.input is None:
        return [], b""
    return [(b"content-type", b"application/json")], json.dumps(definition.input).encode()
