"""Who gives up memory for whom while the budget is in use: pure functions of a snapshot.

No I/O and no clock: a property test and a simulator run the very code that decides. All memory is what instances
declare, in bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto

MEMORY_PATIENCE_SECONDS = 0.25
"""How long a function waits for memory before others give some up: idle moments come by themselves meanwhile."""
TURN_PATIENCE_SECONDS = 2.0
"""How long a function without an instance waits before others give up their only one: so that is rare."""
TURN_SECONDS = 5.0
"""How long an instance serves before its function gives it up as its only one. Its start takes 0.2 to 1 s."""
STAY_SECONDS = 2.0
"""How long after its last use an idle instance is kept from a function that would then hold more than its own."""


MOST_CLAIMERS = 8
"""For how many functions memory is given up at a time: it bounds what a look costs, and few can start at once."""


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
    """Whether to drain it now: it is starting, or it serves several calls and may never be idle. Else it goes at the
    next end of a call, whichever instance of its function that call ran on."""


@dataclass(frozen=True, slots=True)
class Unused:
    """An instance that may be evicted: idle beyond its function's `min_instances`, or generic (`function` None)."""

    function: str | None
    memory: int
    seconds: float
    """Since its last use."""


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
    """Memory that it would take on top now."""
    waited: float = 0.0
    """Seconds since its first waiter came, or since it last got or gave up memory if that is later."""
    may_claim: bool = False
    """Whether it could start an instance now if it had the memory."""
    weight: float = 1.0
    """Its share as against the shares of others. All are 1 until there are tenants."""
    holdings: Sequence[Holding] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The memory budget at one moment."""

    budget: int
    free: int
    coming: int
    """Memory that is sure to become free: of instances that are drained or removed, or serve their only call."""
    unused: Sequence[Unused]
    parties: Sequence[Party]


@dataclass(frozen=True, slots=True)
class ReclaimPlan:
    """What is to be given up."""

    claimers: Sequence[str] = ()
    """Functions that are to get memory before all others, in this order."""
    drained: Sequence[str] = ()
    """Instances to drain now."""
    owed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By function: instances of which one is to be drained when a call on it ends. Then the plan is made again."""


def shares(budget: int, parties: Iterable[Party]) -> dict[str, float]:
    """Return each function's share of the budget in bytes: max-min fair by weight.

    Nobody has less than it was promised, or more than it holds and wants together. What one leaves, the others share.
    """
    everyone = list(parties)
    steps = []  # as the level rises, a share grows from what was promised until its function wants no more
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
    """Return whether an idle instance goes for a function that needs so much memory.

    One that was just used stays, if the taker holds something and would then hold more than the owner does now.
    Else a flooded function would take the instance of a rarely called one after each of its calls.
    """
    return idle_seconds >= STAY_SECONDS or not taker_holds or taker_holds + needed <= owner_holds


def claimers(snapshot: Snapshot, share: Mapping[str, float]) -> list[Party]:
    """Return the functions that are to get memory before all others, who has waited longest first.

    A function may claim if it holds nothing, or asks within its share. What others hold of what they were promised
    must leave it enough.
    """
    kept = {party.name: min(party.promised, party.held) for party in snapshot.parties}
    most = snapshot.budget - sum(kept.values())
    return sorted(
        (
            party
            for party in snapshot.parties
            if party.may_claim
            and party.waited >= MEMORY_PATIENCE_SECONDS
            and (not party.held or within(party, share))
            and party.held + party.instance <= most + kept[party.name]
        ),
        key=lambda party: (-party.waited, party.name),
    )


def within(party: Party, share: Mapping[str, float]) -> bool:
    """Return whether a function asks within its share."""
    return party.held + party.instance <= share[party.name]


def plan(snapshot: Snapshot) -> ReclaimPlan:
    """Return what has to be given up so that the first claimers get memory for one instance each.

    Memory that is free or coming counts first, then what can be evicted. A claimer whose turn will come holds back
    those behind it; until it has waited for `TURN_SECONDS`, only those that ask for more than their share as well.
    One for whom all together is not enough holds back nobody, and nothing is given up for it.
    """
    share = shares(snapshot.budget, snapshot.parties)
    exchange = _EvictionPlan(snapshot, share)
    line: list[str] = []
    later: list[str] = []
    for claimer in claimers(snapshot, share):
        if len(line) == MOST_CLAIMERS:
            break
        if later and not within(claimer, share):
            continue
        outlook = exchange.serve(claimer)
        if outlook is _Outlook.NOW:
            line.append(claimer.name)
        elif outlook is _Outlook.LATER:
            later.append(claimer.name)
            if claimer.waited >= TURN_SECONDS:
                break
    return ReclaimPlan(
        [*line, *later], exchange.drained, {name: frozenset(ids) for name, ids in exchange.owed.items()}
    )


class _Outlook(Enum):
    """What becomes of a claim."""

    NOW = auto()
    LATER = auto()
    """Enough will be given up when it has waited longer, or others have had their turn."""
    NEVER = auto()
    """As things are."""


class _EvictionPlan:
    """The memory while it is dealt out to one claimer after the other."""

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
        """Find the memory of one instance for a claimer. Changes nothing where that is not possible now."""
        lacking = claimer.instance - self._room
        evicted = self._choose_unused(claimer, lacking)
        lacking -= sum(one.memory for one in evicted)
        claim = self._claim_of(claimer, turn=claimer.waited >= TURN_PATIENCE_SECONDS)
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
        """Return what a claimer may ask for. In its turn the others have what its one instance leaves them."""
        left = self._share
        if turn and not claimer.held and claimer.instance > self._share[claimer.name]:
            in_turn = replace(claimer, promised=claimer.instance)
            left = shares(self._budget, [in_turn if p is claimer else p for p in self._parties])
        return _Claim(claimer, self._held[claimer.name], turn, TURN_SECONDS, left)

    def _note(self, claim: _Claim, taken: Sequence[tuple[str, Holding]]) -> None:
        """Record who gives up what. Where calls have to end first, any of a function's instances will do."""
        anybody = claim.by.waited >= 2 * MEMORY_PATIENCE_SECONDS
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
        """Choose instances of so much memory, each of the largest holder then; None if all are not enough."""
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
        for one in list(chosen):  # a large one may have made smaller ones needless
            if one[1].memory <= -lacking:
                chosen.remove(one)
                lacking += one[1].memory
        return chosen

    def _givable(self, claim: _Claim, name: str, held: int) -> list[Holding]:
        """Return what a function that holds so much can give up, of which it keeps what it was promised.

        It must hold more than its share, and afterwards as much as the claimer then does. A claimer that holds
        nothing also gets, in its turn, what has served for long enough.
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
    """A function that has something to give up."""

    party: Party
    share: float
    holdings: list[Holding]
    """What it has not given up yet."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a claimer may ask for."""

    by: Party
    holds: int
    turn: bool
    """Whether it has waited long enough for its turn."""
    served: float
    """How long an instance must have served to be given up in a turn, seconds."""
    left: Mapping[str, float]
    """What the others' shares are while it has its turn."""


def _loss(holding: Holding) -> tuple[bool, int, float]:
    """Order what a function gives up: what is starting first, the youngest, then where the fewest calls run."""
    return (holding.calls > 0, holding.calls, holding.served)
