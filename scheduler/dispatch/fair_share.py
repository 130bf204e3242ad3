"""Fair sharing of the memory budget between functions: pure functions of a snapshot.

There is no I/O and no clock, so property tests and a simulator run the code that decides in production. Memory is
the declared memory of instances, in bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto

CLAIM_AFTER_SECONDS = 0.25
"""Wait of a function before others give up memory for it. Most instances become idle sooner by themselves."""
TURN_AFTER_SECONDS = 2.0
"""Wait of a function without an instance before others give up their only one; long, so that this is rare."""
TURN_SECONDS = 5.0
"""Service of an instance before its function gives it up as its only one. Its start takes 0.2 to 1 s."""
STAY_SECONDS = 2.0
"""Time after its last use in which an idle instance is safe from a function that holds more than its owner."""
MAX_CLAIMERS = 8
"""Functions that get memory by one plan. It bounds the cost of a plan, and few instances can start at once."""


@dataclass(frozen=True, slots=True)
class Holding:
    """An instance in use that its function can give up."""

    id: str
    memory: int
    calls: int
    """Calls in flight; 0 while it is starting."""
    served: float
    """Seconds since it became ready; 0 while it is starting."""
    at_once: bool
    """True to drain it now: it is starting, or it serves several calls and may never be idle. Otherwise the function
    gives up the instance on which a call ends next."""


@dataclass(frozen=True, slots=True)
class Unused:
    """An instance that may be evicted: idle beyond its function's `min_instances`, or generic (`function` None)."""

    function: str | None
    memory: int
    seconds: float
    """Seconds since its last use."""


@dataclass(frozen=True, slots=True)
class Party:
    """A function that holds or wants memory."""

    name: str
    instance: int
    """Memory of one more instance."""
    held: int
    """Memory of its instances, without those that are being drained or removed, or idle for `STAY_SECONDS`."""
    promised: int = 0
    """Memory of its `min_instances`; it gives up nothing of that."""
    wanted: int = 0
    """Further memory that it would take now."""
    waited: float = 0.0
    """Seconds since its first waiter came, or since it last got or gave up memory if that was later."""
    may_claim: bool = False
    """True if it could start an instance now if it had the memory."""
    weight: float = 1.0
    """Its share relative to the others' shares. All are 1 until there are tenants."""
    holdings: Sequence[Holding] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The memory budget at one moment."""

    budget: int
    free: int
    coming: int
    """Memory that will become free for sure: instances being drained or removed, or serving their only call."""
    unused: Sequence[Unused]
    parties: Sequence[Party]


@dataclass(frozen=True, slots=True)
class ReclaimPlan:
    """The memory to give up now and soon, and the functions that get it."""

    claimers: Sequence[str] = ()
    """Functions that get memory before all others, in this order."""
    drained: Sequence[str] = ()
    """Instances to drain now."""
    owed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By function: instances, one of which is drained when a call on it ends. Then a new plan is made."""


def shares(budget: int, parties: Iterable[Party]) -> dict[str, float]:
    """Return each function's share of the budget in bytes: max-min fair by weight.

    A share is at least the promised memory, and at most the held and wanted memory together. The others share the
    memory that a function leaves.
    """
    everyone = list(parties)
    steps = []  # a share begins to grow at the promised level, and stops when its function wants no more
    for party in everyone:
        most = max(party.promised, party.held + party.wanted)
        steps.append((party.promised / party.weight, party.weight))
        steps.append((most / party.weight, -party.weight))
    given, level, slope = float(sum(party.promised for party in everyone)), 0.0, 0.0
    for at, change in sorted(steps):
        if given + slope * (at - level) >= budget:
            break
        given += slope * (at - level)
        level, slope = at, slope + change
    if slope > 0:
        level += max(0.0, budget - given) / slope
    return {
        party.name: min(
            max(party.promised, level * party.weight), max(party.promised, party.held + party.wanted)
        )
        for party in everyone
    }


