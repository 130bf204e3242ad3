"""Reasons why an instance is started, in words: pure functions of a snapshot."""

from __future__ import annotations

from dataclasses import dataclass

from pool.instance import StartedFor, StartReason
from pool.ledger import LastStop
from pool.states import Reason
from scheduler.dispatch.decisions import Demand

NOTHING_READY = "no instance of this revision was ready; "
FIRST = NOTHING_READY + "it is its first call since the gateway started"
NEW = NOTHING_READY + "it is its first call since it came into service"
REMOVED: dict[str, str] = {
    Reason.IDLE: "the last one was removed {ago}, unused for its keep_alive",
    Reason.EVICTED: "the last one was evicted {ago} to make room for {other}",
    Reason.FAIR_SHARE: "the last one gave its memory up {ago}, for which {other} had waited",
    Reason.DEAD: "the last one ended by itself or was killed {ago}",
    Reason.MAX_AGE: "the last one reached its max_age {ago}",
    Reason.MAX_INVOCATIONS: "the last one reached its max_invocations {ago}",
    Reason.REPLACED: "the last one was removed {ago}, when the function was taken out of service",
    Reason.TIMEOUT: "the last one was removed {ago}, after a call had run past its timeout",
    Reason.BROKEN: "the last one was removed {ago}, after an answer that broke its contract",
    Reason.START_FAILED: "the start before this one failed {ago}",
    Reason.REQUESTED: "the last one was removed {ago}, as a caller had asked",
}
"""By the reason of the last removal. The others say nothing about a function."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """The need of a revision for one more instance, at the moment when that is started."""

    demand: Demand
    version: str
    trial: bool
    """It is tried out: no call goes to it yet."""
    fresh_by_default: bool
    """Each call has a container of its own unless the function says otherwise."""
    last: LastStop | None
    now: float


def reason_to_start(s: Shortage) -> StartReason:
    """Return why an instance is started for calls that wait."""
    d = s.demand
    if s.trial:
        told = "the new revision was tried out before it came into service"
        return StartReason(told, purpose=StartedFor.TRIAL)
    if d.single_use:
        why = "it does not say `reuse: true`" if s.fresh_by_default else "it says `reuse: false`"
        return StartReason(f"each call of this function gets a new instance, as {why}")
    if d.live_slots:
        return _busy(d)
    if d.pending:
        already = "1 instance was" if d.pending == 1 else f"{d.pending} instances were"
        return StartReason(f"{already} being started already, for which too many calls waited")
    return _none_left(s)


def _busy(d: Demand) -> StartReason:
    """Return the reason where calls wait for busy instances."""
    count = -(-d.live_slots // max(1, d.concurrency))
    busy = "its instance was busy" if count == 1 else f"all {count} instances were busy"
    if d.exec_seconds is None:
        return StartReason(f"{busy}, and nobody knew yet for how long")
    wait = max(d.waiters * d.exec_seconds / d.live_slots, d.oldest_wait)
    return StartReason(
        f"{busy}: waiting would have taken {seconds(wait)}, and a start {seconds(d.start_seconds)}"
    )


def _none_left(s: Shortage) -> StartReason:
    """Return the reason where the revision has no instance."""
    if s.last is None:
        return StartReason(FIRST)
    if s.last.version != s.version:
        return StartReason(NEW)
    told = REMOVED.get(s.last.reason)
    if told is None:
        return StartReason(FIRST)
    if "{other}" in told and not s.last.taker:
        told = "the last one was removed {ago} for its memory"
    ago = f"{seconds(s.now - s.last.at)} ago"
    return StartReason(NOTHING_READY + told.replace("{ago}", ago), s.last.taker)


def started_ahead(wanted: int) -> StartReason:
    """Return the reason of an instance that no call has asked for."""
    told = f"it was started ahead of calls, as min_instances is {wanted}"
    return StartReason(told, purpose=StartedFor.MINIMUM)


def started_as_spare(called: float | None, wanted: int, rate: float | None) -> StartReason:
    """Return the reason of a spare. `called`: seconds since the last call, or None if there was none since the
    deployment. `rate`: calls a second of a single-use revision."""
    if called is None:
        told = "its function came into service lately, and its imports take long"
    elif rate is None:
        told = f"its function was called {seconds(called)} ago, and its imports take long"
    else:
        several = f": {wanted} are kept ready at {rate:.1f} calls a second" if wanted > 1 else ""
        told = f"each call gets a new instance, and the last one came {seconds(called)} ago{several}"
    return StartReason(f"it was started ahead of calls: {told}", purpose=StartedFor.SPARE)


def seconds(value: float) -> str:
    """Return seconds in words: `20 ms`, `1.5 s`, `40 s`, `3 min` or `2 h`."""
    if value < 0.1:
        return f"{1000 * value:.0f} ms"
    if value < 10:
        return f"{value:.1f} s"
    for size, unit in ((3600, "h"), (60, "min")):
        if value >= 2 * size:
            return f"{value / size:.0f} {unit}"
    return f"{value:.0f} s"
