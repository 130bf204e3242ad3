"""What can be started by name, whoever starts it: a function, and what else says that it is a target."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from scheduler.calls.store import CallStore
from scheduler.definitions.language.call_overrides import NO_OVERRIDES, CallOverrides
from scheduler.work import HeaderList, NewCall, Request, Startable


@dataclass(frozen=True, slots=True)
class Start:
    """That something is to be started. The same `id` is begun once: made of what caused it, it makes a repetition
    harmless. 32 hexadecimal digits."""

    id: str
    name: str
    body: bytes
    headers: HeaderList
    """Of the request, without its length."""
    overrides: CallOverrides = NO_OVERRIDES
    depth: int = 0
    """How many starts led to this one."""


class Target(Protocol):
    """One kind of what can be started."""

    def names(self) -> Collection[str]:
        """What there is, now."""

    def work(self, start: Start) -> Startable:
        """Return what the store has to begin for this start; `start.name` is one of `names`.

        Raises ValueError for a body that it cannot be started with.
        """

    def begun(self, ids: Collection[str]) -> None:
        """The starts with these ids are on disk: go on with them."""

    def functions(self, name: str) -> Collection[str]:
        """The functions that it calls: who starts it must be allowed to invoke them."""

    async def running(self, id: str) -> bool:
        """Whether what was started with this `Start.id` has not ended. Raises `StoreError`."""


class FunctionTarget:
    """Functions: each start is an accepted call."""

    def __init__(
        self, names: Callable[[], Collection[str]], notify: Callable[[], None], store: CallStore
    ) -> None:
        self.names = names
        self._notify = notify
        self._store = store

    def begun(self, ids: Collection[str]) -> None:
        """Have the calls run."""
        self._notify()

    def functions(self, name: str) -> Collection[str]:
        """Itself."""
        return (name,)

    async def running(self, id: str) -> bool:
        """Whether the call waits, also for a further attempt, or runs."""
        record = await self._store.show(id)
        return record is not None and not record.status.ended

    def work(self, start: Start) -> NewCall:
        """The call."""
        headers = [*start.headers, (b"content-length", b"%d" % len(start.body))]
        return NewCall(
            id=start.id,
            function=start.name,
            request=Request(headers=headers),
            body=start.body,
            depth=start.depth,
            overrides=start.overrides,
        )
