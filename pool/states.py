"""The states of an instance and the transitions between them: one table, and nothing else decides."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where an instance is in its life."""

    FOUND = "found"
    """Left by an earlier gateway process; whether it is adopted is not decided yet."""
    ADOPTING = "adopting"
    """Being taken over: it has to be reached, and to say that it is what its record says."""
    STARTING = "starting"
    """Its container is being created. It counts against every limit from here on."""
    PREWARMED = "prewarmed"
    """Generic and ready; given to no function yet."""
    SPECIALISING = "specialising"
    """A generic instance that is becoming one of a function. There is no way back."""
    IDLE = "idle"
    """Ready, no slot is leased."""
    FROZEN = "frozen"
    """Idle, and stopped by the kernel: it cannot run a single instruction. A lease thaws it."""
    BUSY = "busy"
    """At least one slot is leased."""
    DRAINING = "draining"
    """Accepts nothing new and finishes what runs."""
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
"""Where an instance's life in this process begins."""
PENDING = frozenset({S.ADOPTING, S.STARTING, S.SPECIALISING})
"""Not ready yet, but will be."""
UNUSED = frozenset({S.IDLE, S.FROZEN})
"""Ready, no slot is leased: what keep-alive and eviction are about."""
LIVE = UNUSED | {S.BUSY}
"""Serves, or could."""
SERVING = LIVE | {S.DRAINING}
"""Serves, could, or has something to finish."""
SERVING_STEPS = frozenset((before, after) for before in SERVING for after in TRANSITIONS[before] & SERVING)
"""Transitions of every call. They change no sum but how many instances are in which state."""
GOING = frozenset({S.STOPPING, S.GONE})
"""Its removal has begun."""
LEAVING = frozenset({S.DRAINING, S.STOPPING, S.GONE})
"""Serves no further call; its memory comes back."""


class IllegalTransition(Exception):
    """An instance was told to enter a state that its own does not lead to; nothing has changed."""


class Reason(StrEnum):
    """Why an instance was removed. Every removal has one; it is counted and shown."""

    IDLE = "idle"
    """Not called for its function's `keep_alive`."""
    EVICTED = "evicted"
    """Its memory was needed for another."""
    FAIR_SHARE = "fair-share"
    """Its function held more than its share of the memory budget while another had waited too long for some."""
    DEAD = "dead"
    """Its process ended by itself or was killed."""
    MAX_AGE = "max-age"
    MAX_INVOCATIONS = "max-invocations"
    REPLACED = "replaced"
    """Its function has a new version, or is no longer deployed."""
    SINGLE_USE = "single-use"
    """`reuse: false`, or a command: one call, one container."""
    TIMEOUT = "timeout"
    """A call ran past its function's `timeout` on it."""
    BROKEN = "broken"
    """It answered something that is no answer."""
    START_FAILED = "start-failed"
    SURPLUS = "surplus"
    """More prewarmed ones than are wanted."""
    REQUESTED = "requested"
    """Somebody asked for it over the API."""
    ORPHANED = "orphaned"
    """Left by an earlier gateway process with the same data folder, and not to be adopted."""
    SHUTDOWN = "shutdown"


def check(before: State, after: State) -> None:
    """Raise `IllegalTransition` unless the table allows to go from one state to the other."""
    if after not in TRANSITIONS[before]:
        raise IllegalTransition(f"{before} does not lead to {after}")


def diagram() -> str:
    """The table as a Mermaid state diagram: what docs/pool.md shows, printed by `python -m pool.states`."""
    lines = ["stateDiagram-v2", *(f"    [*] --> {state}" for state in FIRST)]
    lines += [
        f"    {before} --> {after}"
        for before in State
        for after in State  # not the set itself: its order is not the same in every process
        if after in TRANSITIONS[before]
    ]
    lines += [f"    {state} --> [*]" for state in State if not TRANSITIONS[state]]
    return "\n".join(lines)


if __name__ == "__main__":
    print(diagram())
