"""Carries out accepted calls: leases them from the store, has them run, records what came of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Protocol

from pool.backoff import Retries
from pool.clock import Clock, Timer
from pool.observe.metrics import Metrics, label_of
from pool.supervise import Supervisor
from scheduler.calls.model import Backlog, Claim, Ending, Result, Status
from scheduler.calls.policy import ending_of, has_expired
from scheduler.calls.running.attempt import CallAttempt
from scheduler.calls.running.fairness import Lane, in_hand, next_to_run, places, share
from scheduler.calls.running.lease_keeper import StoreSettings
from scheduler.calls.running.recorder import Follower, Recorder
from scheduler.calls.running.running import Runner, faulty
from scheduler.calls.store import MOST_BYTES, STORE_RETRY, CallStore, LeaseLost, StoreError
from scheduler.calls.waiters import Waiters
from scheduler.definitions.language.call_overrides import RetryPolicy
from scheduler.work import Work

log = logging.getLogger("hearth.durable")

MOST_AT_ONCE = 64
"""Accepted calls that run at once, of all functions."""
MOST_IN_HAND = 1024
"""Accepted calls that are leased at once. None is leased while their bodies are `MOST_BYTES` or more."""
LARGE_RESULT = 16 * 1024
"""Bytes of an answer and its log that are counted until they are recorded. No run begins while they are `MOST_BYTES`
or more together; smaller ones are 16 MiB at most, as there are `MOST_IN_HAND`."""
PRUNE_EVERY = 60.0
QUEUED = Status.QUEUED  # looked up once: a member of an enum is found by a call


class Plan(Protocol):
    """The part of a function's declaration that matters to its accepted calls."""

    @property
    def policy(self) -> RetryPolicy: ...
    @property
    def slots(self) -> int: ...
    @property
    def exec_seconds(self) -> float | None: ...


