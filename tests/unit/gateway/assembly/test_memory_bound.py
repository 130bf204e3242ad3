"""The bound of the gateway's memory: it is a sum of parts, and grows with the settings that it names."""

from __future__ import annotations

import pytest

from gateway.assembly.memory_bound import memory_bound
from gateway.assembly.server import most_connections
from gateway.assembly.settings import Settings

MIB = 2**20


def total(connections: int = 100, slots: int = 4, **settings: str) -> int:
    given = Settings(**{"body_memory": "64MiB", **settings})  # type: ignore[arg-type]
    return sum(part.size for part in memory_bound(given, connections, slots))


def test_each_part_has_a_name_of_its_own_and_takes_something() -> None:
    parts = memory_bound(Settings(), 100, 4)
    assert len({part.name for part in parts}) == len(parts)
    assert all(part.size > 0 for part in parts)


@pytest.mark.parametrize(
    ("more", "by"),
    [
        (total(body_memory="128MiB"), 64 * MIB * 7 // 4),
        (total(connections=1100), 1000 * 32 * 1024),
        (total(slots=14), 10 * 640 * 1024),
        (total(log_limit="1256KiB"), 1000 * 1024),
    ],
)
def test_it_grows_with_what_it_names(more: int, by: int) -> None:
    assert more - total() == by


def test_all_idle_connections_take_no_more_than_the_budget() -> None:
    assert most_connections(8 * MIB) == 256
