"""What a gateway puts up with from the connections of its clients."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.edge.slices import SliceQueue
from gateway.memory.budget import BodyBudget
from gateway.memory.connections import ConnectionMemory


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What a gateway puts up with: `patience` in seconds, and open connections of clients at once."""

    patience: float
    connections: int
    memory: ConnectionMemory = field(default_factory=lambda: ConnectionMemory(BodyBudget(2**40)))
    """What they hold of the budget for requests and answers."""
    slices: SliceQueue = field(default_factory=SliceQueue)
    """Those whose data is parsed in slices."""
