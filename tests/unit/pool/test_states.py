"""The table of states, and the documents that are made from it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pool.states import FIRST, LIVE, PENDING, TRANSITIONS, IllegalTransition, Reason, State, check, diagram

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "pool.md").read_text()


def section(title: str) -> str:
    return DOCUMENT.partition(f"## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> list[str]:
    return re.findall(r"^\| `([\w-]+)` \|", section(title), re.MULTILINE)


def test_the_document_holds_exactly_the_diagram_of_the_table() -> None:
    [shown] = re.findall(r"```mermaid\n(.*?)\n```", DOCUMENT, re.DOTALL)
    assert shown == diagram()


def test_the_module_prints_the_diagram() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "pool.states"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert printed.stdout == diagram() + "\n"


def test_the_diagram_has_one_arrow_for_each_transition() -> None:
    arrows = set(re.findall(r"(\S+) --> (\S+)", diagram()))
    table = {(str(before), str(after)) for before, afters in TRANSITIONS.items() for after in afters}
    assert arrows == table | {("[*]", "found"), ("[*]", "starting"), ("gone", "[*]")}


def test_every_state_and_every_reason_is_documented_in_order() -> None:
    assert rows("States of an instance") == [str(state) for state in State]
    assert rows("Reasons of a removal") == [str(reason) for reason in Reason]


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
def test_check_follows_the_table(before: State, after: State) -> None:
    if after in TRANSITIONS[before]:
        check(before, after)
    else:
        with pytest.raises(IllegalTransition, match=f"{before} does not lead to {after}"):
            check(before, after)


def test_each_state_is_reached_and_each_ends() -> None:
    reached = set(FIRST)
    for _ in State:
        reached |= {after for before in reached for after in TRANSITIONS[before]}
    assert reached == set(State)
    for state in State:
        ends = {state}
        for _ in State:
            ends |= {after for before in ends for after in TRANSITIONS[before]}
        assert State.GONE in ends


def test_a_removal_is_never_undone() -> None:
    assert TRANSITIONS[State.STOPPING] == {State.GONE}
    assert TRANSITIONS[State.GONE] == frozenset()
    assert all(State.STOPPING in TRANSITIONS[state] for state in State if state not in ("stopping", "gone"))
    assert not PENDING & LIVE