def may_evict(idle_seconds: float, owner_holds: int, taker_holds: int, needed: int) -> bool:
    """Return whether an idle instance may be evicted for a function that needs so much memory.

    An instance that was just used stays, if the taker holds memory and would then hold more than the owner does now.
    Otherwise a flooded function would take the instance of a rarely called one after each of its calls.
    """
    return idle_seconds >= STAY_SECONDS or not taker_holds or taker_holds + needed <= owner_holds


def claimers(snapshot: Snapshot, share: Mapping[str, float]) -> list[Party]:
    """Return the functions that get memory before all others, the longest waiting first.

    A function may claim if it holds nothing, or asks within its share. The promised memory that others hold must
    leave it enough.
    """
    kept = {party.name: min(party.promised, party.held) for party in snapshot.parties}
    most = snapshot.budget - sum(kept.values())
    return sorted(
        (
            party
            for party in snapshot.parties
            if party.may_claim
            and party.waited >= CLAIM_AFTER_SECONDS
            and (not party.held or within(party, share))
            and party.held + party.instance <= most + kept[party.name]
        ),
        key=lambda party: (-party.waited, party.name),
    )


def within(party: Party, share: Mapping[str, float]) -> bool:
    """Return whether a function asks within its share."""
    return party.held + party.instance <= share[party.name]


def plan(snapshot: Snapshot) -> ReclaimPlan:
    """Return the instances to give up so that the first claimers get memory for one instance each.

    Free and coming memory is used first, then evictable instances. A claimer whose turn will come holds back all
    claimers behind it once it has waited for `TURN_SECONDS`; before that, only those that exceed their share. A
    claimer that all memory together cannot satisfy holds back nobody and takes nothing.
    """
    share = shares(snapshot.budget, snapshot.parties)
    dealer = _MemoryDealer(snapshot, share)
    line: list[str] = []
    later: list[str] = []
    for claimer in claimers(snapshot, share):
        if len(line) == MAX_CLAIMERS:
            break
        if later and not within(claimer, share):
            continue
        outlook = dealer.serve(claimer)
        if outlook is _Outlook.NOW:
            line.append(claimer.name)
        elif outlook is _Outlook.LATER:
            later.append(claimer.name)
            if claimer.waited >= TURN_SECONDS:
                break
    return ReclaimPlan(
        [*line, *later], dealer.drained, {name: frozenset(ids) for name, ids in dealer.owed.items()}
    )


class _Outlook(Enum):
    """The prospect of a claim."""

    NOW = auto()
    LATER = auto()
    """It gets memory when it has waited longer, or others have had their turn."""
    NEVER = auto()
    """All memory together is not enough for it, unless something changes."""


