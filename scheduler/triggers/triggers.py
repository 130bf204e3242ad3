"""The triggers of a gateway: the set of them, the ones that an event fires, and starting their actions."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from pool.backoff import Backoff, Retries
from pool.clock import Clock
from pool.observe.metrics import Metrics
from scheduler.calls.leases import LeaseOwner
from scheduler.calls.store import StoreError
from scheduler.calls.targets import Start, Target
from scheduler.definitions.language.call_overrides import CallOverrides
from scheduler.definitions.language.filters import Filter, match_all
from scheduler.definitions.triggers import TriggerDefinition
from scheduler.triggers.cloud_events import STRUCTURED, binary_headers, structured_body
from scheduler.triggers.due import ScheduleState
from scheduler.triggers.event import Event
from scheduler.triggers.model import Course, ScheduleWatch, start_id
from scheduler.triggers.secret_names import SecretNames
from scheduler.triggers.store import TriggerStore
from scheduler.work import Fire, HeaderList, Outcome, Work

log = logging.getLogger("hearth.triggers")

LOAD_RETRY = Backoff(1.0, 15.0)
"""Pauses before the stored triggers are read again after a failure. Each failure is logged."""
EVERY = "*"
"""Stands for all functions: only a caller who may invoke every function may invoke this."""
Allowed = Callable[[str], bool]
"""Return whether the causer of an event may invoke a function."""


def anybody(function: str) -> bool:
    """Return True: causes inside the gateway may invoke every function."""
    return True


class Triggers:
    """The triggers of one gateway. `targets`, by kind, start actions; they may be added until `load` has run."""

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
        """Triggers of functions.yaml, by name."""
        self.made: dict[str, TriggerDefinition] = {}
        """Triggers made over the API, by name."""
        self.paused: set[str] = set()
        self.courses: dict[str, Course] = {}
        """Stored progress of each schedule, by trigger."""
        self.on_change: Callable[[], None] = lambda: None
        """Called after triggers were added, removed, changed, paused or resumed."""
        self._loaded = asyncio.Event()
        self._declared = asyncio.Event()

    # -- the set of triggers ------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read the stored triggers, and try until the store answers."""
        retries = Retries(LOAD_RETRY)
        while self.store.exists:
            try:
                kept = await self.store.all()
            except StoreError:
                await self._clock.sleep(retries.failed())
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
        except ValueError:  # written by another version of this program
            log.error(
                "trigger %s, made over the API, cannot be read by this version and does nothing; "
                "make it again, or delete it",
                name,
            )
            return
        try:
            self.check_secret_name(made)
        except ValueError as error:
            log.warning("trigger %s, made over the API, refuses all messages: %s", name, error)

    def declare(self, definitions: Mapping[str, TriggerDefinition]) -> None:
        """Replace the triggers of functions.yaml. Their targets must be declared before."""
        self.declared = dict(definitions)
        self._declared.set()
        self.on_change()

    async def ready(self) -> None:
        """Wait until all triggers are known, from the store and from functions.yaml."""
        await self._loaded.wait()
        await self._declared.wait()

    @property
    def is_ready(self) -> bool:
        """Return whether all triggers are known, from the store and from functions.yaml."""
        return self._loaded.is_set() and self._declared.is_set()

    @property
    def all(self) -> dict[str, TriggerDefinition]:
        """Return all triggers by name. One of the file replaces one of the API with the same name."""
        return {**self.made, **self.declared}

    def fault(self, definition: TriggerDefinition) -> str | None:
        """Return why a trigger cannot start its action now, or None if it can."""
        kind, name = definition.action
        target = self._targets.get(kind)
        return None if target is not None and name in target.names() else f"there is no {kind} {name!r}"

    def check_secret_name(self, definition: TriggerDefinition) -> None:
        """Raise ValueError, with advice, if a trigger made over the API names a variable that is not allowed."""
        webhook = definition.webhook
        if webhook is not None and webhook.secret_env is not None and definition.name not in self.declared:
            self._secret_names.check(webhook.secret_env)

    def secret(self, definition: TriggerDefinition) -> bytes:
        """Return the current secret of a trigger with a webhook. Raises ValueError, with advice, if there is none."""
        assert definition.webhook is not None
        self.check_secret_name(definition)
        return definition.webhook.secret()

    def functions(self, definition: TriggerDefinition) -> Collection[str]:
        """Return the functions that a trigger's action calls.

        If its workflow or job is gone, return `EVERY`: no caller may gain a right to a trigger by that.
        """
        kind, name = definition.action
        if kind == "function":
            return (name,)
        target = self._targets.get(kind)
        return (EVERY,) if target is None or name not in target.names() else target.functions(name)

    def startable(self) -> Iterator[str]:
        """Yield every function that a trigger could call now, and the names of jobs that run an image."""
        for target in self._targets.values():
            for name in target.names():
                yield from target.functions(name)

    def may_start(self, definition: TriggerDefinition, allowed: Allowed) -> bool:
        """Return whether a caller who may invoke the `allowed` functions may start a trigger's action."""
        return all(map(allowed, self.functions(definition)))

    async def make(self, definition: TriggerDefinition) -> None:
        """Store a trigger of the API, in place of an earlier one of its name. Raises `StoreError`."""
        shown = definition.model_dump_json(by_alias=True, exclude_unset=True)
        await self.store.define(definition.name, shown)
        self.made[definition.name] = definition
        self.on_change()

    async def unmake(self, name: str) -> None:
        """Remove a trigger that was made over the API. Raises `StoreError`."""
        await self.store.forget(name)
        self.made.pop(name, None)
        self.paused.discard(name)
        self.courses.pop(name, None)
        self.on_change()

    async def pause(self, name: str, paused: bool) -> None:
        """Pause or resume a trigger. A pause outlives the process. Raises `StoreError`."""
        course = self.courses.get(name)
        if course is not None:  # fires that fall due during the pause are not made up for
            course = replace(course, state=ScheduleState(self._clock.wall()))
        before = frozenset(self.paused)
        if paused:
            self.paused.add(name)  # at once: no fire may follow the answer to the pause
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

    # -- fires of an event --------------------------------------------------------------------------------

    def fires_of(self, event: Event, depth: int = 0, allowed: Allowed = anybody) -> list[Fire]:
        """Return a fire for each trigger that the event matches and whose action is `allowed`."""
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
        """Return whether an event passes all filters."""
        return match_all(filters, event.attributes)

    def fire_of(
        self,
        definition: TriggerDefinition,
        event: Event,
        cause: str,
        depth: int = 0,
        known_by: str | None = None,
    ) -> Fire:
        """Return the fire of one trigger by this event. The same event gives the same action, which starts once.

        Events are the same if they have the same source and the same id, or the same `known_by` if it is given.
        """
        if definition.action[0] == "function":
            headers, body = binary_headers(event), event.data
        else:
            headers, body = [(b"content-type", STRUCTURED.encode())], structured_body(event)
        id = start_id(definition.name, cause, event.source, known_by or event.id)
        return self._fire(definition, cause, id, headers, body, depth=depth)

    def scheduled_fire(self, definition: TriggerDefinition, scheduled: float) -> Fire:
        """Return the fire of a schedule for this time."""
        moment = datetime.fromtimestamp(scheduled, UTC).isoformat().replace("+00:00", "Z")
        headers, body = input_of(definition)
        id = start_id(definition.name, "schedule", moment)
        return self._fire(definition, "schedule", id, headers, body, scheduled=scheduled, moment=moment)

    def fire_by_hand(self, definition: TriggerDefinition, headers: HeaderList, body: bytes) -> Fire:
        """Return a fire on request, with this body, or with the trigger's `input` if the body is empty."""
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

    # -- starting actions -------------------------------------------------------------------------------------

    async def carry_out(
        self, fires: Sequence[Fire], watch: ScheduleWatch | None = None, sender: str | None = None
    ) -> list[Outcome]:
        """Start the actions of these fires in one transaction; return the outcome of each.

        `sender` is set on every fire if it is given. `watch` records the progress of their schedule. Raises
        `StoreError`.
        """
        if sender is not None:
            fires = [replace(fire, sender=sender) for fire in fires]
        if not fires and watch is None:
            return []
        outcomes = await self.store.fire(fires, self._clock.wall(), watch)
        if watch is not None:
            self.courses[watch.course.trigger] = watch.course
        self._begun(fires, outcomes)
        return outcomes

    async def forget_course(self, owner: LeaseOwner, name: str) -> None:
        """Forget the progress of a removed schedule: should it come back, it begins anew. Raises `StoreError`."""
        watch = ScheduleWatch(owner, Course(name, "", ScheduleState(0.0)))
        await self.store.fire((), self._clock.wall(), watch)
        self.courses.pop(name, None)

    async def publish(self, event: Event) -> int:
        """Start the actions of an event, see `scheduler.triggers.event.Publish`."""
        await self.ready()
        outcomes = await self.carry_out(self.fires_of(event))
        return sum(outcome in (Outcome.STARTED, Outcome.KNOWN) for outcome in outcomes)

    def begun(self, works: Iterable[Work]) -> None:
        """Note that fires from `fires_of` are on disk: another part stored them with its own records."""
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
    """Return headers and body of an action with the trigger's `input`; the body is empty without one."""
    if definition.input is None:
        return [], b""
    return [(b"content-type", b"application/json")], json.dumps(definition.input).encode()
