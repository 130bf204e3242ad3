"""Followers: they say what is begun in the commit that records the end of a call, of a run, of a job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import ParamSpec

from scheduler.work import Work

log = logging.getLogger("hearth.durable")
P = ParamSpec("P")


def collect_follow_ups(
    subject: Callable[[], str],
    followers: Iterable[Callable[P, Iterable[Work]]],
    *ended: P.args,
    **named: P.kwargs,
) -> tuple[Work, ...]:
    """Return what all followers say of an end.

    If one of them has a fault, nothing follows and the log says so: `subject` has ended all the same.
    """
    works: list[Work] = []
    try:
        for follower in followers:
            if more := follower(*ended, **named):
                works += more
        return tuple(works)
    except Exception:
        log.exception("%s: nothing follows from its end", subject())
        return ()
