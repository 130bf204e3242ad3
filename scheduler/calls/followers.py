"""Followers: functions that return the work to begin in the transaction that records an end.

The end is that of a call, a run or a job. So the work begins exactly if the end is recorded.
"""

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
    """Return the work of all followers of an end.

    If one of them raises, log it for `subject` and return no work: the end is recorded all the same.
    """
    works: list[Work] = []
    try:
        for follower in followers:
            if more := follower(*ended, **named):
                works += more
        return tuple(works)
    except Exception:
        log.exception(
            "%s: a follower of its end failed; no callback, destination or event follows", subject()
        )
        return ()
