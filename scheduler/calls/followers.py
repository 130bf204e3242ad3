"""Followers: they say what is begun in the commit that records the end of a call, of a run, of a job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import ParamSpec

log = logging.getLogger("hearth.durable")
P = ParamSpec("P")


def collect_follow_ups(
    subject: Callable[[], str],
    followers: Iterable[Callable[P, Iterable[object]]],
    *ended: P.args,
    **named: P.kwargs,
) -> tuple[object, ...]:
    """What all of them say of an end. Nothing if one of them has a fault, which is logged: `subject` has ended all
    the same."""
    works: list[object] = []
    try:
        for follower in followers:
            if more := follower(*ended, **named):
                works += more
        return tuple(works)
    except Exception:
        log.exception("%s: nothing follows from its end", subject())
        return ()
