"""The latest calls of a gateway, in bounded memory. A call costs one tuple; whoever asks pays for the rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from gateway.access.access import Admission
from gateway.http.visible import shortened, visible
from gateway.invoke.invocation import Invocation
from pool.clock import Clock
from pool.observe.metrics import label_of
from pool.workload import is_private

MOST_SERVED = 10_000
"""Calls that went well and are kept: one to two seconds of the highest load, days of a developer's."""
MOST_FAILED = 2_000
"""Failed calls that are kept, apart from the others, so that a flood of good calls pushes none out."""
LONGEST_DETAIL = 1_000
"""Characters of a failure's detail that are kept, visible ones: a function may write it, even what is no text."""
CLOCK_STEP_SECONDS = 1.0
"""Change of the wall clock against ours that counts as a step: it was set, or the machine slept."""

MOST_CLOCK_STEPS = 64
"""Steps of the wall clock that are remembered: more than one a day until the calls of then are forgotten."""

ServedFacts = tuple[str, str, str, float, str, float, float, float, Admission, int, float | None]
"""The fields of a `CallFacts`. Making the named tuple itself would cost each call a function call."""


class CallFacts(NamedTuple):
    """The facts of one call that has ended, or that runs. Times in seconds."""

    id: str
    function: str
    """Empty if there is no such function."""
    revision: str
    """Digest of its revision, or empty if it reached none."""
    arrived: float
    """Moment of the gateway's clock."""
    start: str
    """`warm`, or a `StartKind`; empty if it got no instance."""
    queue_seconds: float
    start_seconds: float
    exec_seconds: float
    admission: Admission
    status: int
    """HTTP status of the answer, or 0 if nobody got one."""
    total_seconds: float | None = None
    """None if the phases are all of its time."""


class Failure(NamedTuple):
    """The end of a call that failed."""

    outcome: str
    """Slug of a problem, `function-error`, `client-gone` or `cancelled`."""
    blame: str
    detail: str = ""


class SeenCall(NamedTuple):
    """One call as the record has it. `failure` is None if it went well, or still runs."""

    facts: CallFacts
    failure: Failure | None = None
    running: bool = False


class _Kept(NamedTuple):
    number: int
    call: SeenCall


class FastCaller(Protocol):
    """A connection of a client, or a runner of accepted calls, that makes one fast call at a time."""

    @property
    def running(self) -> Invocation | None:
        """Return the call that it makes now on the fast path, or None if it makes none there."""


class FailedCalls:
    """The latest failed calls, with fair shares: the function with the most of them loses its oldest."""

    def __init__(self, most: int = MOST_FAILED) -> None:
        self._most = most
        self._of: dict[str, deque[_Kept]] = {}
        self._count = 0
        self.number = 0
        """Number of the latest failed call. They count from 1."""

    def __len__(self) -> int:
        return self._count

    def add(self, label: str, call: SeenCall) -> None:
        """Keep a call of the function with this label."""
        self.number += 1
        mine = self._of.get(label)
        if mine is None:
            mine = self._of[label] = deque()
        mine.append(_Kept(self.number, call))
        self._count += 1
        if self._count > self._most:
            # The largest is looked for among all only while the function is within its share.
            largest = label if len(mine) * len(self._of) > self._most else max(self._of, key=self._size)
            self._of[largest].popleft()
            self._count -= 1
            if not self._of[largest]:
                del self._of[largest]

    def _size(self, label: str) -> int:
        return len(self._of[label])

    def calls(self) -> list[SeenCall]:
        """Return all calls, in no order."""
        return [one.call for kept in self._of.values() for one in kept]

    def after(self, number: int) -> list[SeenCall]:
        """Return the calls with a higher number, oldest first."""
        found: list[_Kept] = []
        for kept in self._of.values():
            for one in reversed(kept):
                if one.number <= number:
                    break
                found.append(one)
        return [one.call for one in sorted(found, key=lambda one: one.number)]


