"""States of an instance and the transitions between them, in one table that nothing bypasses."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """The state of an instance."""

    FOUND = "found"
    """Left by an earlier gateway process; not yet decided if it is adopted."""
    ADOPTING = "adopting"
    """Being adopted: the gateway connects to it and compares it with its record."""
    STARTING = "starting"
    """Its container is being created. It counts against every limit from here on."""
    PREWARMED = "prewarmed"
    """Generic and ready; given to no function yet."""
    SPECIALISING = "specialising"
    """Generic, and becoming an instance of a function for good."""
    IDLE = "idle"
    """Ready; no slot is leased."""
    FROZEN = "frozen"
    """Idle and stopped by the kernel: it runs no instruction. A lease thaws it."""
    BUSY = "busy"
    """At least one slot is leased."""
    DRAINING = "draining"
    """Finishes its calls and accepts no new one."""
    STOPPING = "stopping"
    """Its removal is under way; it still counts against every limit."""
    GONE = "gone"
    """Its removal is confirmed."""


S = State
TRANSITIONS: dict[State, frozenset[State]] = {
    S.FOUND: frozenset({S.ADOPTING, S.STOPPING}),
    S.ADOPTING: frozenset({S.PREWARMED, S.IDLE, S.STOPPING}),
    S.STARTING: frozenset({S.PREWARMED, S.SPECIALISING, S.IDLE, S.STOPPING}),
    S.PREWARMED: frozenset({S.SPECIALISING, S.STOPPING}),
    S.SPECIALISING: frozenset({S.IDLE, S.STOPPING}),
    S.IDLE: frozenset({S.BUSY, S.FROZEN, S.STOPPING}),
    S.FROZEN: frozenset({S.BUSY, S.IDLE, S.STOPPING}),
    S.BUSY: frozenset({S.IDLE, S.DRAINING, S.STOPPING}),
    S.DRAINING: frozenset({S.STOPPING}),
    S.STOPPING: frozenset({S.GONE}),
    S.GONE: frozenset(),
}

FIRST = (S.FOUND, S.STARTING)
"""First states of an instance in this process."""
PENDING = frozenset({S.ADOPTING, S.STARTING, S.SPECIALISING})
"""Not ready yet, but becoming so."""
UNUSED = frozenset({S.IDLE, S.FROZEN})
"""Ready without a leased slot: candidates for the end of keep-alive and for eviction."""
LIVE = UNUSED | {S.BUSY}
"""Able to serve calls."""
SERVING = LIVE | {S.DRAINING}
"""Able to serve calls, or finishing some."""
SERVING_STEPS = frozenset((before, after) for before in SERVING for after in TRANSITIONS[before] & SERVING)
"""Transitions that calls cause. They change the tally of states and no other sum."""
GOING = frozenset({S.STOPPING, S.GONE})
"""Removal has begun."""
LEAVING = frozenset({S.DRAINING, S.STOPPING, S.GONE})
"""Takes no further call; its memory will be free."""


class IllegalTransition(Exception):
    """An instance cannot go from its state to the requested one; nothing has changed."""


class Reason(StrEnum):
    """The reason of a removal. Every removal has one, for metrics and messages."""

    IDLE = "idle"
    """Not called for its function's `keep_alive`."""
    EVICTED = "evicted"
    """Its memory was needed for another instance."""
    FAIR_SHARE = "fair-share"
    """Its function held more memory than its share while another function had waited too long for some."""
    DEAD = "dead"
    """Its process ended by itself or was killed."""
    MAX_AGE = "max-age"
    MAX_INVOCATIONS = "max-invocations"
    REPLACED = "replaced"
    """Its function has a new version, or is no longer deployed."""
    SINGLE_USE = "single-use"
    """`reuse: false`, or a command without `reuse: true`: one call, one container."""
    TIMEOUT = "timeout"
    """A call ran past its function's `timeout` on it."""
    BROKEN = "broken"
    """It sent an answer that breaks its contract."""
    START_FAILED = "start-failed"
    SURPLUS = "surplus"
    """There were more prewarmed instances than wanted."""
    REQUESTED = "requested"
    """A caller asked for it over the API."""
    ORPHANED = "orphaned"
    """Left by an earlier gateway process with the same data folder, and not adopted."""
    SHUTDOWN = "shutdown"


def check(before: State, after: State) -> None:
    """Raise `IllegalTransition` unless the table has a transition between these states."""
    if after not in TRANSITIONS[before]:
        raise IllegalTransition(f"{before} does not lead to {after}")


def diagram() -> str:
    """Return the table as a Mermaid state diagram, for docs/pool.md; `python -m pool.states` prints it."""
    lines = ["stateDiagram-v2", *(f"    [*] --> {state}" for state in FIRST)]
    lines += [
        f"    {before} --> {after}"
        for before in State
        for after in State  # not the set itself: its order differs between processes
        if after in TRANSITIONS[before]
    ]
    lines += [f"    {state} --> [*]" for state in State if not TRANSITIONS[state]]
    return "\n".join(lines)


if __name__ == "__main__":
    print(diagram())
