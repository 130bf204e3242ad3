"""Owners of leases, for tests that speak to a store themselves."""

from __future__ import annotations

from scheduler.calls.leases import LeaseOwner

ME = LeaseOwner("a", "1")
MY_NEXT_EPOCH = LeaseOwner("a", "2")
SOMEBODY_ELSE = LeaseOwner("b", "1")
