"""Owners of leases, for tests that speak to a store themselves."""

from __future__ import annotations

from scheduler.calls.leases import LeaseOwner
from scheduler.store.sqlite.leases import SqliteLeaseStore
from scheduler.store.sqlite.writer import Writer

ME = LeaseOwner("a", "1")
MY_NEXT_EPOCH = LeaseOwner("a", "2")
SOMEBODY_ELSE = LeaseOwner("b", "1")


async def take_all_leases(writer: Writer) -> int:
    """Have another node take away all leases, as if their owners were silent. Return how many calls it queued."""
    return await SqliteLeaseStore(writer).requeue_abandoned(SOMEBODY_ELSE, 0.0, -1e9)
