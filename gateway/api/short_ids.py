"""Short ids: the first digits of an id serve in its place, wherever they fit one thing only that the caller may see.

A room declares how its ids are found: `JobId = Annotated[str, short_id("`id` of a job", ids_of_jobs)]`. A route with
a parameter `id: JobId` is given the whole id.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from fastapi import Depends, Path, Request

from gateway.api.parts import ApiParts, api_parts_of
from gateway.http.problems import Problem

FEWEST_DIGITS = 4
"""Digits of the shortest id. Fewer would fit several things on almost every gateway."""
SHORT = re.compile(rf"[0-9a-f]{{{FEWEST_DIGITS},31}}")
"""A whole id has 32 digits; that of an instance has 12, and fits itself."""
MOST_SHOWN = 5
"""Candidates that a problem names: enough to see how many more digits are needed."""

FindIds = Callable[[ApiParts, str], Awaitable[Iterable[str]]]
"""Finds the ids that begin with these digits. It leaves out what the caller may not see."""


def short_id(description: str, find: FindIds) -> Any:
    """Return a dependency on the path's `{id}`: the whole id if the path has a short one."""

    async def dependency(
        request: Request,
        id: str = Path(description=f"{description}, or its first {FEWEST_DIGITS} or more characters"),
    ) -> str:
        return await whole_id(id, api_parts_of(request.app), find)

    return Depends(dependency)


async def whole_id(id: str, parts: ApiParts, find: FindIds) -> str:
    """Return the whole id that a short one stands for, or `id` itself if none begins so. Raises `Problem`."""
    if not SHORT.fullmatch(id):
        return id
    found = sorted(set(await find(parts, id)))
    if not found or id in found:
        return id
    if len(found) > 1:
        shown = ", ".join(found[:MOST_SHOWN]) + (", …" if len(found) > MOST_SHOWN else "")
        raise Problem("ambiguous-id", f"several ids begin with {id!r}; give more of it: {shown}")
    return found[0]