class _MemoryDealer:
    """The state of the memory while it is dealt to one claimer after the other."""

    def __init__(self, snapshot: Snapshot, share: Mapping[str, float]) -> None:
        self.drained: list[str] = []
        self.owed: dict[str, set[str]] = {}
        self._budget = snapshot.budget
        self._parties = snapshot.parties
        self._share = share
        self._room = snapshot.free + snapshot.coming
        self._unused = list(snapshot.unused)
        self._held = {party.name: party.held for party in snapshot.parties}
        self._givers = {
            party.name: _Giver(party, share[party.name], list(party.holdings))
            for party in snapshot.parties
            if party.holdings
        }

    def serve(self, claimer: Party) -> _Outlook:
        """Find memory for one instance of a claimer. Changes nothing if that is not possible now."""
        lacking = claimer.instance - self._room
        evicted = self._choose_unused(claimer, lacking)
        lacking -= sum(one.memory for one in evicted)
        claim = self._claim_of(claimer, turn=claimer.waited >= TURN_AFTER_SECONDS)
        taken = self._choose_in_use(claim, lacking)
        if taken is None:
            in_time = replace(self._claim_of(claimer, turn=True), served=0.0)
            return _Outlook.NEVER if self._choose_in_use(in_time, lacking) is None else _Outlook.LATER
        for one in evicted:
            self._unused.remove(one)
            if one.function is not None and one.seconds < STAY_SECONDS:
                self._held[one.function] -= one.memory
        self._note(claim, taken)
        lacking -= sum(holding.memory for _, holding in taken)
        self._held[claimer.name] += claimer.instance
        self._room = -lacking
        return _Outlook.NOW

    def _claim_of(self, claimer: Party, turn: bool) -> _Claim:
        """Return the rights of a claimer. In its turn, the others share the memory that its one instance leaves."""
        left = self._share
        if turn and not claimer.held and claimer.instance > self._share[claimer.name]:
            in_turn = replace(claimer, promised=claimer.instance)
            left = shares(self._budget, [in_turn if p is claimer else p for p in self._parties])
        return _Claim(claimer, self._held[claimer.name], turn, TURN_SECONDS, left)

    def _note(self, claim: _Claim, taken: Sequence[tuple[str, Holding]]) -> None:
        """Record the instances to give up. If calls must end first, any instance of the function will do."""
        anybody = claim.by.waited >= 2 * CLAIM_AFTER_SECONDS
        for name, holding in taken:
            if holding.at_once:
                self.drained.append(holding.id)
                continue
            for other in self._givers if anybody else (name,):
                ids = {one.id for one in self._givable(claim, other, self._held[other]) if not one.at_once}
                if ids:
                    self.owed.setdefault(other, set()).update(ids)
        for name, holding in taken:
            self._givers[name].holdings.remove(holding)
            self._held[name] -= holding.memory

    def _choose_unused(self, claimer: Party, lacking: int) -> list[Unused]:
        chosen: list[Unused] = []
        for one in self._unused:
            if lacking <= 0:
                break
            mine, theirs = self._held[claimer.name], self._held.get(one.function or "", 0)
            if one.function is None or may_evict(one.seconds, theirs, mine, claimer.instance):
                chosen.append(one)
                lacking -= one.memory
        return chosen

    def _choose_in_use(self, claim: _Claim, lacking: int) -> list[tuple[str, Holding]] | None:
        """Return instances of so much memory, each from the largest holder at that moment, or None if all instances
        are not enough."""
        held, chosen = dict(self._held), list[tuple[str, Holding]]()
        gone: set[str] = set()
        while lacking > 0:
            givable = {
                name: left
                for name in self._givers
                if (left := [h for h in self._givable(claim, name, held[name]) if h.id not in gone])
            }
            if not givable:
                return None
            name = max(givable, key=lambda name: (held[name] / self._givers[name].party.weight, name))
            holding = min(givable[name], key=_loss)
            chosen.append((name, holding))
            gone.add(holding.id)
            held[name] -= holding.memory
            lacking -= holding.memory
        for one in list(chosen):  # a large one may make smaller ones unnecessary
            if one[1].memory <= -lacking:
                chosen.remove(one)
                lacking += one[1].memory
        return chosen

    def _givable(self, claim: _Claim, name: str, held: int) -> list[Holding]:
        """Return the instances that a function with `held` bytes can give up; it keeps its promised memory.

        It must hold more than its share, and afterwards still as much as the claimer. In its turn, a claimer without
        an instance also gets instances that have served long enough.
        """
        giver, claimer = self._givers[name], claim.by
        if giver.party is claimer:
            return []
        least = giver.party.promised
        level = max(least, (claim.holds + claimer.instance) / claimer.weight * giver.party.weight)
        may = held > giver.share
        may_in_turn = claim.turn and not claim.holds and held > claim.left[name]
        return [
            holding
            for holding in giver.holdings
            if (may and held - holding.memory >= level)
            or (may_in_turn and held - holding.memory >= least and holding.served >= claim.served)
        ]


@dataclass(frozen=True, slots=True)
class _Giver:
    """A function that has instances to give up."""

    party: Party
    share: float
    holdings: list[Holding]
    """Instances that it has not given up yet."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """The rights of one claimer."""

    by: Party
    holds: int
    turn: bool
    """True once it has waited long enough for its turn."""
    served: float
    """Seconds that an instance must have served before a turn takes it."""
    left: Mapping[str, float]
    """Shares of the others during its turn."""


def _loss(holding: Holding) -> tuple[bool, int, float]:
    """Return a sort key for giving up: starting instances first, then the fewest calls, then the youngest."""
    return (holding.calls > 0, holding.calls, holding.served)
