"""Function in service and its revisions, with their queues and measurements."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pool.clock import Timer
from pool.engine.base import ContainerSpec
from pool.errors import FunctionBroken, PoolError
from pool.instance import Instance
from pool.lease import Lease
from pool.ledger import Ledger
from pool.states import LIVE, PENDING, UNUSED
from pool.workload import Workload
from scheduler.definitions.input_check import InputCheck

FIRST_START_GUESS = 0.3
FIRST_SPECIALISE_GUESS = 0.02
"""Seconds that a start is expected to take until one was measured."""
DEFAULT_MAX_INSTANCES = 16
"""Instances of a function that says nothing of it: docs/functions-yaml.md."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a revision's calls. Times in seconds, sizes in bytes."""

    timeout: float = 30.0
    queue_timeout: float = 10.0
    queue_size: int = 1000
    max_body: int = 6 * 2**20
    max_response: int = 64 * 2**20
    web: bool = False
    content_type: str | None = None
    check: InputCheck | None = None
    """Check of each input; None if it is not checked."""


@dataclass(frozen=True, slots=True)
class Prewarm:
    """A prewarm pool: how many generic instances of which container are kept ready."""

    prototype: ContainerSpec
    count: int


Settle = Callable[[Lease | None, Exception | None], None]
"""Takes the outcome of a wait: a lease, or the reason why there is none."""


@dataclass(slots=True, eq=False)
class Waiter:
    """An invocation that waits for a slot. `arrived` and `deadline` in seconds of the clock."""

    invocation: str
    arrived: float
    deadline: float
    settle: Settle
    """Called once, in the middle of the pass: it may end the lease, but not await."""
    revision: Revision
    """The revision whose queue it is in. A replaced revision leaves its queue to the next."""
    left: bool = False
    """True if it has its slot, was refused or gave up."""


NO_QUEUE: deque[Waiter] = deque(maxlen=0)
"""Queue of every revision without waiting calls; always empty. An own deque would take 700 bytes for each."""


class Function:
    """A function in service, with the facts that all its revisions share."""

    __slots__ = ("calls", "max_instances", "memory_since", "name", "private", "revisions", "tenant")

    def __init__(self, workload: Workload, max_instances: int = DEFAULT_MAX_INSTANCES) -> None:
        self.name = workload.function
        self.tenant = workload.tenant
        self.private = workload.private
        """It belongs to one job, whose accepted calls alone reach it."""
        self.max_instances = max_instances
        """Instances that all its revisions may have together."""
        self.revisions: dict[str, Revision] = {}
        """By version: those that its route leads to, and one that is being tried out."""
        self.calls = 0
        """Calls that were served since it last had no instance at all."""
        self.memory_since = float("-inf")
        """When it last got memory for an instance, or gave some up for others: its wait for more begins then."""

    @property
    def waiting(self) -> int:
        """Calls that wait for a slot of any revision."""
        return sum(revision.waiting for revision in self.revisions.values())

    def revision_of(self, instance: Instance) -> Revision | None:
        """Return the revision of an instance, or None if it is not in service any more."""
        return self.revisions.get(instance.workload.version) if instance.workload is not None else None

    def has_trial(self) -> bool:
        """Return whether a revision of it is being tried out."""
        return any(revision.trial for revision in self.revisions.values())

    def first_in_need(self) -> Revision:
        """Return the revision with the longest waiting call, or the one in service if none waits."""
        return min(self.revisions.values(), key=Revision.waits_since)

    def __repr__(self) -> str:
        return f"<Function {self.name} {list(self.revisions.values())}>"


