"""Leases: who may work on what is in the store, and how others learn that he has gone.

A lease has an owner: one epoch of one node. Who holds leases sends a heartbeat. The leases of an owner that has been
silent can be taken away, and from then on the store refuses all that is done under them.
"""

from __future__ import annotations

import secrets
from typing import NamedTuple, Protocol


class LeaseOwner(NamedTuple):
    """One process, as leases name it. A node gets a new epoch at each start, and whenever its leases were lost."""

    node: str
    epoch: str

    @property
    def id(self) -> str:
        """Return the text that stands for it in the store."""
        return f"{self.node}:{self.epoch}"


def new_owner(node: str) -> LeaseOwner:
    """Return a new epoch of a node."""
    return LeaseOwner(node, secrets.token_hex(8))


class LeaseStore(Protocol):
    """The owners of leases. Each verb is atomic and on disk when it returns. All raise `StoreError`."""

    @property
    def exists(self) -> bool:
        """Return whether anything was ever kept here."""

    async def heartbeat(self, owner: LeaseOwner, now: float) -> bool:
        """Record that an owner is alive at this wall time. Return False if its leases were taken away meanwhile.

        To lease something is a sign of life as well. A lost owner stays lost: its process goes on under a new epoch.
        """

    async def requeue_abandoned(self, owner: LeaseOwner, now: float, silent_seconds: float) -> int:
        """Take away the leases of all owners that are gone, and return how many calls are queued again by that.

        Gone are the earlier epochs of the node of `owner`, which asks, and the owners of other nodes that have been
        silent for so long. Calls that ran for a job that is being cancelled end as cancelled, and bodies that were
        coming are discarded. Runs, jobs, schedules and callbacks are free for whoever looks after them next.
        """
