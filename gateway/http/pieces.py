"""Large answers and requests, handled in pieces.

The event loop runs between them, so that no caller blocks others.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Response
from pydantic import BaseModel

from gateway.http.problems import Problem
from pool.clock import Clock, next_turn

log = logging.getLogger("hearth")

SMALL_BODY_BYTES = 64 * 1024
"""Largest body that is parsed on the event loop: this takes half a millisecond."""
MAX_WAITING_BODIES = 64
"""Most large bodies that wait to be parsed. Each occupies memory meanwhile."""
TURN_SECONDS = 0.001
"""Longest turn of the event loop before a large answer lets others run."""
WORK_TIMEOUT_SECONDS = 60.0
"""Longest wait of a caller for an operation that may wait for others, such as interrupting a run."""
_LATE: set[asyncio.Future[Any]] = set()
"""Operations whose caller has stopped waiting. The event loop alone would not keep them alive."""
T = TypeVar("T")


async def unhurried(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield the items that exist at the start, and let the event loop run each millisecond."""
    turn = Turn()
    for item in list(items):
        yield item
        await turn.rest()


async def list_response(items: Iterable[T], view: Callable[[T], BaseModel]) -> Response:
    """Return an answer with a list of objects in JSON."""
    return json_response(await _list(items, view))


async def page_response(
    name: str, items: Sequence[T], view: Callable[[T], BaseModel], **others: object
) -> Response:
    """Return an answer in JSON with a page of a list: the list under the key `name`, then the other keys."""
    shown = await _list(items, view)
    rest = b"".join(b",%b:%b" % (_json(key), _json(value)) for key, value in others.items())
    return json_response(b"{%b:%b%b}" % (_json(name), shown, rest))


def json_response(body: bytes) -> Response:
    """Return an answer with this JSON."""
    return Response(body, media_type="application/json")


async def mapping_of(items: Iterable[tuple[str, T]], view: Callable[[T], BaseModel]) -> bytes:
    """Return a JSON object that maps names to objects."""
    parts = [b"%b:%b" % (_json(name), _object(view(item))) async for name, item in unhurried(items)]
    return b"{%b}" % b",".join(parts)


async def _list(items: Iterable[T], view: Callable[[T], BaseModel]) -> bytes:
    parts: list[bytes] = []
    turn = Turn()
    async for item in unhurried(items):
        shown = view(item)
        await turn.rest()  # here too, since one trigger may have thousands of filters
        parts.append(_object(shown))
    return b"[%b]" % b",".join(parts)


def _object(shown: BaseModel) -> bytes:
    return shown.model_dump_json(by_alias=True).encode()


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


async def in_time(work: Coroutine[Any, Any, T], what: str, clock: Clock) -> T:
    """Return the result of an operation that may wait for others.

    If it takes too long, it goes on without its caller.

    Raises `Problem` 409 in that case, and whatever the operation raises.
    """
    task = asyncio.ensure_future(work)
    with suppress(TimeoutError):
        async with clock.timeout(WORK_TIMEOUT_SECONDS):
            await asyncio.wait((task,))
    if task.done():
        return task.result()
    _LATE.add(task)
    task.add_done_callback(_ended_late)
    raise Problem(
        "conflict",
        f"{what} takes longer than {WORK_TIMEOUT_SECONDS:g} s and continues; look at its status later",
    )


def _ended_late(task: asyncio.Future[Any]) -> None:
    _LATE.discard(task)
    if not task.cancelled() and (fault := task.exception()) is not None:
        log.warning("An operation failed after its caller had stopped waiting for it: %s", fault)


class Turn:
    """Stopwatch for one turn of the event loop."""

    def __init__(self) -> None:
        self._until = time.perf_counter() + TURN_SECONDS

    async def rest(self) -> None:
        """Let the event loop run if this turn has lasted `TURN_SECONDS`."""
        if time.perf_counter() >= self._until:
            await next_turn()
            self._until = time.perf_counter() + TURN_SECONDS


class WorkQueue:
    """Queue for large work such as parsing. One piece of work runs at a time, in a thread; few may wait."""

    def __init__(self, most_waiting: int = MAX_WAITING_BODIES) -> None:
        self._most_waiting = most_waiting
        self._one = asyncio.Semaphore(1)
        self._waiting = 0

    async def do(self, size: int, work: Callable[[], T]) -> T:
        """Return the result of `work` on a body of `size` bytes. Small ones are done at once, on the event loop.

        Raises `Problem` 503 if too many wait, and whatever `work` raises.
        """
        return work() if size <= SMALL_BODY_BYTES else await self.in_turn(work)

    async def in_turn(self, work: Callable[[], T]) -> T:
        """Return the result of `work` that takes long whatever the size of its body. Raises as `do` does."""
        if self._waiting >= self._most_waiting:
            raise Problem("busy", "too many large bodies wait already; send it again later", retry_after=1.0)
        self._waiting += 1
        try:
            async with self._one:
                return await asyncio.to_thread(_without_collector, work)
        finally:
            self._waiting -= 1


def _without_collector(work: Callable[[], T]) -> T:
    """Do some work without the cycle collector, which would walk all parsed objects in one go, and more than once.

    If the work fails, the parsed objects are freed here and not on the event loop, which handles the error.
    """
    paused_here = (
        gc.isenabled()
    )  # of several threads only the first pauses it, and resumes it when it is done
    if paused_here:
        gc.disable()
    try:
        return work()
    except (Problem, ValueError) as error:
        error.__context__ = error.__cause__ = None
        raise error.with_traceback(None) from None
    finally:
        if paused_here:
            gc.enable()