class Worker:
    """The runner of one gateway's accepted calls. `plan_of` returns the plan of a function, declared or not."""

    def __init__(
        self,
        store: CallStore,
        clock: Clock,
        metrics: Metrics,
        plan_of: Callable[[str], Plan],
        settings: StoreSettings,
    ) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._plan_of = plan_of
        self._retention = settings.retention
        self.leases = settings.leases
        self.leases.holders.append(lambda: self._held > 0)
        self.leases.on_lost.append(self._stop_lost)
        self._retries = Retries(STORE_RETRY)
        self.run: Runner | None = None
        """Set before `start`."""
        self.on_ended: dict[str, Callable[[str], None]] = {}
        """Functions that take an owner's id when one of its calls has ended, by kind of owner. Set before `start`."""
        self.recorder = Recorder(store, clock, self._recorded)
        self.followers: list[Follower] = self.recorder.followers
        """Say what is begun in the commit that records the end of a call. Set before `start`."""
        self.on_followed: list[Callable[[Sequence[Work]], None]] = []
        """Are given what followers have said when it is on disk. Set before `start`."""
        self._lanes: dict[str, Lane] = {}
        """The lane of each function that has leased calls, by name."""
        self._held = self._bytes = 0
        """Leased calls, and the bytes of their bodies."""
        self._large: dict[str, int] = {}
        """Bytes of large results that are not recorded yet, by call."""
        self._large_bytes = 0
        self._full = False
        """True if the last attempt to lease found no room."""
        self._attempts: dict[str, CallAttempt] = {}
        """Running attempts, by call."""
        self._nothing_runs = asyncio.Event()
        self._beginning = False
        self._waiters = Waiters(clock)
        self._wake = asyncio.Event()
        self._timer: Timer | None = None
        self._loops: list[asyncio.Task[None]] = []
        self._leasing: asyncio.Future[None] | None = None
        """The query for calls to lease that is under way."""
        self._stopping = False

    # -- its life -------------------------------------------------------------------------------------------

    def start(self, supervisor: Supervisor) -> None:
        """Begin to run calls, with those that an earlier process has left."""
        self._loops = [
            supervisor.supervise("calls", self._lease),
            supervisor.supervise("calls-pruning", self._prune),
        ]

    async def stop(self) -> None:
        """Lease nothing more, and give back what has not begun. What runs goes on."""
        self._stopping = True
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        if self._leasing is not None:  # the store does what it was asked for, though nobody waits
            await asyncio.wait((self._leasing,))
        if self._timer is not None:
            self._timer.cancel()
        unused = [claim.call.id for lane in self._lanes.values() for claim in lane.ready]
        for lane in self._lanes.values():
            lane.ready.clear()
        with suppress(StoreError):
            if unused:
                await self._store.hand_back(self.leases.owner, unused)

    async def close(self) -> None:
        """End what still runs: the next start runs it again."""
        await self.stop()
        for attempt in list(self._attempts.values()):
            if attempt.run is not None:
                attempt.run.interrupt()
        while self._attempts:
            self._nothing_runs.clear()
            await self._nothing_runs.wait()
        await self.recorder.close()

    def notify(self) -> None:
        """Look for calls soon: something in the store is new."""
        self._wake.set()

    def ended(self, owner: str) -> None:
        """Tell the owner of a call that it has ended."""
        kind, _, id = owner.partition(":")
        if (tell := self.on_ended.get(kind)) is not None:
            tell(id)

    # -- who waits for a call -------------------------------------------------------------------------------

    async def wait(self, id: str, seconds: float) -> None:
        """Return when a call has ended, or after so many seconds, or at once if too many wait already. To be called
        before anybody can run it."""
        if self._waiters.full:
            return
        with self._waiters.waiting(id, seconds) as ended:
            await ended

    @property
    def waiting(self) -> int:
        """Return how many wait for the end of a call."""
        return self._waiters.total

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """Return the lanes of the functions that have leased calls."""
        return tuple(self._lanes.values())

    @property
    def idle(self) -> bool:
        """Return whether it has no call, no body, no large result, no waiter and no end to record."""
        left = self._attempts or self._lanes or self._large or self._waiters or self.recorder.busy
        return not (left or self._held or self._bytes or self._large_bytes)

    async def cancel(self, id: str) -> bool:
        """Interrupt a call that is leased, and return when that is on disk. False: it is not leased (any more), or
        somebody else does it; what it was about to be when we came is on disk."""
        if self._leasing is not None:  # it may be among those
            await asyncio.wait((self._leasing,))
        for lane in self._lanes.values():
            for claim in lane.ready:
                if claim.call.id == id:
                    lane.ready.remove(claim)
                    with self._waiters.waiting(id) as recorded:
                        self.recorder.add(claim, Ending(id, Status.CANCELLED, claim.failures))
                        await recorded
                    return True
        attempt = self._attempts.get(id)
        with self._waiters.waiting(id) as recorded:
            if attempt is not None and attempt.run is not None:
                if first := not attempt.cancelled:
                    attempt.cancelled = True
                    attempt.run.interrupt()
                await recorded
                return first
            if self.recorder.cancel(id):
                await recorded
                return True
        await self.recorder.written(id)
        return False

    # -- leasing --------------------------------------------------------------------------------------------

    async def _lease(self) -> None:
        await self.leases.take_over()
        if self._store.exists:  # else looking for calls would make the file
            self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            room = MOST_IN_HAND - self._held
            if room <= 0 or self._bytes >= MOST_BYTES:
                self._full = True
                continue  # the next end of a run wakes us
            self._leasing = asyncio.ensure_future(self._take(room))
            await asyncio.shield(self._leasing)

    async def _take(self, room: int) -> None:
        """Lease as many calls as there is room for, and begin them."""
        now, owner = self._clock.wall(), self.leases.owner
        try:
            backlogs = await self._store.backlogs(now)
            wanted = self._wanted(backlogs, room)
            claims = await self._store.claim(owner, wanted, now) if wanted else ()
        except LeaseLost:
            self.leases.renew(owner)
            self._wake.set()
            return
        except StoreError:
            self._wake_in(self._retries.failed())
            return
        finally:
            self._leasing = None
        self._retries.succeeded()
        self._held += len(claims)
        self._bytes += sum([len(claim.call.body) for claim in claims])
        for name, some in groupby(claims, key=_function_of):
            self._fill(name, list(some))
        later = [backlog.next_due for backlog in backlogs.values() if backlog.next_due is not None]
        if later:
            self._wake_in(min(later) - self._clock.wall())
        self._begin()

    def _stop_lost(self) -> None:
        """End all that is leased: others run it. What it brings is refused."""
        for lane in list(self._lanes.values()):
            while lane.ready:
                self._let_go(lane.ready.popleft())
        attempts = list(self._attempts.values())
        self._attempts.clear()  # at once: a call may be leased again here before its lost attempt has ended
        for attempt in attempts:
            attempt.lost = True
            attempt.lane.running -= 1
            self._let_go(attempt.claim)
            self._waiters.tell(attempt.claim.call.id)
            if attempt.run is not None:
                attempt.run.interrupt()
        self._nothing_runs.set()

    def _wanted(self, backlogs: Mapping[str, Backlog], room: int) -> dict[str, int]:
        """Return how many calls of which function are leased next."""
        waiting = {name: backlog.due for name, backlog in backlogs.items()}
        held = {name: lane.held for name, lane in self._lanes.items()}
        return share(waiting, held, {name: self._most(name) for name in waiting}, room)

    def _fill(self, name: str, claims: Sequence[Claim]) -> None:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(name)
        lane.ready.extend(claims)
        lane.held += len(claims)
        lane.at_once = self._places(name)
        lane.few = (self._most(name) - lane.at_once) // 2

    def _places(self, function: str) -> int:
        plan = self._plan_of(function)
        return min(places(plan.slots, plan.exec_seconds), MOST_AT_ONCE // 2)

    def _most(self, function: str) -> int:
        return in_hand(self._places(function), self._plan_of(function).exec_seconds)

    def _wake_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_later(seconds, self._wake.set)

    def _begin(self, most: int = MOST_AT_ONCE) -> None:
        """Run what is leased, as far as there are places. `most`: how many of them have become free."""
        if self._beginning:  # a run that has ended before it was well begun: the loop below goes on
            return
        self._beginning = True
        most_running = min(MOST_AT_ONCE, len(self._attempts) + most)
        try:
            while len(self._attempts) < most_running and not self._stopping:
                if self._large_bytes > MOST_BYTES:
                    return  # what has ended waits for the store: it is in memory
                lane = next_to_run(self._lanes.values())
                if lane is None:
                    return
                self._begin_run(lane, lane.ready.popleft())
        finally:
            self._beginning = False

    # -- one call -------------------------------------------------------------------------------------------

    def _begin_run(self, lane: Lane, claim: Claim) -> None:
        call = claim.call
        id, policy = call.id, call.overrides.policy or self._plan_of(lane.function).policy
        if has_expired(policy, claim.since, self._clock.wall()):
            why = f"it was not done within {policy.max_event_age:g} s (max_event_age)"
            self.recorder.add(claim, Ending(id, Status.EXPIRED, claim.failures, error="expired", detail=why))
            return
        attempt = self._attempts[id] = CallAttempt(lane, claim, policy, self._run_ended)
        lane.running += 1
        assert self.run is not None
        try:
            attempt.run = self.run(claim, attempt.ended)
        except Exception as fault:  # it must not, and the others must run whatever it does
            attempt.ended(faulty(fault))

    def _run_ended(self, attempt: CallAttempt, result: Result | None) -> None:
        claim = attempt.claim
        id = claim.call.id
        useless = attempt.cancelled or attempt.lost
        if useless and result is not None and result.payload is not None:
            self._store.discard(result.payload.id)
        if self._attempts.get(id) is not attempt:  # told twice, or lost
            return
        del self._attempts[id]
        attempt.lane.running -= 1
        if attempt.cancelled:
            self.recorder.add(claim, Ending(id, Status.CANCELLED, claim.failures))
        elif result is not None:
            if (size := len(result.body) + len(result.log)) > LARGE_RESULT:
                self._large[id] = size
                self._large_bytes += size
            self.recorder.add(claim, ending_of(claim, attempt.policy, result, self._clock))
        else:  # the gateway closes, and its next start takes the lease over
            self._let_go(claim)
        if not self._attempts:
            self._nothing_runs.set()
        self._begin(1)

    def _recorded(self, runs: Sequence[tuple[Claim, Ending]], on_disk: bool) -> None:
        """Handle ends that were written, or that never can be."""
        for claim, ending in runs:
            try:
                self._let_go(claim)
                if not on_disk:
                    self._waiters.tell(ending.id)  # they look for themselves
                elif ending.status is QUEUED:
                    label = label_of(claim.call.function, claim.call.private)
                    self._metrics.async_retries.labels(label).value += 1
                else:
                    self._tell_end(claim, ending)
            except Exception:  # nobody told must raise, and the others are to be told whatever they do
                log.exception("%s: a listener failed when it was told of the end", claim.call.subject)
        for function in {claim.call.function for claim, _ in runs}:
            if (lane := self._lanes.get(function)) is not None:  # its calls may take another time now
                lane.at_once = self._places(function)
        self._begin()  # that may be more of them at once

    def _tell_end(self, claim: Claim, ending: Ending) -> None:
        label = label_of(claim.call.function, claim.call.private)
        self._metrics.async_ended.labels(label, ending.status).value += 1
        self._waiters.tell(ending.id)
        if ending.follow:
            for tell in self.on_followed:
                tell(ending.follow)
        if claim.call.owner:
            self.ended(claim.call.owner)

    def _let_go(self, claim: Claim) -> None:
        call = claim.call
        lane = self._lanes[call.function]
        self._held -= 1
        self._bytes -= len(call.body)
        if self._large:
            self._large_bytes -= self._large.pop(call.id, 0)
        lane.held -= 1
        if not lane.held:
            del self._lanes[call.function]
        if self._full or len(lane.ready) <= lane.few:
            self._full = False
            self._wake.set()

    # -- retention ------------------------------------------------------------------------------------------

    async def _prune(self) -> None:
        while True:
            await self._clock.sleep(PRUNE_EVERY)
            with suppress(StoreError):
                now = self._clock.wall()
                while self._store.exists and await self._store.prune(now - self._retention, now):
                    await self._clock.sleep(0)


def _function_of(claim: Claim) -> str:
    return claim.call.function
