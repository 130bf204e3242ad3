"""Start targets: kinds of things that can be started by name, such as functions, workflows and jobs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from scheduler.calls.store import CallStore
from scheduler.definitions.language.call_overrides import NO_OVERRIDES, CallOverrides
from scheduler.work import HeaderList, NewCall, Request, Startable


@dataclass(frozen=True, slots=True)
class Start:
    """A request to start something. The same `id`, 32 hexadecimal digits, starts once.

    An id that is derived from the cause makes a repetition harmless.
    """

    id: str
    name: str
    body: bytes
    headers: HeaderList
    """Headers of the request, without content-length."""
    overrides: CallOverrides = NO_OVERRIDES
    depth: int = 0
    """Number of starts that led to this one."""


class Target(Protocol):
    """One kind of thing that can be started."""

    def names(self) -> Collection[str]:
        """Return the names that can be started now."""

    def work(self, start: Start) -> Startable:
        """Return the work to store for this start; `start.name` is one of `names`.

        Raises ValueError if the body does not suit.
        """

    def begun(self, ids: Collection[str]) -> None:
        """Go on with the starts of these ids, which are on disk."""

    def functions(self, name: str) -> Collection[str]:
        """Return the functions that it calls. A caller needs the right to invoke all of them."""

    async def running(self, id: str) -> bool:
        """Return whether the thing started as `id` has not ended. Raises `StoreError`."""


class FunctionTarget:
    """The start target for functions: each start is an accepted call."""

    def __init__(
        self, names: Callable[[], Collection[str]], notify: Callable[[], None], store: CallStore
    ) -> None:
        self.names = names
        self._notify = notify
        self._store = store

    def begun(self, ids: Collection[str]) -> None:
        """Run the calls."""
        self._notify()

    def functions(self, name: str) -> Collection[str]:
        """Return the function itself."""
        return (name,)

    async def running(self, id: str) -> bool:
        """Return whether the call waits, runs, or waits for a retry."""
        record = await self._store.show(id)
        return record is not None and not record.status.ended

    def work(self, start: Start) -> NewCall:
        """Return the call to accept."""
        headers = [*start.headers, (b"content-length", b"%d" % len(start.body))]
        return NewCall(
            id=start.id,
            function=start.name,
            request=Request(headers=headers),
            body=start.body,
            depth=start.depth,
            overrides=start.overrides,
        )