class Revision:
    """One immutable state of a function, with its queue and what was measured of it."""

    __slots__ = (
        "blocked",
        "enough_for",
        "exec_seconds",
        "expiry",
        "failures",
        "fast_path",
        "function",
        "last_fault",
        "limits",
        "look_again",
        "name",
        "not_before",
        "printed",
        "queue",
        "retired",
        "single_use",
        "specialise_seconds",
        "start_seconds",
        "stuck",
        "trial",
        "version",
        "waiting",
        "workload",
    )

    def __init__(
        self, function: Function, workload: Workload, limits: Limits, before: Revision | None = None
    ) -> None:
        """Its starts are expected to take what those of `before` took, until one was measured."""
        self.function = function
        self.name = function.name
        self.version = workload.version
        self.single_use = workload.single_use
        self._go_by(workload, limits)
        self.retired = False
        """Another revision has taken its place, or the function is gone."""
        self.trial = False
        """It is being tried out: no call goes to it yet."""
        self.queue = NO_QUEUE
        self.waiting = 0
        """Waiters in the queue that still want a slot. The others are skipped when their turn comes."""
        self.exec_seconds: float | None = None
        self.start_seconds: float = before.start_seconds if before else FIRST_START_GUESS
        self.specialise_seconds: float = before.specialise_seconds if before else FIRST_SPECIALISE_GUESS
        self.look_again: Timer | None = None
        self.expiry: Timer | None = None
        """Due at the first waiter's deadline, or before."""
        self.stuck = False
        """Its queue was just found not to move."""
        self.enough_for = 0
        """Up to how many waiters it was decided lately that nothing (more) needs to be started."""
        self.not_before = 0.0
        """Time before which starts are expected to fail, since the last one did."""
        self.blocked: str | None = None
        """Why no call starts an instance before `not_before`: the platform failed to. None: a call may try."""
        self.failures = 0
        """Starts that failed one after the other."""
        self.last_fault: str | None = None
        self.printed = ""
        """The latest lines that the instance had printed whose start failed last."""

    def renew(self, workload: Workload, limits: Limits) -> None:
        """Go by what is said of it now, where that makes no new revision; its starts may work again."""
        self._go_by(workload, limits)
        self.starts_work()

    def _go_by(self, workload: Workload, limits: Limits) -> None:
        self.workload, self.limits = workload, limits
        self.fast_path = workload.contract.fast_path and limits.check is None
        """Its calls may take the fast path of the gateway."""

    def instances(self, ledger: Ledger) -> list[Instance]:
        """Return its instances, in every state."""
        version = self.version
        return [i for i in ledger.of(self.name) if i.workload and i.workload.version == version]

    def room(self, ledger: Ledger) -> int:
        """Return how many instances it may have on top of all of its function that count now.

        One place is kept for a revision that is being tried out and has none.
        """
        others = (other for other in self.function.revisions.values() if other is not self)
        kept = sum(other.wants_a_place(ledger) for other in others)
        return self.function.max_instances - ledger.count(self.name) - kept

    def wants_a_place(self, ledger: Ledger) -> bool:
        """Return whether it is being tried out and has no instance yet."""
        return self.trial and self.waiting > 0 and not self.instances(ledger)

    def first_waiter(self) -> Waiter | None:
        """Return the longest waiting call that still wants a slot, or None if there is none."""
        queue = self.queue
        while queue and queue[0].left:
            queue.popleft()
        return queue[0] if queue else None

    def waits_since(self) -> float:
        """Return since when it has waited for an instance: not since a time before it got or gave up the latest."""
        first = self.first_waiter()
        return max(first.arrived, self.function.memory_since) if first else float("inf")

    def note_failure(self, error: PoolError) -> None:
        """Keep the reason why a start has failed."""
        self.failures += 1
        self.last_fault, self.printed, self.blocked = str(error), "", str(error)
        if isinstance(error, FunctionBroken):
            self.printed, self.blocked = error.printed, None

    def starts_work(self) -> None:
        """Forget the failures: an instance has started, or it is worth another try."""
        self.failures, self.not_before, self.last_fault, self.blocked = 0, 0.0, None, None
        self.printed = ""

    def take_queue_of(self, before: Revision) -> None:
        """Take over the waiting calls of another revision, and retire it."""
        for waiter in before.queue:
            waiter.revision = self
        if before.waiting:
            self.queue = deque([*self.queue, *before.queue])
            self.waiting += before.waiting
        before.retire()

    def add(self, waiter: Waiter) -> None:
        """Put a waiter at the end of the queue."""
        if not self.waiting:
            self.queue = deque()
        self.queue.append(waiter)
        self.waiting += 1

    def remove(self, waiter: Waiter) -> None:
        """Note that a waiter is in the queue no more, which skips it when its turn comes."""
        waiter.left = True
        self.waiting -= 1
        if not self.waiting:
            self.queue = NO_QUEUE
            if self.expiry is not None:
                self.expiry.cancel()
                self.expiry = None

    def retire(self) -> None:
        """Give up the queue and its timers."""
        self.retired = True
        for timer in (self.expiry, self.look_again):
            if timer is not None:
                timer.cancel()
        self.expiry = self.look_again = None
        self.queue, self.waiting = NO_QUEUE, 0

    def __repr__(self) -> str:
        measured = "unmeasured" if self.exec_seconds is None else f"{self.exec_seconds * 1000:.2f} ms"
        return f"<Revision {self.name} {self.version[:12]} {self.waiting} waiting, {measured}>"


def provisioned(revision: Revision, ledger: Ledger) -> int:
    """Return how many instances count towards `min_instances`; single-use ones count until they are used."""
    states = PENDING | (UNUSED if revision.single_use else LIVE)
    return sum(1 for instance in revision.instances(ledger) if instance.state in states)


def seconds_to_start(revision: Revision, prewarm: Mapping[str, Prewarm]) -> float:
    """Return the seconds until a revision without an instance would have one: specialised if there is a pool."""
    workload = revision.workload
    specialised = workload.generic and workload.container.image in prewarm
    return revision.specialise_seconds if specialised else revision.start_seconds
