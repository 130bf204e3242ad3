"""Uids of containers: never two with the same, none again soon, and what a range may be."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.engine.base import ContainerSpec
from pool.errors import StartFailed
from pool.host.uids import (
    DEFAULT_UIDS,
    MAPPED_UIDS,
    OWN_USER,
    RESTING_UIDS,
    UID_LABEL,
    UidRange,
    Uids,
    as_before_uids,
    uid_of,
    usable_range,
    with_uid,
)

PROTOTYPE = ContainerSpec(name="", image="i", user=OWN_USER, usual_env={"HOME": "/tmp", "USER": "function"})


def taken(uids: Uids) -> int:
    uid = uids.free()
    assert uid is not None
    uids.hold(uid)
    return uid


@given(st.integers(1, 12), st.lists(st.integers(0, 20), max_size=120))
def test_no_two_containers_have_the_same_uid_and_every_uid_can_be_had(size: int, moves: list[int]) -> None:
    """A move below 8 starts a container, another removes one of those that are there."""
    uids = Uids(UidRange(70_000, 70_000 + size - 1))
    held: list[int] = []
    for move in moves:
        if move < 8:
            uid = uids.free()
            if uid is None:
                assert len(held) == size, "there was a free one"
                continue
            assert uid not in held
            assert uids.ids.first <= uid <= uids.ids.last
            uids.hold(uid)
            held.append(uid)
        elif held:
            uids.let_go(held.pop(move % len(held)))
        assert uids.held == set(held)


def test_a_uid_is_used_again_as_late_as_can_be() -> None:
    size = 2 * RESTING_UIDS
    uids = Uids(UidRange(70_000, 70_000 + size - 1))
    first = taken(uids)
    seen = Counter[int]()
    for _ in range(size - 1):
        uid = taken(uids)
        seen[uid] += 1
        uids.let_go(uid)
    assert max(seen.values()) == 1, "one came again before all had their turn"
    uids.let_go(first)  # the next in turn, and it has just become free
    assert uids.free() != first


def test_what_rests_is_given_out_before_a_start_fails_the_oldest_first() -> None:
    uids = Uids(UidRange(70_000, 70_002))
    one, two, three = taken(uids), taken(uids), taken(uids)
    assert uids.free() is None
    uids.let_go(two)
    uids.let_go(one)
    assert taken(uids) == two
    assert taken(uids) == one
    assert uids.free() is None
    assert uids.held == {one, two, three}


def test_a_uid_that_two_found_containers_have_is_free_when_both_are_gone() -> None:
    uids = Uids()
    uids.hold(70_000)
    uids.hold(70_000)
    uids.let_go(70_000)
    assert uids.held == {70_000}
    uids.let_go(70_000)
    assert uids.held == frozenset()


def test_what_was_found_outside_of_the_range_takes_no_place_in_it() -> None:
    uids = Uids(UidRange(70_000, 70_001))
    uids.hold(5_000_000)
    assert {taken(uids), taken(uids)} == {70_000, 70_001}
    uids.let_go(5_000_000)
    assert uids.free() is None, "the range is what is given out"


@pytest.mark.parametrize(
    ("uid", "covered"), [(69_999, False), (70_000, True), (70_001, True), (70_002, False)]
)
def test_a_uid_is_known_for_one_of_ours(uid: int, covered: bool) -> None:
    assert Uids(UidRange(70_000, 70_001)).covers(uid) is covered


def test_processes_begin_at_different_places() -> None:
    assert len({Uids().free() for _ in range(8)}) > 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "must be FIRST-LAST in numbers, like 1879048192-2147352575, not ''"),
        ("70000", "must be FIRST-LAST"),
        ("-70000--80000", "must be FIRST-LAST"),
        ("70000:80000", "must be FIRST-LAST"),
        ("0-80000", "must go upwards and lie between 1000 and 2147483647"),
        ("999-60000", "must go upwards and lie between 1000"),
        ("80000-70000", "must go upwards"),
        ("70000-2147483648", "must go upwards and lie between 1000 and 2147483647"),
        ("70000-74094", "must have at least 4096 ids, one for each container, not 4095"),
        ("60000-70000", "must not include 65532 to 65535, which others run as, as 60000-70000 does"),
        ("65535-70000", "must not include"),
        ("60000-65532", "must not include"),
    ],
)
def test_a_range_that_cannot_be_is_refused_with_what_to_do(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        UidRange.parse(text)


@pytest.mark.parametrize(
    "text", ["1000-5095", "65536-70000", "60000-65531", f"{DEFAULT_UIDS}", f"{MAPPED_UIDS}"]
)
def test_a_range_is_read_as_it_is_written(text: str) -> None:
    assert str(UidRange.parse(f" {text} ")) == text


def test_where_the_engine_maps_uids_only_ids_that_its_containers_have_are_used() -> None:
    small = UidRange(20_000, 40_000)
    assert usable_range(DEFAULT_UIDS, False) == DEFAULT_UIDS
    assert usable_range(DEFAULT_UIDS, True) == MAPPED_UIDS
    assert usable_range(small, True) == small


def test_a_container_gets_its_uid_a_label_of_it_and_what_the_image_does_not_know_of_it() -> None:
    made = with_uid(PROTOTYPE, 70_001)
    assert (made.user, made.labels) == ("70001:65532", {UID_LABEL: "70001"})
    assert made.env == {"HOME": "/tmp", "USER": "function"}
    assert uid_of(made.labels) == 70_001


def test_a_declared_variable_goes_before_ours() -> None:
    declared = ContainerSpec(
        name="", image="i", user=OWN_USER, env={"HOME": "/x"}, usual_env={"HOME": "/tmp"}
    )
    assert with_uid(declared, 70_001).env == {"HOME": "/x"}


@pytest.mark.parametrize("user", ["70001:70001", "65532:65532", None])
def test_another_user_stays_as_it_is(user: str | None) -> None:
    spec = ContainerSpec(name="", image="i", user=user, passwd=b"lines")
    assert with_uid(spec, None) is spec
    assert as_before_uids(spec) is spec


def test_a_container_gets_its_usual_variables_and_a_line_for_its_own_uid() -> None:
    usual = {"HOME": "/tmp", "USER": "function"}
    spec = ContainerSpec(
        name="", image="i", user=OWN_USER, env={"USER": "me"}, usual_env=usual, passwd=b"a\n"
    )
    given = with_uid(spec, 70_001)
    assert given.env == {"HOME": "/tmp", "USER": "me"}
    assert given.passwd == b"function:x:70001:65532:function:/tmp:/bin/sh\na\n"
    assert with_uid(replace(spec, user="1:1"), None).env == given.env


def test_a_start_without_a_uid_fails_with_what_to_do() -> None:
    with pytest.raises(StartFailed, match="containers use every uid of the setting HEARTH_UIDS"):
        with_uid(PROTOTYPE, None)


@pytest.mark.parametrize("label", ["", "x", "-1", "1.5", "9" * 5000, "²"])
def test_a_label_that_is_no_uid_counts_for_nothing(label: str) -> None:
    assert uid_of({UID_LABEL: label}) is None
    assert uid_of({}) is None
