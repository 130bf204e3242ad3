"""The budget of bytes under any order of wishes: never above its total or a share, and nobody waits for nothing."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from gateway.memory.budget import ANONYMOUS, ANSWERS, UNREAD, BodyBudget, RoomWaiter

TOTAL = 10_000
CALLERS = st.sampled_from(["key-a", "key-b", "key-c", ANONYMOUS, UNREAD, ANSWERS])
SIZES = st.integers(1, TOTAL)


class Budgets(RuleBasedStateMachine):
    """Requests that take, wait, leave and give back."""

    waiters = Bundle("waiters")

    def __init__(self) -> None:
        super().__init__()
        self.closed = True
        self.budget = BodyBudget(TOTAL, lambda: self.closed)
        self.held: list[tuple[str, int]] = []
        self.queued: list[RoomWaiter] = []

    @rule(closed=st.booleans())
    def keys_come(self, closed: bool) -> None:
        """A gateway may get its first key while requests are held; what is held then stays until it is given back."""
        if not self.held and not self.queued:
            self.closed = closed

    @rule(caller=CALLERS, size=SIZES)
    def take(self, caller: str, size: int) -> None:
        before, fits = self.budget.held, self.budget.fits(caller, size)
        others_wait = any(w.waiting and w.caller == caller for w in self.queued)
        taken = self.budget.take(caller, size)
        assert taken == (fits and not others_wait)
        assert self.budget.held == before + size * taken
        if taken:
            self.held.append((caller, size))

    @rule(target=waiters, caller=CALLERS, share=st.floats(0.01, 1))
    def wait(self, caller: str, share: float) -> RoomWaiter:
        size = max(1, int(self.budget.most(caller) * share))

        def granted() -> None:
            self.held.append((caller, size))

        waiter = self.budget.wait(caller, size, granted)
        self.queued.append(waiter)
        return waiter

    @rule(waiter=consumes(waiters))
    def leave(self, waiter: RoomWaiter) -> None:
        self.budget.leave(waiter)
        self.queued.remove(waiter)

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        if self.held:
            caller, size = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
            self.budget.give_back(caller, size)

    @invariant()
    def the_books_agree(self) -> None:
        assert self.budget.held == sum(size for _, size in self.held) <= TOTAL
        assert self.budget.waiting == sum(waiter.waiting for waiter in self.queued)

    @invariant()
    def no_share_is_passed(self) -> None:
        for caller, _ in self.held:
            own = sum(size for of, size in self.held if of == caller)
            assert own == self.budget.held_by(caller) <= self.budget.most(caller)

    @invariant()
    def nobody_waits_for_what_is_free(self) -> None:
        first = {waiter.caller: waiter for waiter in reversed(self.queued) if waiter.waiting}
        assert not [caller for caller, waiter in first.items() if self.budget.fits(caller, waiter.size)]
        assert self.held or not first


TestBudgets = Budgets.TestCase
