"""The ledger's sums are those of a recount, whatever moves were made."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool.contracts.handler import HANDLER
from pool.engine.base import ContainerSpec
from pool.instance import Instance
from pool.ledger import GENERIC, Ledger
from pool.observe.metrics import Metrics
from pool.states import PENDING, SERVING, TRANSITIONS, IllegalTransition, Reason, State
from pool.workload import Workload

IMAGES = ("i", "j")


def workload(function: str, memory: int) -> Workload:
    container = ContainerSpec(name="", image="i", memory=memory)
    return Workload(function=function, version="1", contract=HANDLER, container=container)


def sums(ledger: Ledger) -> dict[str, object]:
    """Everything that the ledger keeps, as it says."""
    return {
        "memory": (ledger.memory_declared, ledger.memory_free, ledger.memory_stopping),
        "pending": ledger.pending,
        "starting": ledger.starting,
        "adopting": ledger.adopting,
        "states": {f: ledger.states(f) for f in ("a", "b", None)},
        "count": {f: ledger.count(f) for f in ("a", "b")},
        "of": {f: sorted(i.id for i in ledger.of(f)) for f in ("a", "b")},
        "prewarmed": {image: sorted(i.id for i in ledger.prewarmed(image)) for image in IMAGES},
        "refilling": {image: ledger.refilling(image) for image in IMAGES},
        "removals": dict(ledger.removals),
    }


def recount(ledger: Ledger, everyone: list[Instance]) -> dict[str, object]:
    """The same, counted anew over all instances that there ever were."""
    there = [i for i in everyone if i.state is not State.GONE]
    declared = sum(i.memory for i in there)
    named = {f: [i for i in there if i.function == f] for f in ("a", "b", None)}
    generic = named[None]
    return {
        "memory": (
            declared,
            ledger.memory_budget - declared,
            sum(i.memory for i in there if i.state is State.STOPPING),
        ),
        "pending": sum(i.state in PENDING and i.workload is not None for i in there),
        "starting": sum(i.state is State.STARTING for i in there),
        "adopting": sum(i.state is State.ADOPTING for i in there),
        "states": {f: dict(Counter(str(i.state) for i in mine)) for f, mine in named.items()},
        "count": {f: len(named[f]) for f in ("a", "b")},
        "of": {f: sorted(i.id for i in named[f]) for f in ("a", "b")},
        "prewarmed": {
            image: sorted(i.id for i in generic if i.image == image and i.state is State.PREWARMED)
            for image in IMAGES
        },
        "refilling": {
            image: sum(i.image == image and i.state in (State.STARTING, State.ADOPTING) for i in generic)
            for image in IMAGES
        },
        "removals": dict(Counter(i.reason for i in everyone if i.state is State.GONE)),
    }


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["add", "find", "enter", "enter", "enter", "give", "adopt", "stop"]),
        st.integers(0, 2**16),
        st.sampled_from(State),
        st.sampled_from(["a", "b", None]),
        st.sampled_from(Reason),
    ),
    max_size=60,
)


@settings(max_examples=100)
@given(MOVES)
def test_any_moves(moves: list[tuple[str, int, State, str | None, Reason]]) -> None:
    ledger = Ledger(10_000)
    everyone: list[Instance] = []
    for what, roll, state, function, reason in moves:
        if what in ("add", "find"):
            memory = roll % 100
            given_to = workload(function, memory) if function and what == "add" else None
            born = State.STARTING if what == "add" else State.FOUND
            new = Instance(f"n{len(everyone)}", IMAGES[roll % 2], memory, given_to, 0.0, born)
            everyone.append(new)
            ledger.add(new)
        elif everyone:
            instance = everyone[roll % len(everyone)]
            before, kept = sums(ledger), (instance.state, instance.workload, instance.memory, instance.reason)
            target = {"give": State.SPECIALISING, "adopt": State.ADOPTING, "stop": State.STOPPING}.get(
                what, state
            )
            if what == "enter" and target is State.STOPPING:
                what = "stop"
            legal = target in TRANSITIONS[instance.state]
            if what == "give" and instance.workload is not None and legal:
                continue  # only a generic instance is given away: the pool's business
            if target is State.PREWARMED and instance.workload is not None:
                continue  # prewarmed is only what is generic
            if target in SERVING and instance.workload is None:
                continue  # and only what is a function's serves
            try:
                if what == "give":
                    ledger.give(instance, workload(function or "a", roll % 77), 1.0)
                elif what == "adopt":
                    ledger.adopt(instance, workload(function, instance.memory) if function else None, 1.0)
                elif what == "stop":
                    ledger.stop(instance, reason, 1.0)
                else:
                    ledger.enter(instance, target, 1.0)
            except IllegalTransition:
                assert not legal
                assert sums(ledger) == before
                assert (instance.state, instance.workload, instance.memory, instance.reason) == kept
            else:
                assert legal
                assert instance.state is target
                assert instance.state_since == 1.0
        assert sums(ledger) == recount(ledger, everyone)
    assert set(ledger.instances) == {i.id for i in everyone if i.state is not State.GONE}


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
def test_an_illegal_step_raises_and_changes_nothing(before: State, after: State) -> None:
    ledger = Ledger(100)
    left = before in (State.FOUND, State.ADOPTING)
    instance = Instance("one", "i", 10, workload("a", 10), 0.0, State.FOUND if left else State.STARTING)
    ledger.add(instance)
    path = {
        State.FOUND: [],
        State.ADOPTING: [State.ADOPTING],
        State.STARTING: [],
        State.PREWARMED: [State.PREWARMED],
        State.SPECIALISING: [State.SPECIALISING],
        State.IDLE: [State.IDLE],
        State.FROZEN: [State.IDLE, State.FROZEN],
        State.BUSY: [State.IDLE, State.BUSY],
        State.DRAINING: [State.IDLE, State.BUSY, State.DRAINING],
        State.STOPPING: [State.STOPPING],
        State.GONE: [State.STOPPING, State.GONE],
    }[before]
    for step in path:
        ledger.enter(instance, step, 1.0)
    known = sums(ledger)
    if after in TRANSITIONS[before]:
        ledger.enter(instance, after, 2.0)
        assert instance.state is after
        return
    with pytest.raises(IllegalTransition):
        ledger.enter(instance, after, 2.0)
    assert instance.state is before
    assert instance.state_since <= 1.0
    assert sums(ledger) == known


@pytest.mark.parametrize("slow", [True, False])
def test_a_prewarmed_instance_that_is_given_is_the_functions_in_every_sum(slow: bool) -> None:
    ledger = Ledger(1000)
    instance = Instance("one", "i", 10, None, 0.0)
    ledger.add(instance)
    if slow:
        ledger.note_slow(instance)
    assert (ledger.starting, ledger.pending) == (int(not slow), 0)
    ledger.enter(instance, State.PREWARMED, 1.0)
    ledger.give(instance, workload("a", 300), 2.0)
    assert (instance.state, instance.state_since, instance.memory) == (State.SPECIALISING, 2.0, 300)
    assert not instance.slow, "that it was slow to start says nothing of the function"
    assert (ledger.memory_declared, ledger.memory_free) == (300, 700)
    assert (ledger.starting, ledger.pending, ledger.prewarmed("i")) == (0, 1, [])
    assert list(ledger.of("a")) == [instance]
    ledger.note_slow(instance)
    assert (ledger.pending, instance.slow) == (0, True)
    ledger.enter(instance, State.IDLE, 3.0)
    assert (ledger.pending, ledger.states("a")) == (0, {"idle": 1})
    with pytest.raises(IllegalTransition):
        ledger.give(instance, workload("b", 1), 4.0)
    assert (instance.function, instance.state_since, ledger.memory_declared) == ("a", 3.0, 300)


def test_a_found_instance_that_is_adopted_is_the_functions_in_every_sum() -> None:
    ledger = Ledger(1000)
    mine, generic = (Instance(id, "i", 10, None, 0.0, State.FOUND) for id in ("mine", "generic"))
    for instance, given_to in ((mine, workload("a", 10)), (generic, None)):
        ledger.add(instance)
        assert (ledger.adopting, ledger.pending) == (0, 0) if instance is mine else (1, 1)
        ledger.adopt(instance, given_to, 2.0)
        assert (instance.state, instance.state_since) == (State.ADOPTING, 2.0)
    assert (ledger.adopting, ledger.pending, ledger.starting) == (2, 1, 0)
    assert (list(ledger.of("a")), ledger.count("a"), ledger.refilling("i")) == ([mine], 1, 1)
    ledger.enter(mine, State.IDLE, 3.0)
    ledger.enter(generic, State.PREWARMED, 3.0)
    assert (ledger.adopting, ledger.pending, ledger.prewarmed("i")) == (0, 0, [generic])
    with pytest.raises(IllegalTransition):
        ledger.adopt(mine, None, 4.0)
    assert (mine.function, mine.state_since, ledger.states("a")) == ("a", 3.0, {"idle": 1})


def test_the_first_reason_stays() -> None:
    ledger = Ledger(100)
    instance = Instance("one", "i", 10, workload("a", 10), 0.0)
    ledger.add(instance)
    ledger.enter(instance, State.IDLE, 0.0)
    ledger.enter(instance, State.BUSY, 0.0)
    ledger.enter(instance, State.DRAINING, 0.0)
    instance.reason = str(Reason.REPLACED)
    ledger.stop(instance, Reason.DEAD, 0.0)
    ledger.enter(instance, State.GONE, 0.0)
    assert ledger.removals == {"replaced": 1}


def test_gauges_are_brought_up_to_date_and_down_to_zero() -> None:
    ledger, metrics = Ledger(1000), Metrics()

    def gauge(name: str, **labels: str) -> float | None:
        ledger.export(metrics)
        if name == "hearth_instances":
            return dict(metrics.instances.read())[labels["function"], labels["state"]]
        return metrics.registry.get_sample_value(name, labels)

    one = Instance("one", "i", 10, workload("a", 10), 0.0)
    generic = Instance("two", "i", 20, None, 0.0)
    ledger.add(one)
    ledger.add(generic)
    assert gauge("hearth_instances", function="a", state="starting") == 1
    assert gauge("hearth_instances", function=GENERIC, state="starting") == 1
    ledger.enter(one, State.IDLE, 0.0)
    ledger.enter(generic, State.PREWARMED, 0.0)
    assert gauge("hearth_instances", function="a", state="starting") == 0
    assert gauge("hearth_instances", function="a", state="idle") == 1
    assert gauge("hearth_prewarmed", image="i") == 1
    assert gauge("hearth_memory_declared_bytes") == 30
    assert gauge("hearth_memory_budget_bytes") == 1000
    ledger.give(generic, workload("a", 50), 0.0)
    assert gauge("hearth_prewarmed", image="i") == 0
    assert gauge("hearth_memory_declared_bytes") == 60
    for instance in (one, generic):
        ledger.stop(instance, Reason.IDLE, 0.0)
        ledger.enter(instance, State.GONE, 0.0)
    assert gauge("hearth_instances", function="a", state="stopping") == 0
    assert gauge("hearth_memory_declared_bytes") == 0


def test_repr_shows_the_counts() -> None:
    ledger = Ledger(1024 * 2**20)
    assert repr(ledger) == "<Ledger empty; 0 of 1024 MiB declared>"
    for n in range(3):
        ledger.add(Instance(str(n), "i", 128 * 2**20, None, 0.0))
    ledger.enter(ledger.instances["0"], State.PREWARMED, 0.0)
    assert repr(ledger) == "<Ledger 1 prewarmed, 2 starting; 384 of 1024 MiB declared>"
