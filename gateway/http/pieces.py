"""Large answers and requests in pieces, between which the event loop turns: no caller holds up the others."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from fastapi import Response
from pydantic import BaseModel

from gateway.http.problems import Problem

log = logging.getLogger("hearth")

SMALL = 64 * 1024
"""Bytes of a body that is looked at at once: it is parsed in half a millisecond."""
MOST_WAITING = 64
"""Large bodies that wait to be looked at: each holds its room in memory meanwhile."""
TURN_SECONDS = 0.001
"""Seconds of one turn of the event loop after which it may turn."""
PATIENCE_SECONDS = 60.0
"""Seconds that a caller waits for what is done to others' work, such as interrupting a run."""
_LATE: set[asyncio.Future[Any]] = set()
"""Works that nobody waits for any more: the loop alone would forget them."""
T = TypeVar("T")


async def unhurried(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield items, and let the loop turn each millisecond. They are what they were at the start."""
    turn = Turn()
    for item in list(items):
        yield item
        await turn.rest()


async def list_response(items: Iterable[T], view: Callable[[T], BaseModel]) -> Response:
    """Return a list of objects as an answer in JSON."""
    return json_response(await _list(items, view))


async def page_response(
    name: str, items: Sequence[T], view: Callable[[T], BaseModel], **others: object
) -> Response:
    """Return a page of a list as an answer in JSON: the list under its name, and other keys behind it."""
    shown = await _list(items, view)
    rest = b"".join(b",%b:%b" % (_json(key), _json(value)) for key, value in others.items())
    return json_response(b"{%b:%b%b}" % (_json(name), shown, rest))


def json_response(body: bytes) -> Response:
    """Return JSON as an answer."""
    return Response(body, media_type="application/json")


async def mapping_of(items: Iterable[tuple[str, T]], view: Callable[[T], BaseModel]) -> bytes:
    """Return an object in JSON whose values are objects by name."""
    parts = [b"%b:%b" % (_json(name), _object(view(item))) async for name, item in unhurried(items)]
    return b"{%b}" % b",".join(parts)


async def _list(items: Iterable[T], view: Callable[[T], BaseModel]) -> bytes:
    parts: list[bytes] = []
    turn = Turn()
    async for item in unhurried(items):
        shown = view(item)
        await turn.rest()  # between the two as well: a trigger may have thousands of filters
        parts.append(_object(shown))
    return b"[%b]" % b",".join(parts)


def _object(shown: BaseModel) -> bytes:
    return shown.model_dump_json(by_alias=True).encode()


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


async def in_time(work: Coroutine[Any, Any, T], what: str) -> T:
    """Return what a work brings that may wait for others. One that takes long goes on without its caller.

    Raises `Problem` 409 then, and what the work raises.
    """
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait((task,), timeout=PATIENCE_SECONDS)
    if done:
        return task.result()
    _LATE.add(task)
    task.add_done_callback(_ended_late)
    raise Problem(
        "conflict", f"{what} takes longer than {PATIENCE_SECONDS:g} s and continues; look at its status later"
    )


def _ended_late(task: asyncio.Future[Any]) -> None:
    _LATE.discard(task)
    if not task.cancelled() and (fault := task.exception()) is not None:
        log.warning("what a caller did not wait for any more has failed: %s", fault)


class Turn:
    """How long this turn of the event loop has lasted."""

    def __init__(self) -> None:
        self._until = time.perf_counter() + TURN_SECONDS

    async def rest(self) -> None:
        """Let the loop turn if this turn has lasted long enough."""
        if time.perf_counter() >= self._until:
            await asyncio.sleep(0)
            self._until = time.perf_counter() + TURN_SECONDS


class Desk:
    """Where large work is done, such as parsing: in a thread, one at a time, while a bounded number waits."""

    def __init__(self, most_waiting: int = MOST_WAITING) -> None:
        self._most_waiting = most_waiting
        self._one = asyncio.Semaphore(1)
        self._waiting = 0

    async def do(self, size: int, work: Callable[[], T]) -> T:
        """Return what a work of a body of so many bytes brings. Raises `Problem` 503, and what the work raises."""
        return work() if size <= SMALL else await self.in_turn(work)

    async def in_turn(self, work: Callable[[], T]) -> T:
        """`do` for what takes long whatever its size. Raises `Problem` 503, and what the work raises."""
        if self._waiting >= self._most_waiting:
            raise Problem("busy", "too many large bodies wait already; send it again later", retry_after=1.0)
        self._waiting += 1
        try:
            async with self._one:
                return await asyncio.to_thread(_tidily, work)
        finally:
            self._waiting -= 1


def _tidily(work: Callable[[], T]) -> T:
    """Do a work; what a refusal has parsed is given back here, and not where the refusal is told.

    The collector of cycles rests: it would look at all that was parsed, in one go and more than once.
    """
    rests = gc.isenabled()  # of several works the first lets it rest, and only until that one is done
    if rests:
        gc.disable()
    try:
        return work()
    except (Problem, ValueError) as error:
        error.__context__ = error.__cause__ = None
        raise error.with_traceback(None) from None
    finally:
        if rests:
            gc.enable()
