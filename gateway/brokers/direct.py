"""Calls one function with each event of a broker (the key `function`), whatever the triggers are."""

from __future__ import annotations

import hashlib

from pool.clock import Clock
from scheduler.calls.store import CallStore
from scheduler.calls.targets import Start, Target
from scheduler.definitions.language.call_overrides import CallOverrides
from scheduler.triggers.cloud_events import binary_headers
from scheduler.triggers.event import Event


class DirectPublish:
    """A `Publish` that starts one function, with the event in binary mode."""

    def __init__(self, source: str, name: str, target: Target, store: CallStore, clock: Clock) -> None:
        self._source = source
        self._name = name
        self._target = target
        self._store = store
        self._clock = clock

    async def __call__(self, event: Event) -> int:
        cause = "\0".join(("source", self._source, self._name, event.source, event.id))
        id = hashlib.sha256(cause.encode()).hexdigest()[:32]
        told = CallOverrides(context=(("Source", self._source),))
        start = Start(id, self._name, event.data, binary_headers(event), told)
        await self._store.begin([self._target.work(start)], self._clock.wall(), f"source:{self._source}")
        self._target.begun([start.id])
        return 1