class RecentCalls:
    """The record of one gateway: calls that run, the latest that went well, and the latest that failed."""

    def __init__(
        self, clock: Clock, most_served: int = MOST_SERVED, failed: FailedCalls | None = None
    ) -> None:
        self.clock = clock
        self.wall_times = WallTimes(clock)
        self.followers = 0
        """Followers that are given calls now."""
        self.running: dict[str, Invocation] = {}
        """Calls on the long way, by id."""
        self.callers: set[FastCaller] = set()
        """Clients and runners that may make a call on the fast path now."""
        self.failed = failed if failed is not None else FailedCalls()
        self._served: deque[ServedFacts] = deque(maxlen=most_served)
        self.keep_served = self._served.append
        """Keep a call that went well. This is all that a warm call does for the record."""

    def keep_failed(self, facts: CallFacts, failure: Failure) -> None:
        """Keep a call that failed."""
        self.wall_times.look()
        detail = shortened(visible(shortened(failure.detail, LONGEST_DETAIL)), LONGEST_DETAIL)
        kept = failure._replace(detail=detail)
        self.failed.add(label_of(facts.function, is_private(facts.function)), SeenCall(facts, kept))

    def runs_no_more(self, call: Invocation) -> None:
        """Forget that a call runs. A later run of the same accepted call may have begun, which is still known."""
        if self.running.get(call.id) is call:
            del self.running[call.id]

    def calls(self, prefix: str = "") -> Iterator[SeenCall]:
        """Yield every call of the record whose id begins so, in no order. The record may change meanwhile."""
        self.wall_times.look()
        kept = list(self._served)
        for call in (*self._running(), *self.failed.calls()):
            if call.facts.id.startswith(prefix):
                yield call
        for facts in kept:
            if facts[0].startswith(prefix):
                yield SeenCall(CallFacts._make(facts))

    def _running(self) -> Iterator[SeenCall]:
        fast = [call for caller in list(self.callers) if (call := caller.running) is not None]
        for call in (*fast, *self.running.values()):
            yield SeenCall(facts_of(call), running=True)

    def find(self, id: str) -> SeenCall | None:
        """Return the latest run of a call, or None if it is not known."""
        runs = [call for call in self.calls(id) if call.facts.id == id]
        return max(runs, key=lambda call: call.facts.arrived, default=None)

    def ids(self) -> Iterator[str]:
        """Yield the ids of all calls of the record, in no order; one with several runs more than once."""
        yield from (call.facts.id for call in (*self._running(), *self.failed.calls()))
        yield from (facts[0] for facts in list(self._served))

    def knows(self, id: str) -> bool:
        """Return whether a call of this id runs, or is among the latest."""
        return id in self.ids()

    @property
    def latest_served(self) -> ServedFacts | None:
        """Return the latest call that went well, or None if there was none."""
        return self._served[-1] if self._served else None

    def served_after(self, facts: ServedFacts | None) -> list[SeenCall]:
        """Return the calls that went well after this one, oldest first; all that are kept if it is forgotten."""
        found = []
        for one in reversed(self._served):
            if one is facts:
                break
            found.append(SeenCall(CallFacts._make(one)))
        return found[::-1]


class Follower:
    """Someone who follows a record and is given each call once, after it has ended. The record counts its block."""

    def __init__(self, record: RecentCalls) -> None:
        self._record = record
        self._served = record.latest_served
        self._failed = record.failed.number

    def __enter__(self) -> Follower:
        self._record.followers += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._record.followers -= 1

    def take(self) -> list[SeenCall]:
        """Return the calls that have ended since the last time. What is forgotten meanwhile is left out."""
        record = self._record
        found = record.served_after(self._served) + record.failed.after(self._failed)
        self._served, self._failed = record.latest_served, record.failed.number
        return sorted(found, key=lambda call: call.facts.arrived)


def facts_of(call: Invocation, status: int = 0, total_seconds: float | None = None) -> CallFacts:
    """Return the facts of a call as far as they are known."""
    revision = call.revision
    return CallFacts(
        call.id,
        call.name,
        revision.version if revision is not None else "",
        call.arrived,
        call.kind,
        call.queue_seconds,
        call.start_seconds,
        call.exec_seconds,
        call.admission,
        status,
        total_seconds,
    )


class WallTimes:
    """Turns moments of a gateway's clock into wall time, also of before the wall clock was set anew."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._steps: deque[tuple[float, float]] = deque([(0.0, self._offset())], maxlen=MOST_CLOCK_STEPS)
        """Each the moment at which a step was seen, and the difference of the clocks from then on."""

    def _offset(self) -> float:
        return self._clock.wall() - self._clock.now()

    def look(self) -> None:
        """Note a step of the wall clock."""
        offset = self._offset()
        if abs(offset - self._steps[-1][1]) > CLOCK_STEP_SECONDS:
            self._steps.append((self._clock.now(), offset))

    def wall(self, moment: float) -> float:
        """Return seconds since 1970 of a moment of the clock."""
        later = (offset for since, offset in reversed(self._steps) if since <= moment)
        return moment + next(later, self._steps[0][1])
